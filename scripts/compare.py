"""Runs several configs over several seeds and prints one table (Markdown); resumable.

python scripts/compare.py --configs=configs/quickstart.py:dense,configs/quickstart.py --seeds=1,2,3 \
    --workdir=runs/compare --output=table.md --picture=curves.png

A name with @ before it is a file that lists configs, one a line: --configs=@configs/comparison.txt.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

CONFIGS = flags.DEFINE_list(
    "configs", None, "Configs, such as configs/quickstart.py:dense, or @FILE.", required=True
)
SEEDS = flags.DEFINE_list("seeds", ["1", "2", "3"], "Seeds.")
OUTPUT = flags.DEFINE_string("output", "", "File for the table, beside printing it.")
PICTURE = flags.DEFINE_string("picture", "", "PNG file for the curves.")
WORKDIR = cli.workdir_flag("Folder for the runs.")


def main():
    from fedsparse_jax.runs import metrics_log
    from fedsparse_jax.studies import compare_methods

    cli.cache_compilations()
    specs = compare_methods.listed(CONFIGS.value)
    results = compare_methods.run(specs, [int(seed) for seed in SEEDS.value], Path(WORKDIR.value))
    table = compare_methods.table(results)
    print(table)
    if OUTPUT.value:
        metrics_log.write_text(Path(OUTPUT.value), table)
    if PICTURE.value:
        Path(PICTURE.value).write_bytes(compare_methods.picture(results))


if __name__ == "__main__":
    cli.run(main)

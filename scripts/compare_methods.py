"""Runs several configs over several seeds and prints one table (Markdown); resumable.

python scripts/compare_methods.py --configs=configs/quickstart.py:dense,configs/quickstart.py --seeds=1,2,3 \
    --workdir=runs/compare --output=table.md --picture=curves.png

A name with @ before it is a file that lists configs, one a line: --configs=@configs/lists/comparison.txt.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

CONFIGS = flags.DEFINE_list("configs", None, "Configs, such as configs/quickstart.py:dense, or @FILE.", required=True)
SEEDS = flags.DEFINE_list("seeds", ["1", "2", "3"], "Seeds.")
OUTPUT = flags.DEFINE_string("output", "", "File for the table, beside printing it.")
PICTURE = flags.DEFINE_string("picture", "", "PNG file for the curves.")
WORKDIR = cli.workdir_flag("Folder for the runs.")


def main():
    from fedsparse_jax.core.files import write_whole
    from fedsparse_jax.studies import compare_methods

    cli.cache_compilations()
    specs, seeds = compare_methods.expand_lists(CONFIGS.value), [int(seed) for seed in SEEDS.value]
    results = compare_methods.run_comparison(specs, seeds, Path(WORKDIR.value))
    table = compare_methods.comparison_table(results)
    print(table)
    if OUTPUT.value:
        write_whole(Path(OUTPUT.value), table)
    if PICTURE.value:
        write_whole(Path(PICTURE.value), compare_methods.comparison_figure(results))


if __name__ == "__main__":
    cli.run_main(main)

"""Trains a grid of configs, values and seeds, and compares them with intervals; resumable at every point.

python scripts/study.py --configs=configs/quickstart.py:dense,configs/quickstart.py --seeds=1,2,3 --workdir=runs/compare
python scripts/study.py --configs=configs/quickstart.py --set=client.optimizer.learning_rate=1e-3,3e-3 \
    --workdir=runs/rates
python scripts/study.py --study=configs/studies/grid.py:headline --workdir=runs/headline

A name with @ before it is a file that lists configs, one a line: --configs=@configs/lists/comparison.txt. Without
--study, all rows are compared with the first config. Writes study.md, .csv, .tex, .png, .pdf and .html, runs.csv, and
runs.jsonl.gz with every run's log. A later study takes from such a file what it holds: --known=FILE. With
--at_once=2 two runs are trained at a time, each in a process of its own.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

STUDY = flags.DEFINE_string(
    "study", "", "Python file whose get_study(forms) returns the cells, and forms, as of a config."
)
CONFIGS = flags.DEFINE_list("configs", [], "Configs, such as configs/quickstart.py:dense, or @FILE.")
VALUES = flags.DEFINE_multi_string("set", [], "KEY=VALUE,VALUE of the config; every combination is trained.")
KNOWN = flags.DEFINE_string("known", "", "A runs.jsonl.gz, whose runs are not trained again.")
SEEDS = flags.DEFINE_list("seeds", [], "Seeds (default: those of the study, or 1,2,3).")
AT_ONCE = flags.DEFINE_integer("at_once", 1, "Runs at a time, each in a process of its own.", lower_bound=1)
WORKDIR = cli.workdir_flag("Folder for the runs and the tables.")


def main():
    from fedsparse_jax.core.errors import UsageError
    from fedsparse_jax.studies import grid, grid_report, kept_runs

    cli.cache_compilations()
    seeds = [int(seed) for seed in SEEDS.value]
    if bool(STUDY.value) == bool(CONFIGS.value):
        raise UsageError("Say what to train: either --study=FILE, or --configs=CONFIG,CONFIG.")
    if STUDY.value:
        study = grid.read_study(STUDY.value)
        if seeds:
            study = study._replace(cells=[cell._replace(seeds=seeds) for cell in study.cells])
    else:
        study = grid.study_of_configs(CONFIGS.value, VALUES.value, seeds or (1, 2, 3))
    workdir = Path(WORKDIR.value)
    known = kept_runs.read_kept(Path(KNOWN.value), study) if KNOWN.value else []
    keep = lambda finished: kept_runs.write_kept(workdir / kept_runs.KEPT, finished)
    runs = grid.run_study(study, workdir, known=known, keep=keep, at_once=AT_ONCE.value, begin=cli.begin_worker)
    print(grid_report.write_study(study, runs, workdir))
    print(f"Tables, figures and page: {workdir}")


if __name__ == "__main__":
    cli.run_main(main)

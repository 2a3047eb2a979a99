"""Cross-validates what a config describes, over people or whole sites, and prints one table (Markdown); resumable.

python scripts/cross_validate.py --config=configs/quickstart.py --folds=5 --over=people --workdir=runs/folds

With --over=sites --folds=auto every site is tested once by a model of all others (leave-site-out).
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

CONFIG = cli.config_flag()
FOLDS = flags.DEFINE_string("folds", "5", "How many folds, or auto for one a site.")
OVER = flags.DEFINE_enum("over", "people", ["people", "sites"], "What is in one fold as a whole.")
WHICH = flags.DEFINE_string("which", "last", "Model of each fold: best (on validation), last, or a round.")
WORKDIR = cli.workdir_flag("Folder for the runs; the same command again goes on where it stopped.")


def main():
    from fedsparse_jax.core.errors import UsageError
    from fedsparse_jax.core.files import write_whole
    from fedsparse_jax.studies import cross_validation

    cli.cache_compilations()
    folds, workdir = FOLDS.value, Path(WORKDIR.value)
    if folds != "auto" and not folds.isdecimal():
        raise UsageError(f"--folds is {folds!r}: it must be a number, or auto.")
    outcomes, task = cross_validation.cross_validate(
        CONFIG.value, workdir, folds, OVER.value, WHICH.value, progress=cli.show_progress
    )
    table = cross_validation.summary(outcomes, task, OVER.value)
    print(table)
    write_whole(workdir / "cross_validation.md", table)
    print(f"Predictions: {workdir / cross_validation.PREDICTIONS}")


if __name__ == "__main__":
    cli.run_main(main)

"""Trains what a config describes: rounds, checkpoints, log and report in one run folder.

python scripts/train.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

CONFIG = cli.config_flag()
WORKDIR = cli.workdir_flag("Folder of the run; the same command again goes on where it stopped.")


def main():
    from fedsparse_jax.config import build
    from fedsparse_jax.reporting import report
    from fedsparse_jax.runs import loop

    cli.cache_compilations()
    workdir = Path(WORKDIR.value)
    loop.run(build.experiment(CONFIG.value, cli.track), workdir)
    if CONFIG.value.log.report:
        print(f"Report: {report.write(workdir)}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)

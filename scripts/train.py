"""Trains what a config describes: rounds, checkpoints, log and report in one run folder.

python scripts/train.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from pathlib import Path

from fedsparse_jax import cli

CONFIG = cli.config_flag()
cli.hosts_flags()
WORKDIR = cli.workdir_flag("Folder of the run; the same command again goes on where it stopped.")


def main():
    from fedsparse_jax.config import experiment_from_config, federation_on_hosts
    from fedsparse_jax.runs import run_experiment

    cli.cache_compilations()
    config, workdir = CONFIG.value, Path(WORKDIR.value)
    with cli.many_hosts() as link:
        federate = federation_on_hosts(link)
        experiment = experiment_from_config(config, cli.show_progress, workdir=workdir, federate_=federate)
        run_experiment(experiment, workdir, link=link)
        if config.log.report and not (link and link.index):
            from fedsparse_jax.reporting import write_report

            print(f"Report: {write_report(workdir)}")


if __name__ == "__main__":
    cli.run_main(main)

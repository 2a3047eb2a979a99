"""Trains at several sites by NVIDIA FLARE, or by Flower: as processes on this machine, or by a job for real ones.

python scripts/deploy.py --config=configs/quickstart.py --sites=FOLDER1,FOLDER2,FOLDER3 --test=FOLDER \
    --workdir=runs/three-sites
python scripts/deploy.py --config=configs/quickstart.py --sites=north,south,west --job=jobs/brain-age

docs/how-to/deploy.md leads from the first line to provisioned start-up kits with certificates, and
docs/how-to/deploy_flower.md does so with --engine=flower.
"""

from collections.abc import Callable
from pathlib import Path

from absl import flags

from fedsparse_jax import cli

CONFIG = cli.config_flag()
ENGINE = flags.DEFINE_enum("engine", "nvflare", ["nvflare", "flower"], "What carries the bytes.")
SITES = flags.DEFINE_list(
    "sites", None, "Folder, or table, of each site's scans; with --job their names.", required=True
)
TEST = flags.DEFINE_string("test", "", "Folder, or table, of the server's test set.")
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder; the same command again goes on where it stopped.")
JOB = flags.DEFINE_string(
    "job", "", "Folder of a job, or app, that is written for real sites, instead of a simulation."
)
ROUND_TIMEOUT = flags.DEFINE_integer("round_timeout", 3600, "Seconds that a site has for a round.")
JOIN_TIMEOUT = flags.DEFINE_integer("join_timeout", 3600, "Seconds that a site has to read its scans.")


def main():
    from fedsparse_jax.core.errors import UsageError

    write_job: Callable
    simulate_sites: Callable
    if ENGINE.value == "flower":
        from fedsparse_jax.deploy import flower_job

        write_job, simulate_sites = flower_job.write_app, flower_job.simulate_by_flower
    else:
        from fedsparse_jax.deploy import flare_job

        write_job, simulate_sites = flare_job.write_job, flare_job.simulate_sites
    cli.cache_compilations()
    config = CONFIG.value
    timeouts = dict(round_timeout=ROUND_TIMEOUT.value, join_timeout=JOIN_TIMEOUT.value)
    if JOB.value:
        job = Path(JOB.value)
        write_job(config, SITES.value, job, job.resolve().name, **timeouts)
        print(f"Job: {job}")
        return
    if not TEST.value or not WORKDIR.value:
        raise UsageError("Give --test and --workdir to simulate the sites, or --job to write a job for real ones.")
    workdir = Path(WORKDIR.value)
    simulate_sites(config, [Path(folder) for folder in SITES.value], Path(TEST.value), workdir, **timeouts)
    if config.log.report:
        from fedsparse_jax.reporting import write_report

        print(f"Report: {write_report(workdir)}")


if __name__ == "__main__":
    cli.run_main(main)

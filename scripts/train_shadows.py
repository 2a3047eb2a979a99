"""Trains shadow models of a finished run, on random halves of all its people, for audit_run.py; resumable.

python scripts/train_shadows.py --run=runs/leakage-95 --shadows=8 --workdir=runs/leakage-95-shadows
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

RUN = flags.DEFINE_string("run", None, "Folder of the run whose config the shadows share.", required=True)
SHADOWS = flags.DEFINE_integer("shadows", 8, "How many, an even number.")
WORKDIR = cli.workdir_flag("Folder for the shadows; the same command again goes on where it stopped.")


def main():
    from fedsparse_jax.config import load_run
    from fedsparse_jax.studies import train_shadows

    cli.cache_compilations()
    run = Path(RUN.value)
    train_shadows(load_run(run)[0], Path(WORKDIR.value), SHADOWS.value, run=run, progress=cli.show_progress)
    print(f"Shadows: {WORKDIR.value}")


if __name__ == "__main__":
    cli.run_main(main)

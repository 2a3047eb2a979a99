"""Trains shadow models of a finished run, on random halves of all its people, for scripts/attack.py; resumable.

python scripts/shadows.py --run=runs/audit-95 --shadows=8 --workdir=runs/audit-95-shadows
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

RUN = flags.DEFINE_string("run", None, "Folder of the run whose config the shadows share.", required=True)
SHADOWS = flags.DEFINE_integer("shadows", 8, "How many, an even number.")
WORKDIR = cli.workdir_flag("Folder for the shadows; the same command again goes on where it stopped.")


def main():
    from fedsparse_jax.config import build
    from fedsparse_jax.studies import shadow_models

    cli.cache_compilations()
    config = build.trained(Path(RUN.value))[0]
    shadow_models.train(config, Path(WORKDIR.value), SHADOWS.value, track=cli.track)
    print(f"Shadows: {WORKDIR.value}")


if __name__ == "__main__":
    cli.run(main)

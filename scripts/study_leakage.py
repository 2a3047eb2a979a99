"""Does sparsity hide who was in the training data? Trains, attacks and prints a table; resumable.

python scripts/study_leakage.py --workdir=runs/leakage

At each sparsity models are trained on random halves of the people, and each is attacked with the others as its
shadows. Early stopping and differentially private training (extra "privacy") are measured beside them. Writes
study.json, study.md and study.png into the folder.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORKDIR = cli.workdir_flag("Folder of the study; the same command again goes on where it stopped.")
FILE = flags.DEFINE_string("config_file", "configs/leakage_study.py", "Config whose forms are sparsities in percent.")
SPARSITIES = flags.DEFINE_list("sparsities", ["0", "50", "80", "90", "95", "99"], "In percent; 0 comes first.")
NOISES = flags.DEFINE_list("noises", ["0.02", "0.1", "0.4"], "Noise multipliers of private training.")
TARGETS = flags.DEFINE_integer("targets", 8, "Models at each sparsity, an even number.")
FORM = flags.DEFINE_string("form", "", "A further form of the config, such as smoke.")


def main():
    from fedsparse_jax.studies import study_leakage

    cli.cache_compilations()
    workdir = Path(WORKDIR.value)
    study_leakage(
        workdir,
        FILE.value,
        percents=tuple(SPARSITIES.value),
        noises=tuple(NOISES.value),
        targets=TARGETS.value,
        form=FORM.value,
        progress=cli.show_progress,
    )
    print((workdir / "study.md").read_text(encoding="utf-8"))
    print(f"Study: {workdir / 'study.json'}")


if __name__ == "__main__":
    cli.run_main(main)

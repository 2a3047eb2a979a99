"""ABIDE, people with autism and controls of 20 sites: the controls.

python scripts/prepare.py --config=configs/cohorts/abide.py --config.data.root=ABIDE_FOLDER --output=prepared
python scripts/train.py --config=configs/cohorts/abide.py --config.data.root=ABIDE_FOLDER --workdir=runs/abide

For what a pipeline has made of the scans, in MNI space and without the skull, in folders or names that hold a person's
number. Clients are of equal size, people at random; with ``--config.partition.name=site
--config.partition.num_clients=auto`` each site is one. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    return cohort_config("abide", forms, participants="", controls=True, contains="")

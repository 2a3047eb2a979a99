"""Cam-CAN, about 650 people from 18 to 88 years of one scanner.

python scripts/prepare.py --config=configs/cohorts/camcan.py --config.data.root=CAMCAN_FOLDER --output=prepared
python scripts/train.py --config=configs/cohorts/camcan.py --config.data.root=CAMCAN_FOLDER --workdir=runs/camcan

For what a pipeline has made of the scans, in MNI space and without the skull. One scanner has no sites, so that the
clients are of equal size, people at random. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    return cohort_config("camcan", forms, participants="", contains="T1w")

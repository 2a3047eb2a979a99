"""IXI, about 560 people with an age of three London hospitals, each a client.

python scripts/prepare.py --config=configs/cohorts/ixi.py --config.data.root=IXI_FOLDER --output=prepared
python scripts/train.py --config=configs/cohorts/ixi.py --config.data.root=IXI_FOLDER --workdir=runs/ixi

IXI's images have skulls and are not registered. This config is for what a pipeline has made of them, in MNI space and
without the skull, under IXI's names. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    return cohort_config("ixi", forms, sites=3, participants="", ending="")

"""Derivatives of fMRIPrep or sMRIPrep inside a BIDS folder: T1w images in MNI space, with the brain masks beside them.

python scripts/prepare.py --config=configs/cohorts/fmriprep.py --config.data.root=DERIVATIVES --output=prepared
python scripts/train.py --config=configs/cohorts/fmriprep.py --config.data.root=DERIVATIVES --workdir=runs/fmriprep

DERIVATIVES is such as ``BIDS_FOLDER/derivatives/fmriprep``. ``--config.data.options.suffixes=T1w,label-GM_probseg
--config.data.channels=2`` adds the maps of grey matter as a second channel. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    return cohort_config("bids", forms, space="MNI152NLin2009cAsym", suffixes="T1w")

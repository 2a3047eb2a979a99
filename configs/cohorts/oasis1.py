"""OASIS-1, 416 people from 18 to 96 years: the grey-matter maps that nilearn fetches.

python scripts/prepare.py --config=configs/cohorts/oasis1.py --config.data.root=OASIS_FOLDER --output=prepared
python scripts/train.py --config=configs/cohorts/oasis1.py --config.data.root=OASIS_FOLDER --workdir=runs/oasis1

``--config.data.options.healthy=True`` leaves out people with dementia. Grey and white matter as channels are
``--config.data.options.images=grey,white --config.data.channels=2``. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    return cohort_config("oasis1", forms, images="grey", healthy=False, participants="")

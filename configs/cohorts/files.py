"""Scans whose names are ids, with a table of ages.

python scripts/prepare.py --config=configs/cohorts/files.py --config.data.root=SCANS_FOLDER --output=prepared
python scripts/train.py --config=configs/cohorts/files.py --config.data.root=SCANS_FOLDER --workdir=runs/files

The root may be a pattern such as 'scans/*_brain.nii.gz'. The table is participants.tsv in the folder, or
``--config.data.options.participants=FILE``. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    return cohort_config("files", forms, participants="", id_pattern="", affine="", volumes=1)

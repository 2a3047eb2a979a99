"""Outputs of CAT12 or SPM, with a table of ages: maps of grey matter in MNI space.

python scripts/prepare.py --config=configs/cohorts/cat12.py --config.data.root=CAT12_FOLDER --output=prepared
python scripts/train.py --config=configs/cohorts/cat12.py --config.data.root=CAT12_FOLDER --workdir=runs/cat12

``--config.data.options.image=mwp1,mwp2 --config.data.channels=2`` reads grey and white matter as channels. The table is
participants.tsv in the folder, or ``--config.data.options.participants=FILE``. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    return cohort_config("cat12", forms, participants="", id_pattern="", image="mwp1")

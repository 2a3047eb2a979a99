"""Subject folders of FreeSurfer or FastSurfer, with a table of ages.

python scripts/prepare.py --config=configs/cohorts/freesurfer.py --config.data.root=SUBJECTS_DIR --output=prepared
python scripts/train.py --config=configs/cohorts/freesurfer.py --config.data.root=SUBJECTS_DIR --workdir=runs/surfer

Images of FreeSurfer have no skull, but are not in MNI space, so that their alignment is rough. The table is
participants.tsv in the folder, or ``--config.data.options.participants=FILE``. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    config = cohort_config("freesurfer", forms, participants="", id_pattern="", image="norm")
    config.data.align = "rough"
    return config

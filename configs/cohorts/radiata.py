"""Radiata's brain-structure, 3,794 skull-stripped scans in MNI space of five open studies, with its own test people.

python scripts/prepare.py --config=configs/cohorts/radiata.py --config.data.root=RADIATA_FOLDER --output=prepared
python scripts/train.py --config=configs/cohorts/radiata.py --config.data.root=RADIATA_FOLDER --workdir=runs/radiata

Clients are of equal size, people at random; with ``--config.partition.name=site --config.partition.num_clients=auto``
each study is one. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    return cohort_config("radiata", forms, site_col="study", test="own")

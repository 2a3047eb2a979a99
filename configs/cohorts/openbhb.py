"""OpenBHB, 3,984 healthy people of 62 sites as NumPy arrays: tested on sites that the training never saw.

python scripts/prepare.py --config=configs/cohorts/openbhb.py --config.data.root=OPENBHB_FOLDER --output=prepared
python scripts/train.py --config=configs/cohorts/openbhb.py --config.data.root=OPENBHB_FOLDER --workdir=runs/openbhb

``--config.data.options.space=vbm`` reads the grey-matter maps instead of the skull-stripped images. The test set is the
external one; ``--config.data.options.test=internal`` or ``both`` chooses otherwise. With ``--config.partition.name=site
--config.partition.num_clients=auto`` each site is a client. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import cohort_config


def get_config(forms=""):
    return cohort_config("openbhb", forms, space="quasiraw", test="external", site_col="site")

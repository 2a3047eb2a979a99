"""FedAvg, the dense baseline: the paper's network at 2 mm over eight clients (McMahan et al., 2017).

python scripts/train.py --config=configs/fedavg.py --workdir=runs/fedavg --config.data.source=bids \
    --config.data.root=FOLDER

Expect hours on a GPU and days on a CPU at full size.
"""

from fedsparse_jax.defaults import defaults, in_form


def get_config(mode=""):
    config = defaults()
    return in_form(config, mode)

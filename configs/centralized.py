"""Centralized progressive pruning: one client that holds everything, pruned by the same schedule.

python scripts/train.py --config=configs/centralized.py --workdir=runs/centralized --config.data.source=bids \
    --config.data.root=FOLDER

The reference that a federation is measured against. For the dense one: --config.pruning.placement=none.
"""

from fedsparse_jax.defaults import defaults, in_form, sparsify


def get_config(mode=""):
    config = defaults()
    config.method = "centralized_pruning"
    config.partition.num_clients = 1
    sparsify(config, "server")
    return in_form(config, mode)

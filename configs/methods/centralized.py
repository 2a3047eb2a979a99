"""Centralized progressive pruning: one client that holds everything, pruned by the same schedule.

python scripts/train.py --config=configs/methods/centralized.py --workdir=runs/centralized \
    --config.data.source=bids --config.data.root=FOLDER

The reference that a federation is measured against; in the form ``dense`` without pruning.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``dense``; ``smoke``, the smallest run. What to expect on
the digits: docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config, sparsify


def get_config(forms=""):
    config, chosen = base_config(forms, "dense")
    config.method = "centralized" if "dense" in chosen else "centralized_pruning"
    config.partition.num_clients = 1
    if "dense" not in chosen:
        sparsify(config, "server")
    return config

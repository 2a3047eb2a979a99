"""Travelling model: it goes from client to client, and nothing is merged (Souza et al., JAMIA 2022, PMC9748540).

python scripts/train.py --config=configs/methods/cyclic.py --workdir=runs/cyclic \
    --config.data.source=bids --config.data.root=FOLDER

Also called cyclic weight transfer (Chang et al., 2018). In each round every client trains the model that the one before
it has left, in the order of their numbers; ``--config.order=shuffled`` draws an order for each round. Expect more than
FedAvg where sites have a handful of scans (docs/results/travelling.md, and docs/results/methods.md as a reference), and
less where the last clients differ from the first. ``--config.pruning.placement=server`` prunes after each client.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "cyclic"
    config.order = "cyclic"
    return config

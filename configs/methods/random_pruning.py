"""Random pruning: FedSparsify-Global's schedule, and a fixed random order instead of magnitude.

python scripts/train.py --config=configs/methods/random_pruning.py --workdir=runs/random_pruning \
    --config.data.source=bids --config.data.root=FOLDER

One permutation, drawn from the seed, decides; masks of rising sparsity nest (a baseline of arXiv 2208.11669).
Expect a great loss of accuracy at 95 %: any criterion must beat it.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config, sparsify


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "random"
    config.pruning.criterion = "random"
    sparsify(config, "server")
    return config

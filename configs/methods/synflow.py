"""SynFlow: pruning before round 1 that sees no data, in a hundred steps (Tanaka et al., arXiv 2006.05467).

python scripts/train.py --config=configs/methods/synflow.py --workdir=runs/synflow \
    --config.data.source=bids --config.data.root=FOLDER

Built against the collapse of layers: scores flow through the whole network. Instance norm, which the brain network has
after every convolution, hides the flow from it; expect it to shine on networks without.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "synflow"
    with config.unlocked():
        config.pruning.update(
            placement="init", criterion="synflow", scored_clients="one", prunable="kernels", iterations=100
        )
    return config

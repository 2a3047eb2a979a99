"""GraSP: one client's batch decides before round 1, by gradient flow (Wang et al., arXiv 2002.07376).

python scripts/train.py --config=configs/methods/grasp.py --workdir=runs/grasp \
    --config.data.source=bids --config.data.root=FOLDER

Weights are kept by ``w (H g)``, the largest first. Biases stay whole, as for SNIP.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "grasp"
    with config.unlocked():
        config.pruning.update(placement="init", criterion="grasp", scored_clients="one", prunable="kernels")
    return config

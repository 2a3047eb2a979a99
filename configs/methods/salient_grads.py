"""SalientGrads (SSFL): all clients' saliency decides before round 1 (arXiv 2304.07488; TMLR 2026).

python scripts/train.py --config=configs/methods/salient_grads.py --workdir=runs/salient_grads \
    --config.data.source=bids --config.data.root=FOLDER

SNIP's score on a batch of every client, averaged by their sizes; one mask for all, and FedAvg within it. Expect it to
beat SNIP where clients differ. Biases stay whole, as in the paper.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "salient_grads"
    with config.unlocked():
        config.pruning.update(placement="init", criterion="salient_grads", scored_clients="all", prunable="kernels")
    return config

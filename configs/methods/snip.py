"""SNIP: one client's batch decides before round 1; all train within that mask (Lee et al., arXiv 1810.02340).

python scripts/train.py --config=configs/methods/snip.py --workdir=runs/snip \
    --config.data.source=bids --config.data.root=FOLDER

Weights are kept by ``|w dL/dw|`` of the very model that is then trained. Biases stay whole: they start at zero, where
the score is blind. Expect less than progressive pruning at 95 %, and a mask coloured by the one client that chose it.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "snip"
    with config.unlocked():
        config.pruning.update(placement="init", criterion="snip", scored_clients="one", prunable="kernels")
    return config

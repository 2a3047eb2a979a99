"""LotteryFL style: every client finds a mask of its own, and rewinds (Li et al., arXiv 2008.03371).

python scripts/train.py --config=configs/methods/lotteryfl.py --workdir=runs/lotteryfl \
    --config.data.source=bids --config.data.root=FOLDER

Before it trains, a client that predicts well enough prunes a fifth of what remains, layer by layer, and starts again
from the initial weights. The server takes the unweighted mean over the keepers; what nobody holds stays as it was.
Judged are the clients' own models: ``own classes`` is the paper's setting, the test accuracy that of the same models on
all classes; expect much of the first and little of the second. ``hooks.min_accuracy`` says how well is well enough;
for ages it is 0, which is always.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "lotteryfl"
    with config.unlocked():
        config.pruning.update(scope="per_layer", prunable="kernels")
        min_accuracy = 0.2 if config.task == "classification" else 0.0
        config.hooks = dict(name="lottery_tickets", min_accuracy=min_accuracy, reset_to_initial=True)
        config.pruning.schedule = dict(name="multiplicative", rate=0.2)
        config.aggregation = dict(name="keepers_mean", weighted=False)
    return config

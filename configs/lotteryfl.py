"""LotteryFL style: every client finds a mask of its own, and rewinds (Li et al., arXiv 2008.03371).

python scripts/train.py --config=configs/lotteryfl.py --workdir=runs/lotteryfl \
    --config.data.source=bids --config.data.root=FOLDER

On arrival a client whose predictions are good enough prunes a fifth of what remains, layer by layer, and starts again
from the initial weights; the server takes the plain mean over keepers, and what nobody holds stays as it was. Judged
are the clients' own models: ``own classes`` is the paper's setting, the test accuracy that of the same models on all
classes; expect much of the first and little of the second. The gate is a share of right predictions: open for ages.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; a number, the sparsity in
percent; ``smoke``, the smallest run. What to expect on the digits: docs/methods.md.
"""

from fedsparse_jax.config.defaults import start


def get_config(mode=""):
    config, _ = start(mode)
    config.method = "lotteryfl"
    with config.unlocked():
        config.pruning.update(placement="arrival", scope="per_layer", prunable="kernels")
        config.pruning.gate = 0.2 if config.task == "classification" else 0.0
        config.pruning.schedule = dict(name="multiplicative", rate=0.2)
        config.aggregation = dict(name="keepers_mean", weighted=False)
    return config

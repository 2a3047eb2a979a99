"""One-shot pruning: FedAvg, then the whole sparsity at once (a baseline of FedSparsify, arXiv 2208.11669).

python scripts/train.py --config=configs/one_shot.py --workdir=runs/one_shot \
    --config.data.source=bids --config.data.root=FOLDER

Plain, the server prunes after the last round, and nothing follows: expect a large loss of accuracy at 95 %. In the form
``tuned`` it prunes after nine tenths of the rounds, and the rest train within the mask.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; a number, the sparsity in
percent; ``tuned``; ``smoke``, the smallest run. What to expect on the digits: docs/methods.md.
"""

from fedsparse_jax.config.defaults import start


def get_config(mode=""):
    config, forms = start(mode, "tuned")
    tuned = "tuned" in forms
    config.method = "one_shot_tuned" if tuned else "one_shot"
    config.pruning.placement = "server"
    with config.unlocked():
        config.pruning.schedule = dict(name="one_shot", at=round(0.9 * config.rounds) if tuned else 0)
    return config

"""One-shot pruning: FedAvg, then the whole sparsity at once (a baseline of FedSparsify, arXiv 2208.11669).

python scripts/train.py --config=configs/methods/one_shot.py --workdir=runs/one_shot \
    --config.data.source=bids --config.data.root=FOLDER

Plain, the server prunes after the last round, and nothing follows: expect a large loss of accuracy at 95 %. In the form
``tuned`` it prunes after nine tenths of the rounds, and the rest train within the mask.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``tuned``; ``smoke``, the smallest run. What to expect on
the digits: docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, chosen = base_config(forms, "tuned")
    tuned = "tuned" in chosen
    config.method = "one_shot_tuned" if tuned else "one_shot"
    config.pruning.placement = "server"
    with config.unlocked():
        config.pruning.schedule = dict(name="one_shot", at=round(0.9 * config.rounds) if tuned else 0)
    return config

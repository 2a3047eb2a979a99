"""FedSparsify-Global: the paper's network and schedule, to 95 % sparsity in 40 rounds (arXiv 2208.11669).

python scripts/train.py --config=configs/methods/fedsparsify_global.py --workdir=runs/fedsparsify_global \
    --config.data.source=bids --config.data.root=FOLDER

The server prunes the aggregated model by magnitude, over all weights jointly; the masks nest, and every client trains
within the mask it was sent. Expect the accuracy of FedAvg. The last round reaches the final sparsity, and nothing
trains at it; in the form ``tuned`` the last fifth of the rounds does.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``tuned``; ``smoke``, the smallest run. What to expect on
the digits: docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config, sparsify


def get_config(forms=""):
    config, chosen = base_config(forms, "tuned")
    tuned = "tuned" in chosen
    config.method = "fedsparsify_global_tuned" if tuned else "fedsparsify_global"
    sparsify(config, "server", end=round(0.8 * config.rounds) if tuned else 0)
    return config

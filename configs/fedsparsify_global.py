"""FedSparsify-Global: the paper's network and schedule, to 95 % sparsity in 40 rounds (arXiv 2208.11669).

python scripts/train.py --config=configs/fedsparsify_global.py --workdir=runs/global --config.data.source=bids \
    --config.data.root=FOLDER

The server prunes the aggregated model by magnitude, over all weights jointly; the masks nest, and every
client trains within the mask it was sent. Expect the accuracy of configs/fedavg.py.
"""

from fedsparse_jax.defaults import defaults, in_form, sparsify


def get_config(mode=""):
    config = defaults()
    config.method = "fedsparsify_global"
    sparsify(config, "server")
    return in_form(config, mode)

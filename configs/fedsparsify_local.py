"""FedSparsify-Local: the paper's network and schedule, to 95 % sparsity in 40 rounds (arXiv 2208.11669).

python scripts/train.py --config=configs/fedsparsify_local.py --workdir=runs/local --config.data.source=bids \
    --config.data.root=FOLDER

Each client prunes its own model after local training, and the server keeps what a majority of the clients
kept. The density that results is measured: it lies above the one asked for where the clients disagree.
"""

from fedsparse_jax.defaults import defaults, in_form, sparsify


def get_config(mode=""):
    config = defaults()
    config.method = "fedsparsify_local"
    with config.unlocked():
        config.aggregation = dict(name="majority_vote", quorum=0.5)
    sparsify(config, "client")
    return in_form(config, mode)

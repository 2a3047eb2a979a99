"""FedSparsify-Local: the paper's network and schedule, to 95 % sparsity in 40 rounds (arXiv 2208.11669).

python scripts/train.py --config=configs/methods/fedsparsify_local.py --workdir=runs/fedsparsify_local \
    --config.data.source=bids --config.data.root=FOLDER

Each client prunes its own model after local training, and the server keeps what a majority of the clients kept. The
density that results is measured: it lies beside the one asked for where the clients disagree. Forms of the merge:
``keepers``, the mean over keepers on what the vote elects (Vote-NNZ); ``nnz``, the mean over keepers without a vote;
``mean``, FedAvg over the union. ``--config.aggregation.quorum=`` reads "majority": ``at_least_half`` (the default),
``strict_majority``, or ``as_coded``, the floor(n/2) of the published code.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``keepers``; ``nnz``; ``mean``; ``smoke``, the smallest run.
What to expect on the digits: docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config, sparsify


def get_config(forms=""):
    config, chosen = base_config(forms, "keepers", "nnz", "mean")
    config.method = "fedsparsify_local"
    sparsify(config, "client")
    merges = {"keepers": "vote_keepers", "nnz": "keepers_mean", "mean": "mean"}
    name = next((merges[form] for form in chosen), "majority_vote")
    config.method += "".join(f"_{form}" for form in chosen)
    with config.unlocked():
        config.aggregation = dict(name=name)
        if not chosen & {"nnz", "mean"}:
            config.aggregation.quorum = "at_least_half"
    return config

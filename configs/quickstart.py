"""The main job in minutes: FedSparsify-Global to 95 % sparsity, eight simulated hospitals, on the phantom.

python scripts/train.py --config=configs/quickstart.py --workdir=runs/quickstart

Behind the file name, ``:dense`` is FedAvg of the same budget, ``:local`` FedSparsify-Local, ``:centralized``
one client that holds everything, ``:smoke`` a run of seconds.

A smaller network with a flattened head on a coarse grid, so that two CPU cores suffice; the paper's network is
the default of all other configs. Dense until round 8, because magnitude pruning from round 1 takes the head,
which starts at zero, as a whole; rounds at the final sparsity at the end, because they bring the accuracy back.
What to expect stands in docs/results.md.
"""

from fedsparse_jax.config.defaults import defaults, in_form, sparsify


def get_config(mode=""):
    config = defaults()
    config.rounds = 26
    with config.unlocked():
        config.data.options = dict(people=812, shape=(24, 28, 24), spread=0.6)
        config.model = dict(name="flat_cnn")
        config.client.optimizer = dict(name="adam", learning_rate=1.5e-3)
    config.data.shape, config.data.test_share = (24, 28, 24), 300 / 812
    config.client.batch_size, config.client.epochs = 4, 2
    config.execution.eval_batch = 50
    config.method = "fedsparsify_global"
    sparsify(config, "server", begin=8, end=18)
    variant(config, mode)
    return in_form(config, mode, "dense", "local", "centralized")


def variant(config, mode):
    """The same budget, another method."""
    with config.unlocked():
        if mode == "dense":
            config.method = "fedavg"
            config.pruning.placement = "none"
        if mode == "local":
            config.method = "fedsparsify_local"
            config.pruning.placement = "client"
            config.aggregation = dict(name="majority_vote")
        if mode == "centralized":
            config.method = "centralized_pruning"
            config.partition.num_clients = 1

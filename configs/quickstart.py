"""The main job in minutes: FedSparsify-Global to 95 % sparsity, eight simulated hospitals, on the phantom.

python scripts/train.py --config=configs/quickstart.py --workdir=runs/quickstart

Behind the file name, ``:dense`` is FedAvg of the same budget, ``:local`` FedSparsify-Local, ``:centralized``
one client that holds everything, ``:smoke`` a run of seconds.

A smaller network with a flattened head on a coarse grid, so that two CPU cores suffice; the paper's network is
the default of all other configs. Dense until round 8, because magnitude pruning from round 1 takes the head,
which starts at zero, as a whole; rounds at the final sparsity at the end, because they bring the accuracy back.
What to expect stands in docs/results/quickstart.md.
"""

from fedsparse_jax.config.presets import coarse_defaults, parse_forms, shrink_for_smoke_test, sparsify


def get_config(forms=""):
    chosen, _ = parse_forms(forms, "smoke", "dense", "local", "centralized")
    config = coarse_defaults()
    config.rounds, config.execution.eval_batch = 26, 50
    config.method = "fedsparsify_global"
    sparsify(config, "server", begin=8, end=18)
    with config.unlocked():
        if "dense" in chosen:
            config.method, config.pruning.placement = "fedavg", "none"
        if "local" in chosen:
            config.method, config.pruning.placement = "fedsparsify_local", "client"
            config.aggregation = dict(name="majority_vote")
        if "centralized" in chosen:
            config.method, config.partition.num_clients = "centralized_pruning", 1
    return shrink_for_smoke_test(config) if "smoke" in chosen else config

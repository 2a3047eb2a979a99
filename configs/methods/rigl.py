"""RigL on the server: sparse from the start, weights grow by the gradient (Evci et al., ICML 2020, arXiv 1911.11134).

python scripts/train.py --config=configs/methods/rigl.py --workdir=runs/rigl \
    --config.data.source=bids --config.data.root=FOLDER

One random mask of Erdos-Renyi-Kernel densities for all. Every few rounds, up to three quarters of the run, the server
drops the smallest weights of each layer and lets those grow that the clients' mean gradient pulls at most. The clients
send that gradient, of all weights, in such rounds. Expect about what FedDST brings. The form ``fedtiny`` begins with
the largest weights and drops a fifth, as a published port of FedTiny does (Huang et al., ICDCS 2023, arXiv 2212.01977).

Behind the file name forms may stand, joined by +: ``fedtiny``; ``digits``, the second task, in seconds; ``coarse``, the
phantom on a coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on
the digits: docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, chosen = base_config(forms, "fedtiny")
    tiny = "fedtiny" in chosen
    config.method = "fedtiny" if tiny else "rigl"
    every, end = max(1, config.rounds // 20), config.rounds * 3 // 4
    criterion, fraction = ("magnitude", 0.2) if tiny else ("random", 0.3)
    with config.unlocked():
        config.pruning.update(placement="init", criterion=criterion, scope="erk", prunable="kernels")
        config.regrowth.update(placement="server", criterion="signed_gradient", every=every, end=end)
        config.regrowth.rule = dict(name="swap", fraction=fraction, end=end, dropped_may_return=True)
    return config

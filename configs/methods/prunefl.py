"""PruneFL: one client prunes first, then the server readjusts the mask of all (Jiang et al., arXiv 1909.12326).

python scripts/train.py --config=configs/methods/prunefl.py --workdir=runs/prunefl \
    --config.data.source=bids --config.data.root=FOLDER

Every few rounds each layer frees its smallest weights, and those come (back) whose squared gradient, averaged over
clients, pays for their time; see `regrowth.greedy`. Density is an outcome in the paper; here ``pruning.sparsity``
bounds it from above, the paper's optional limit (0 for none). Begins dense: at most 30 % of the weights go each time.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "prunefl"
    config.pruning.prunable = "kernels"
    config.solo_rounds = config.rounds // 10
    with config.unlocked():
        config.regrowth.update(placement="server", criterion="squared_gradient", every=max(1, config.rounds // 20))
        config.regrowth.rule = dict(name="greedy", fraction=0.3)
    return config

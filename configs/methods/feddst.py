"""FedDST: dynamic sparse training; clients move the mask, the server merges (Bibikar et al., arXiv 2112.09824).

python scripts/train.py --config=configs/methods/feddst.py --workdir=runs/feddst \
    --config.data.source=bids --config.data.root=FOLDER

Sparse from the start, by Erdos-Renyi-Kernel densities; every few rounds, up to half of the run, clients drop their
smallest weights after local training and grow as many by gradient; the server takes the mean over keepers and prunes
back to the sparsity. Expect more than from pruning before training, and less than from progressive
pruning, for a fraction of the bytes. For the share as coded see `regrowth.swap`.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "feddst"
    with config.unlocked():
        config.pruning.update(placement="init+server", scope="erk", prunable="kernels")
        config.regrowth.update(placement="client", every=max(1, config.rounds // 12), end=config.rounds // 2)
        config.regrowth.rule = dict(name="swap", fraction=0.5, end=config.rounds // 2)
        config.aggregation = dict(name="keepers_mean")
    return config

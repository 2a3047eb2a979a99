"""SparsyFed: weights that are powers, so that large ones move and small ones stay (Guastella et al., ICLR 2025, arXiv
2504.05153).

python scripts/train.py --config=configs/methods/sparsyfed.py --workdir=runs/sparsyfed \
    --config.data.source=bids --config.data.root=FOLDER

A kernel's weight is sign(v) |v|^1.25, and SGD moves v. From round 1 on each client prunes to the final sparsity after
its training; the server takes the mean, which is denser where clients differ. The pruning of activations in the paper's
backward pass is left out. Expect masks that settle in few rounds, and the losses of a mask that is chosen early.

Behind the file name forms may stand, joined by +: ``digits``, the second task, in seconds; ``coarse``, the phantom on a
coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on the digits:
docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, _ = base_config(forms)
    config.method = "sparsyfed"
    config.pruning.update(placement="client", prunable="kernels")
    with config.unlocked():
        config.hooks = dict(name="powerpropagation", exponent=1.25)
    return config

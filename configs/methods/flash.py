"""FLASH: the clients' warm-up says how dense each layer is, and the mask stays (Babakniya et al., TMLR 2023, arXiv
2208.13092).

python scripts/train.py --config=configs/methods/flash.py --workdir=runs/flash \
    --config.data.source=bids --config.data.root=FOLDER

Before round 1 every client trains a few batches and prunes by magnitude; the mean densities of the layers are kept, and
a random mask with them is trained by all. With the form ``budgets`` clients have half, three quarters or all of its
weights in turn, the largest of each layer, and the server takes the mean over keepers. Expect more than from random
pruning, and less than from masks that move.

Behind the file name forms may stand, joined by +: ``budgets``; ``digits``, the second task, in seconds; ``coarse``, the
phantom on a coarse grid, in minutes; a number, the sparsity in percent; ``smoke``, the smallest run. What to expect on
the digits: docs/results/methods.md.
"""

from fedsparse_jax.config.presets import base_config


def get_config(forms=""):
    config, chosen = base_config(forms, "budgets")
    config.method = "flash"
    config.pruning.update(prunable="kernels", batches=8)
    with config.unlocked():
        config.hooks = dict(name="flash", passes=5, budgets=(0.5, 0.75, 1.0) if "budgets" in chosen else ())
        config.aggregation = dict(name="keepers_mean")
    return config

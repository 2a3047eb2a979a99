"""A few real, unregistered, skull-stripped scans: the whole path on a coarse grid, over four clients.

python scripts/train.py --config=configs/real_scans.py --workdir=runs/real --config.data.root=FOLDER

For a look at the path, not for a result: a handful of people is too few to learn age from. ``rough`` alignment
matches centre and spread of each brain to the template's; with registered scans use ``affine``, with raw ones
``register``. Pruned to 80 %
only: so few steps do not bring a sparser model back.
"""

from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.presets import parse_forms, shrink_for_smoke_test, sparsify


def get_config(forms=""):
    chosen, _ = parse_forms(forms, "smoke")
    config = defaults()
    config.rounds = 10
    with config.unlocked():
        config.data.options = dict()
        config.model = dict(name="flat_cnn")
        config.client.optimizer = dict(name="adam", learning_rate=1.5e-3)
    config.data.source, config.data.shape, config.data.align = "bids", (46, 55, 46), "rough"
    config.data.test_share = 0.25
    config.partition.num_clients = 4
    config.client.batch_size, config.client.epochs = 2, 4
    config.method = "fedsparsify_global"
    config.pruning.sparsity = 0.8
    sparsify(config, "server", begin=5, end=8)
    return shrink_for_smoke_test(config) if "smoke" in chosen else config

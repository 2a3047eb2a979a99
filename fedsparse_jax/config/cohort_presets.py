"""Where the files in ``configs/cohorts/`` begin: a network and a budget for two cores, whatever the scans are."""

from ml_collections import ConfigDict

from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.presets import parse_forms, sparsify


def cohort_config(source: str, forms: str, *, sites: int = 0, clients: int = 4, **options) -> ConfigDict:
    """FedSparsify-Global on the scans of a cohort, on a grid of 4 mm, for a first look.

    Args:
        source: a member of ``SCAN_SOURCES``.
        forms: ``smoke`` for a run of seconds on the same scans, or empty.
        sites: how many sites the cohort has, each then a client; 0 for clients of equal size, people at random.
        clients: how many those are.
        options: of the source.

    Raises:
        UsageError: another form.
    """
    chosen, _ = parse_forms(forms, "smoke")
    config = defaults()
    config.rounds, config.method = 20, "fedsparsify_global"
    config.data.source, config.data.shape = source, (46, 55, 46)
    config.client.batch_size, config.client.epochs = 4, 2
    config.pruning.sparsity = 0.8
    with config.unlocked():
        config.data.options = ConfigDict(options)
        config.model = dict(name="flat_cnn")
        config.client.optimizer = dict(name="adam", learning_rate=1.5e-3)
        config.partition = dict(name="site", num_clients=sites) if sites else dict(name="uniform_iid")
        config.partition.num_clients = sites or clients
    sparsify(config, "server", begin=8, end=16)
    if "smoke" in chosen:
        config.rounds, config.data.shape, config.client.epochs = 3, (16, 18, 16), 1
        config.data.test_share = 0.4  # a handful of scans has somebody to test, too
        config.pruning.schedule.begin, config.pruning.schedule.end = 1, 3
        with config.unlocked():
            config.model = dict(name="flat_cnn", widths=(4, 8), poolings=2, zero_head=False)
            config.partition = dict(name="uniform_iid", num_clients=2)
    return config


def images_config(shape: tuple[int, ...], forms: str, *, classes: int, channels: int = 1) -> ConfigDict:
    """FedSparsify-Global with a small CNN on the images or volumes of an ``.npz`` file, over ten clients.

    Args:
        shape: sides of the images.
        forms: ``smoke`` for a run of seconds on the same images, or empty.
        classes: how many the set has.
        channels: 3 of colour images.

    Raises:
        UsageError: another form.
    """
    chosen, _ = parse_forms(forms, "smoke")
    config = defaults()
    config.task, config.rounds, config.method = "classification", 30, "fedsparsify_global"
    config.data.source, config.data.shape, config.data.channels = "npz", shape, channels
    config.client.loss, config.client.batch_size, config.client.epochs = "cross_entropy", 16, 1
    config.execution.eval_batch, config.checkpoint.every = 50, 10
    config.pruning.sparsity = 0.9
    with config.unlocked():
        config.data.options = dict()
        config.partition = dict(name="dirichlet_by_class", num_clients=10, alpha=1.0)
        config.model = dict(name="image_cnn", widths=(8, 16), classes=classes)
        config.client.optimizer = dict(name="adam", learning_rate=1e-3)
    sparsify(config, "server", begin=10, end=25)
    if "smoke" in chosen:
        config.rounds, config.partition.num_clients, config.checkpoint.every = 1, 2, 1
        config.pruning.schedule.begin, config.pruning.schedule.end = 0, 1
    return config

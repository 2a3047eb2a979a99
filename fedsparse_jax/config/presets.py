"""Where the files in ``configs/`` begin: the tasks, the forms behind a file's name, the smallest run."""

from ml_collections import ConfigDict

from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.core.errors import UsageError


def digits_defaults() -> ConfigDict:
    """FedAvg of a two-layer MLP over ten clients with three classes each, on scikit-learn's handwritten digits."""
    config = defaults()
    config.task, config.rounds = "classification", 100
    with config.unlocked():
        config.data.options = dict()
        config.partition = dict(name="classes_per_client", num_clients=10, classes=3)
        config.model = dict(name="mlp", hidden=(128,))
        config.client.optimizer = dict(name="sgd", learning_rate=0.1)
    config.data.source, config.data.shape = "digits", (8, 8)
    config.client.loss, config.client.batch_size, config.client.epochs = "cross_entropy", 16, 2
    config.execution.eval_batch, config.execution.steps_per_chunk = 360, 32
    config.checkpoint.every, config.log.tensorboard = 50, False
    return config


def coarse_defaults() -> ConfigDict:
    """FedAvg of the quickstart's small network over eight clients, on the phantom at 8 mm: minutes on two CPU cores."""
    config = defaults()
    config.rounds = 40
    with config.unlocked():
        config.data.options = dict(people=812, shape=(24, 28, 24), spread=0.6)
        config.model = dict(name="flat_cnn")
        config.client.optimizer = dict(name="adam", learning_rate=1.5e-3)
    config.data.shape, config.data.test_share = (24, 28, 24), 300 / 812
    config.client.batch_size, config.client.epochs = 4, 2
    return config


def base_config(forms: str, *others: str) -> tuple[ConfigDict, set[str]]:
    """Where a method's config begins: the task that the forms behind the file name ask for.

    Args:
        forms: joined by ``+``, such as ``digits+90``. ``digits``: the second task instead of the phantom, with ``cnn``
            by a CNN instead of an MLP, with ``iid`` over clients that are alike; ``coarse``: the phantom on a coarse
            grid, in minutes; ``smoke``: a run of seconds; a number: the sparsity in percent; and ``others``.
        others: forms of this config.

    Returns:
        ``(config, those of others that were asked for)``

    Raises:
        UsageError: another form.
    """
    tasks = ("digits", "cnn", "iid") if "digits" in forms.split("+") else ("digits", "coarse")
    asked, percent = parse_forms(forms, "smoke", *tasks, *others, percent=True)
    config = digits_defaults() if "digits" in asked else coarse_defaults() if "coarse" in asked else defaults()
    with config.unlocked():
        if "cnn" in asked:
            config.model = dict(name="image_cnn")
        if "iid" in asked:
            config.partition = dict(name="uniform_iid", num_clients=10)
    if "smoke" in asked:
        shrink_for_smoke_test(config)
    if percent is not None:
        config.pruning.sparsity = percent / 100
    return config, asked & set(others)


def parse_forms(text: str, *known: str, percent: bool = False) -> tuple[set[str], float | None]:
    """The forms in ``text``, joined by ``+``, and the number among them.

    Args:
        text: as it stands behind the file name.
        known: forms that there are.
        percent: whether a number, a sparsity in percent, may stand among them.

    Raises:
        UsageError: another form.

    >>> forms, number = parse_forms("smoke+90", "smoke", "tuned", percent=True)
    >>> sorted(forms), number
    (['smoke'], 90.0)
    """
    forms = set(filter(None, text.split("+")))
    numbers = {form for form in forms if percent and form.replace(".", "", 1).isdigit()}
    may_stand = ", ".join([*known, *(["a sparsity in percent"] if percent else [])])
    for form in sorted(forms - numbers - set(known)):
        raise UsageError(f"the config has no form {form!r}; behind the file name may stand: {may_stand}")
    if len(numbers) > 1:
        raise UsageError(f"the config is asked for {' and '.join(sorted(numbers))} % at once; give one sparsity")
    return forms - numbers, float(numbers.pop()) if numbers else None


def sparsify(config: ConfigDict, placement: str, *, begin=1, end=0, every=1) -> ConfigDict:
    """Adds the paper's gradual magnitude pruning, at the ``server`` or at each ``client``."""
    with config.unlocked():
        config.pruning.placement = placement
        config.pruning.schedule = dict(name="gradual", initial=0.0, begin=begin, end=end, every=every)
    return config


def shrink_for_smoke_test(config: ConfigDict) -> ConfigDict:
    """The same experiment in seconds: the ``:smoke`` form of every config."""
    config.rounds = 3
    config.client.epochs = 1
    config.checkpoint.every = 1
    if config.task == "classification":
        return config
    with config.unlocked():
        config.data.shape = (16, 18, 16)
        config.data.options = dict(people=40, shape=(16, 18, 16), spread=0.6)
        config.data.source = "phantom"
        config.data.align = "affine"
        config.model = dict(name="flat_cnn", widths=(4, 8), poolings=2, zero_head=False)
        if config.pruning.schedule.name == "gradual":
            config.pruning.schedule.begin, config.pruning.schedule.end = 1, 3
    return config

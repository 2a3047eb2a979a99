"""From a config to functions: the only reader of ConfigDicts.

A section of the config names a member of a registry, and its other keys are that member's arguments; `choose`
checks both, so that a misspelt name or key is one clear sentence and not a traceback.
"""

import collections
import functools
import inspect
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from fedsparse_jax import checkpoint, federated, log, metrics, pruning, schedules
from fedsparse_jax.aggregation import AGGREGATORS
from fedsparse_jax.criteria import CRITERIA
from fedsparse_jax.data import cohort, ingest, partition
from fedsparse_jax.data.sources import DATASETS
from fedsparse_jax.defaults import defaults
from fedsparse_jax.experiment import Experiment
from fedsparse_jax.losses import LOSSES
from fedsparse_jax.models import MODELS
from fedsparse_jax.types import FedAlgorithm, Model, ServerState, UsageError


def load(spec: str) -> ConfigDict:
    """The config of ``path.py`` or ``path.py:mode``."""
    path, _, mode = spec.partition(":")
    if not Path(path).is_file():
        raise UsageError(f"{path} is not a config file; give a path such as configs/quickstart.py.")
    return runpy.run_path(path)["get_config"](mode)


def choose(registry: Mapping[str, Callable[..., Any]], section: Mapping, path: str, *given: str) -> Callable:
    """The member that ``section`` names, with the section's other keys bound as arguments.

    Args:
        registry: name to function.
        section: ``name`` and keyword arguments.
        path: where the section stands in the config, for the error message.
        given: parameters that the caller supplies later; the config may not set them.

    Raises:
        UsageError: an unknown name, or a key that the function does not take.
    """
    options = {key: value for key, value in section.items() if key != "name"}
    function = member(registry, section["name"], f"{path}.name")
    parameters = inspect.signature(function).parameters
    takes = [name for name in parameters if name not in given]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key not in takes and not anything:
            raise UsageError(
                f"{path}.{key} is not an option of {section['name']!r}, which takes: {', '.join(takes) or 'none'}."
            )
    return functools.partial(function, **options)


def member(registry: Mapping[str, Any], name: str, path: str):
    """``registry[name]``, or a sentence that lists the names there are."""
    if name not in registry:
        raise UsageError(f"{path} is {name!r}: it must be one of {', '.join(registry)}.")
    return registry[name]


def optimizer(section: Mapping, path: str) -> optax.GradientTransformation:
    """Any optimizer of optax by name, such as ``sgd``, ``adam`` or ``adamw``, with its arguments."""
    functions = {name: getattr(optax, name) for name in dir(optax)}
    known: dict[str, Callable[..., Any]] = {n: f for n, f in functions.items() if _makes_optimizer(f)}
    return choose(known, section, path)()


def _makes_optimizer(thing) -> bool:
    return inspect.isfunction(thing) and "learning_rate" in inspect.signature(thing).parameters


def plain(items, description: str, total: int):
    """Progress for nobody: the items as they are."""
    return items


def scans(config: ConfigDict, track=plain) -> ingest.ScanSet:
    """Lists the scans of ``config.data`` and brings them into the cache that training reads."""
    data = config.data
    cache = Path(data.cache_dir).expanduser()
    member(DATASETS, data.source, "data.source")
    section = {"name": data.source, **data.options}
    source = choose(DATASETS, section, "data.options", "root", "cache", "track")
    listing = source(root=data.root, cache=cache, track=track)
    return ingest.ingest(
        listing,
        shape=tuple(data.shape),
        align=data.align,
        normalise=data.normalise,
        cache_dir=cache,
        track=track,
        workers=data.workers,
    )


def model(config: ConfigDict, train_ages=()) -> tuple[Model, dict]:
    """The network, and its section of the config with every number filled in.

    ``output_mean`` and ``output_scale`` default to mean and SD of the training ages. In a real federation these
    two numbers are the sites' size-weighted statistics, agreed on before round 1.
    """
    section = dict(config.model)
    takes = inspect.signature(member(MODELS, section["name"], "model.name")).parameters
    for key, statistic in (("output_mean", np.mean), ("output_scale", np.std)):
        if key in takes and section.get(key, takes[key].default) is None:
            section[key] = float(statistic(train_ages)) if len(train_ages) else 1.0
    return choose(MODELS, section, "model", "shape")(tuple(config.data.shape)), section


def algorithm(config: ConfigDict, network: Model) -> FedAlgorithm:
    """The four pure functions that the config describes."""
    rules, client = config.pruning, config.client
    schedule = choose(schedules.SCHEDULES, rules.schedule, "pruning.schedule")()
    template = jax.eval_shape(network.init, jax.random.key(0))
    prunable = member(pruning.PRUNABLE, rules.prunable, "pruning.prunable")(template)
    prune = pruning.pruner(
        member(CRITERIA, rules.criterion, "pruning.criterion"),
        member(pruning.SCOPES, rules.scope, "pruning.scope"),
        schedule,
        prunable,
    )
    return federated.build(
        network,
        loss=member(LOSSES, client.loss, "client.loss"),
        client_tx=optimizer(client.optimizer, "client.optimizer"),
        server_tx=optimizer(config.server.optimizer, "server.optimizer"),
        aggregate=choose(AGGREGATORS, config.aggregation, "aggregation", "params", "masks", "weights"),
        prune=prune,
        schedule=schedule,
        placement=rules.placement,
        client_map=client_map(config.execution.client_map),
        devices=config.execution.devices,
    )


def client_map(setting: str | int) -> str | int:
    """``auto`` resolved: one client after another on a CPU, all at once on an accelerator."""
    if setting == "auto":
        return "scan" if jax.default_backend() == "cpu" else "vmap"
    return int(setting) if str(setting).isdigit() else setting


def people(scan_set: ingest.ScanSet) -> list[dict]:
    """Who each scan is of, as a row of predictions.tsv."""
    return [
        {"participant_id": scan.participant, "session": scan.session, "site": scan.site}
        for scan in scan_set.scans
    ]


def federation(config: ConfigDict, scan_set: ingest.ScanSet) -> cohort.Federation:
    """Who holds which scan, and the central test set."""
    options = {key: value for key, value in config.partition.items() if key != "num_clients"}
    divide = functools.partial(
        partition.divide,
        partition=choose(partition.PARTITIONS, options, "partition", "ages", "sites", "num_clients", "seed"),
        num_clients=config.partition.num_clients,
    )
    return cohort.federate(
        scan_set.volumes[..., np.newaxis],
        np.array([scan.age for scan in scan_set.scans], np.float32),
        people(scan_set),
        divide=divide,
        test_share=config.data.test_share,
        seed=config.seed,
    )


def experiment(config: ConfigDict, track=plain) -> Experiment:
    """Everything that `experiment.run` folds.

    Raises:
        UsageError: the config or the data cannot give a federation; nothing has been written to a run folder.
    """
    settings = config.execution
    check_counts(config)
    check_devices(config)
    model(config)  # refuses an impossible shape before any scan is read
    scan_set = scans(config, track)
    data = federation(config, scan_set)
    network, resolved = model(config, data.train_targets)
    reasons = collections.Counter(drop.reason for drop in scan_set.dropped)
    fits = data.inputs.nbytes <= settings.resident_limit
    resident = member({"auto": fits, "yes": True, "no": False}, settings.resident, "execution.resident")
    return Experiment(
        config={**config.to_dict(), "model": resolved},
        seed=config.seed,
        rounds=config.rounds,
        model=network,
        algorithm=algorithm(config, network),
        data=data,
        cohort_size=cohort.cohort_size(config.partition.num_clients, config.participation),
        batch_size=config.client.batch_size,
        epochs=config.client.epochs,
        steps_per_chunk=settings.steps_per_chunk,
        resident=resident,
        eval_batch=settings.eval_batch,
        keep=config.checkpoint.keep,
        tensorboard=config.log.tensorboard,
        dropped=dict(reasons),
    )


def check_counts(config: ConfigDict) -> None:
    """Refuses what must be at least 1 and is not."""
    counts = {
        "rounds": config.rounds,
        "client.batch_size": config.client.batch_size,
        "client.epochs": config.client.epochs,
        "execution.steps_per_chunk": config.execution.steps_per_chunk,
        "execution.devices": config.execution.devices,
        "execution.eval_batch": config.execution.eval_batch,
        "checkpoint.keep": config.checkpoint.keep,
    }
    for key, value in counts.items():
        if value < 1:
            raise UsageError(f"{key} is {value}: it must be at least 1.")


def check_devices(config: ConfigDict) -> None:
    """Refuses more devices than there are, and a cohort that cannot be shared out evenly among them."""
    devices, there = config.execution.devices, len(jax.devices())
    cohort_size = cohort.cohort_size(config.partition.num_clients, config.participation)
    if devices > there:
        raise UsageError(f"execution.devices is {devices}, but there are {there}; lower it.")
    if cohort_size % devices:
        raise UsageError(
            f"execution.devices is {devices}, but {cohort_size} clients take part in a round: their number must be "
            "a multiple of it."
        )


def trained(workdir: Path, round_: int | None = None) -> tuple[ConfigDict, Model, ServerState]:
    """What a run learned: its config, its network and the state after ``round_`` (None: the newest).

    Raises:
        UsageError: the folder holds no run or no sound checkpoint.
    """
    file = workdir / "config.json"
    if not file.exists():
        raise UsageError(f"{workdir} holds no run (no config.json); give the --workdir of scripts/train.py.")
    stored = log.read_json(file)["config"]
    execution = {**defaults().execution.to_dict(), **stored.get("execution", {}), "devices": 1}
    config = ConfigDict({**stored, "execution": execution})
    network, _ = model(config)
    like = jax.eval_shape(algorithm(config, network).init, jax.random.key(config.seed))
    with checkpoint.open_manager(workdir) as manager:
        server = checkpoint.restore(manager, like, round_)
    if server is None:
        raise UsageError(f"{workdir} holds no checkpoint yet; train at least one round.")
    return config, network, server


def evaluate(workdir: Path, source: str, root: str, round_: int | None = None, align: str = "", track=plain):
    """Predicts every scan of a folder or table with a trained model.

    Args:
        workdir: the run.
        source: a member of ``DATASETS``: ``bids`` or ``table``.
        root: the folder or the file.
        round_: which checkpoint; None for the newest.
        align: how to bring the scans onto the grid; empty for what the run was trained with.

    Returns:
        ``(predictions.tsv as text, metrics, the run's data source)``
    """
    config, network, server = trained(workdir, round_)
    trained_on = config.data.source
    with config.unlocked():
        config.data.update(source=source, root=root, align=align or config.data.align)
        config.data.options = ConfigDict()
    scan_set = scans(config, track)
    ages = np.array([scan.age for scan in scan_set.scans], np.float32)
    read = cohort.streamed(scan_set.volumes[..., np.newaxis])
    index = np.arange(len(ages))
    predictions = cohort.predict(
        jax.jit(network.apply), server.params, read, index, config.execution.eval_batch
    )
    table = log.predictions_table(people(scan_set), ages, predictions)
    own_mean = metrics.predict_mean_mae(ages, ages)
    quality = {**metrics.regression(predictions, ages), "n": len(ages), "predict_mean_mae": own_mean}
    return table, quality, trained_on

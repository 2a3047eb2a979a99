"""From a config to an `Experiment`: data, network and task, around the method that `method` reads."""

import collections
import functools
import inspect
import runpy
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from fedsparse_jax.attacks import evaluate as leakage
from fedsparse_jax.communication import transport
from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.method import choose, client_map, member, recipe, remarks
from fedsparse_jax.core import masks, tasks
from fedsparse_jax.core.losses import LOSSES
from fedsparse_jax.core.types import FedAlgorithm, Model, ServerState, UsageError
from fedsparse_jax.data import batching, partitions, scan_cache
from fedsparse_jax.data.image_sources import IMAGES
from fedsparse_jax.data.scan_sources import DATASETS
from fedsparse_jax.federated import algorithm as federated
from fedsparse_jax.federated import client_step, privacy_accounting
from fedsparse_jax.models import MODELS, flops
from fedsparse_jax.models.from_nnx import in_precision
from fedsparse_jax.runs import checkpoint, metrics_log
from fedsparse_jax.runs.loop import Experiment


def load(spec: str) -> ConfigDict:
    """The config of ``path.py`` or ``path.py:mode``."""
    path, _, mode = spec.partition(":")
    if not Path(path).is_file():
        raise UsageError(f"{path} is not a config file; give a path such as configs/quickstart.py.")
    return runpy.run_path(path)["get_config"](mode)


def plain(items, description: str, total: int):
    """Progress for nobody: the items as they are."""
    return items


def scans(config: ConfigDict, track=plain) -> scan_cache.ScanSet:
    """Lists the scans of ``config.data`` and brings them into the cache that training reads."""
    data = config.data
    cache = Path(data.cache_dir).expanduser()
    member(DATASETS, data.source, "data.source")
    section = {"name": data.source, **data.options}
    source = choose(DATASETS, section, "data.options", "root", "cache", "track")
    listing = source(root=data.root, cache=cache, track=track)
    return scan_cache.ingest(
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
    network = choose(MODELS, section, "model", "shape")(tuple(config.data.shape))
    return in_precision(network, config.precision), section


def algorithm(config: ConfigDict, network: Model) -> FedAlgorithm:
    """The pure functions that the config describes."""
    return federated.build(recipe(config, network))


def people(scan_set: scan_cache.ScanSet) -> list[dict]:
    """Who each scan is of, as a row of predictions.tsv."""
    return [
        {"participant_id": scan.participant, "session": scan.session, "site": scan.site}
        for scan in scan_set.scans
    ]


def federation(config: ConfigDict, track=plain, test=None) -> tuple[batching.Federation, dict[str, int]]:
    """Who holds which example, and the central test set; and why scans were left out, with counts.

    Args:
        config: of the run.
        track: progress.
        test: people of the central test set instead of a random share; all others are divided among the clients.
    """
    options = {key: value for key, value in config.partition.items() if key != "num_clients"}
    divide = functools.partial(
        partitions.divide,
        partition=choose(partitions.PARTITIONS, options, "partition", "ages", "sites", "num_clients", "seed"),
        num_clients=config.partition.num_clients,
    )
    federate = functools.partial(
        batching.federate, divide=divide, test_share=config.data.test_share, seed=config.seed
    )
    if config.data.source in IMAGES:
        return image_federation(config, federate), {}
    scan_set = scans(config, track)
    ages = np.array([scan.age for scan in scan_set.scans], np.float32)
    reasons = collections.Counter(drop.reason for drop in scan_set.dropped)
    return federate(scan_set.volumes[..., np.newaxis], ages, people(scan_set), test=test), dict(reasons)


def image_federation(config: ConfigDict, federate: Callable) -> batching.Federation:
    """The second task; every image counts as a person of its own."""
    images = IMAGES[config.data.source](config.data.root)
    shape, wanted = images.inputs.shape[1:-1], tuple(config.data.shape)
    if shape != wanted:
        raise UsageError(
            f"data.shape is {wanted}, but the images have {shape} pixels; set data.shape to that."
        )
    rows = [
        {"participant_id": f"image-{i:06d}", "session": "", "site": "n/a"} for i in range(len(images.labels))
    ]
    classes = int(images.labels.max()) + 1
    return federate(images.inputs, images.labels, rows, test=images.test, classes=classes)


def check_task(config: ConfigDict) -> tasks.Task:
    """The task, where data and loss fit it."""
    task = member(tasks.TASKS, config.task, "task")
    member({**DATASETS, **IMAGES}, config.data.source, "data.source")
    member(LOSSES, config.client.loss, "client.loss")
    classes = config.task == "classification"
    if classes and config.log.audit_every:
        raise UsageError("log.audit_every asks for a privacy audit, which is for regressions; set it to 0.")
    if classes != (config.data.source in IMAGES):
        raise UsageError(
            f"task is {config.task!r}, which does not fit data.source {config.data.source!r}: images "
            f"({', '.join(IMAGES)}) have classes, scans have ages; change one of the two."
        )
    if classes != (config.client.loss == "cross_entropy"):
        raise UsageError(
            f"client.loss is {config.client.loss!r}, which does not fit task {config.task!r}; for classification it "
            "is 'cross_entropy', for regression any other."
        )
    return task


def experiment(config: ConfigDict, track=plain, test=None) -> Experiment:
    """Everything that `experiment.run` folds.

    Args:
        config: complete.
        track: progress of reading scans.
        test: see `federation`.

    Raises:
        UsageError: the config or the data cannot give a federation; nothing has been written to a run folder.
    """
    settings = config.execution
    check_counts(config)
    sending = transport.Wire(**config.wire, seed=config.seed)
    transport.check(sending)
    check_devices(config)
    task = check_task(config)
    rules = recipe(config, model(config)[0])
    if rules.privacy:
        privacy_accounting.need()
    federated.build(rules)  # refuses an impossible method or shape before any data are read
    data, dropped = federation(config, track, test)
    network, resolved = model(config, data.train_targets)
    check_outputs(network, data)
    fits = data.inputs.nbytes <= settings.resident_limit
    resident = member({"auto": fits, "yes": True, "no": False}, settings.resident, "execution.resident")
    params = jax.eval_shape(network.init, jax.random.key(0))
    size = batching.cohort_size(config.partition.num_clients, config.participation)
    return Experiment(
        config={**config.to_dict(), "model": resolved},
        task=task,
        seed=config.seed,
        rounds=config.rounds,
        model=network,
        algorithm=federated.build(rules._replace(model=network)),
        data=data,
        cohort_size=size,
        solo_rounds=config.solo_rounds,
        batch_size=config.client.batch_size,
        epochs=config.client.epochs,
        probe_batches=config.pruning.batches,
        steps_per_chunk=settings.steps_per_chunk,
        together=client_step.together(client_map(settings.client_map), size),
        devices=settings.devices,
        resident=resident,
        eval_batch=settings.eval_batch,
        every=config.checkpoint.every,
        keep=config.checkpoint.keep,
        wire=sending,
        tensorboard=config.log.tensorboard,
        dropped=dropped,
        uses=flops.uses(network.apply, params, data.inputs.shape[1:]),
        remarks=remarks(config, rules.pruning),
        audit=watcher(config, network, data) if config.log.audit_every else None,
        audit_every=config.log.audit_every,
        epsilon=spent(config, rules.privacy) if rules.privacy else None,
    )


def spent(config: ConfigDict, privacy: client_step.Privacy) -> Callable[[int], float]:
    """Rounds that a client took part in, to the epsilon of its data."""
    return lambda rounds: privacy_accounting.epsilon(
        privacy.noise, rounds * config.client.epochs, config.privacy.delta
    )


def watcher(config: ConfigDict, network: Model, data: batching.Federation) -> Callable[[ServerState], dict]:
    """What a run logs of its own leaks."""
    names = tuple(config.log.audit_attacks)
    look = leakage.watch(network.apply, data.inputs, data.targets, data.members, data.test, names)
    return lambda server: look(masks.apply(server.masks, server.params), server.masks)


def check_outputs(network: Model, data: batching.Federation) -> None:
    """Refuses a network whose outputs do not fit the targets: ``[B]`` numbers, or ``[B, K]`` logits."""
    params = jax.eval_shape(network.init, jax.random.key(0))
    example = jax.ShapeDtypeStruct((1, *data.inputs.shape[1:]), np.float32)
    outputs = jax.eval_shape(network.apply, params, example).shape[1:]
    if data.classes and (len(outputs) != 1 or outputs[0] < data.classes):
        raise UsageError(
            f"model gives outputs of shape {outputs}, but the data have {data.classes} classes; choose a classifier "
            "(mlp, image_cnn) with model.classes set to that."
        )
    if not data.classes and outputs:
        raise UsageError("model is a classifier, but the targets are ages; choose a model of one number.")


def check_counts(config: ConfigDict) -> None:
    """Refuses what must be at least 1 and is not."""
    counts = {
        "rounds": config.rounds,
        "client.batch_size": config.client.batch_size,
        "client.epochs": config.client.epochs,
        "execution.steps_per_chunk": config.execution.steps_per_chunk,
        "execution.devices": config.execution.devices,
        "execution.eval_batch": config.execution.eval_batch,
        "checkpoint.every": config.checkpoint.every,
        "checkpoint.keep": config.checkpoint.keep,
        "pruning.iterations": config.pruning.iterations,
        "pruning.batches": config.pruning.batches,
        "regrowth.every": config.regrowth.every,
    }
    for key, value in counts.items():
        if value < 1:
            raise UsageError(f"{key} is {value}: it must be at least 1.")
    for key, value in (
        ("solo_rounds", config.solo_rounds),
        ("log.audit_every", config.log.audit_every),
        ("client.clip", config.client.clip),
        ("client.proximal", config.client.proximal),
        ("pruning.gate", config.pruning.gate),
    ):
        if not value >= 0:
            raise UsageError(f"{key} is {value}: it must not be negative.")


def check_devices(config: ConfigDict) -> None:
    """Refuses more devices than there are, and a cohort that cannot be shared out evenly among them."""
    devices, there = config.execution.devices, len(jax.devices())
    cohort_size = batching.cohort_size(config.partition.num_clients, config.participation)
    if devices > there:
        raise UsageError(f"execution.devices is {devices}, but there are {there}; lower it.")
    if devices > 1 and config.solo_rounds:
        raise UsageError(
            f"solo_rounds has one client alone, but execution.devices is {devices}; set it to 1."
        )
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
    stored = metrics_log.read_json(file)["config"]
    config = completed(stored)
    network, _ = model(config)
    like = jax.eval_shape(algorithm(config, network).init, jax.random.key(config.seed))
    with checkpoint.open_manager(workdir) as manager:
        server = checkpoint.restore(manager, like, round_)
    if server is None:
        raise UsageError(f"{workdir} holds no checkpoint yet; train at least one round.")
    return config, network, server


def completed(stored: dict) -> ConfigDict:
    """The config of a run folder, with today's defaults for keys that it did not have yet; one device."""
    config = defaults()
    with config.unlocked():
        for key, value in stored.items():
            section = config.get(key)
            plain_keys = isinstance(section, ConfigDict) and "name" not in section
            config[key] = {**section.to_dict(), **value} if plain_keys else value
        config.execution.devices = 1
    return config


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
    if trained_on in IMAGES:
        raise UsageError(f"{workdir} was trained on images; only a run on scans can be given other scans.")
    with config.unlocked():
        config.data.update(source=source, root=root, align=align or config.data.align)
        config.data.options = ConfigDict()
    scan_set = scans(config, track)
    ages = np.array([scan.age for scan in scan_set.scans], np.float32)
    read = batching.streamed(scan_set.volumes[..., np.newaxis])
    index = np.arange(len(ages))
    predictions = batching.predict(
        jax.jit(network.apply), server.params, read, index, config.execution.eval_batch
    )
    table = metrics_log.predictions_table(people(scan_set), ages, predictions)
    own_mean = tasks.predict_mean_mae(ages, ages)
    quality = {**tasks.regression(predictions, ages), "n": len(ages), "predict_mean_mae": own_mean}
    return table, quality, trained_on

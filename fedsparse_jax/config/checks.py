"""Settings that cannot be, found before any data are read: each is one sentence that names the key."""

import jax
import numpy as np
from ml_collections import ConfigDict

from fedsparse_jax.communication import transport
from fedsparse_jax.config.registry import argument_path, lookup
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.losses import LOSSES
from fedsparse_jax.core.tasks import AGE, TASKS, Task, task_for
from fedsparse_jax.core.types import Model
from fedsparse_jax.data.federation import Federation, cohort_size
from fedsparse_jax.data.image_sources import IMAGE_SOURCES
from fedsparse_jax.data.scan_sources import SCAN_SOURCES
from fedsparse_jax.runs.experiment import TRAVELS
from fedsparse_jax.runs.faults import Faults, check_faults

ORDERS = ("together", *TRAVELS)
AUTO = "auto"  # for partition.num_clients: as many as there are sites
AT_LEAST_ONE = (
    *("rounds", "data.channels", "client.batch_size", "client.epochs", "checkpoint.every", "checkpoint.keep"),
    *("execution.steps_per_chunk", "execution.devices", "execution.eval_batch"),
    *("pruning.iterations", "pruning.batches", "regrowth.every", "faults.min_clients"),
)
NOT_NEGATIVE = (
    "solo_rounds",
    "log.audit_every",
    "client.clip",
    "client.proximal",
    "client.weight_decay",
    "faults.explosion",
    "server.norm_bound",
    "poison.clients",
    "early_stopping.patience",
)


def check_counts(config: ConfigDict) -> None:
    """Refuses what must be at least 1 and is not, and what is negative and must not be."""
    for key in AT_LEAST_ONE:
        if _value(config, key) < 1:
            raise UsageError(f"{key} is {_value(config, key)}: it must be at least 1.")
    for key in NOT_NEGATIVE:
        if not _value(config, key) >= 0:
            raise UsageError(f"{key} is {_value(config, key)}: it must not be negative.")


def _value(config: ConfigDict, key: str):
    for part in key.split("."):
        config = config[part]
    return config


def check_task(config: ConfigDict) -> Task:
    """The task, where data and loss fit it."""
    lookup(TASKS, config.task, "task")
    task = task_for(config.task, config.data.label, config.data.unit)
    lookup({**SCAN_SOURCES, **IMAGE_SOURCES}, config.data.source, "data.source")
    lookup(LOSSES, config.client.loss, "client.loss")
    classes = config.task == "classification"
    if config.data.source in IMAGE_SOURCES and not classes:
        raise UsageError(
            f"task is {config.task!r}, which does not fit data.source {config.data.source!r}: images "
            f"({', '.join(IMAGE_SOURCES)}) have classes; set task to classification."
        )
    if config.data.source in SCAN_SOURCES and classes and config.data.label == AGE:
        raise UsageError(
            f"task is {config.task!r}, but data.label is 'age', which is a number; name a column of classes, such as "
            "--config.data.label=sex, or set task to regression."
        )
    if classes != (config.client.loss == "cross_entropy"):
        raise UsageError(
            f"client.loss is {config.client.loss!r}, which does not fit task {config.task!r}; for classification it "
            "is 'cross_entropy', for regression any other."
        )
    if classes and config.partition.name == "dirichlet":
        raise UsageError(
            "partition.name is 'dirichlet', which shares out bins of ages; with classes it is 'dirichlet_by_class'."
        )
    return task


def check_channels(config: ConfigDict, count: int, what: str, *, trained: bool = False) -> None:
    """Refuses data of another number of channels than the network takes; a trained one takes no other."""
    takes = config.data.channels
    if count == takes:
        return
    told = f"each {what} has {count} {'channel' if count == 1 else 'channels'}"
    if trained:
        columns = ",".join(["t1w", "flair", *(f"image{i}" for i in range(3, takes + 1))][:takes])
        raise UsageError(
            f"The network takes data.channels={takes}, but here {told}; give a table with a column of paths for each "
            f"channel, and name them, such as --data.options.path_col={columns}."
        )
    others = ", or name its other images by the options of the source" if what == "head" and count == 1 else ""
    raise UsageError(f"data.channels is {takes}, but {told}; set it to {count}{others}.")


def check_messages(settings: transport.MessageSettings) -> None:
    """Refuses settings of messages that mean nothing."""
    with argument_path("communication"):
        transport.check_settings(settings)


def check_clients(config: ConfigDict) -> None:
    """Refuses chances that are none, rounds that can never have enough clients, and more liars than clients."""
    with argument_path("faults"):
        check_faults(Faults(**{key: config.faults[key] for key in Faults._fields}))
    with argument_path(""):
        size = cohort_size(config.partition.num_clients, config.participation)
    if config.faults.min_clients > size:
        raise UsageError(
            f"faults.min_clients is {config.faults.min_clients}, but {size} clients take part in a round, so that no "
            "round could change anything; lower it."
        )
    liars, clients = config.poison.clients, config.partition.num_clients
    if liars > clients:
        raise UsageError(f"poison.clients is {liars}, but there are {clients} clients; lower it.")


def check_auditable(config: ConfigDict) -> None:
    """Refuses to audit where no whole model is ever sent, or where clients do not begin from the same one."""
    if config.client.personal:
        raise UsageError(
            f"client.personal is {tuple(config.client.personal)}, so that no whole model is sent that could be "
            "audited; audit a run that sends all leaves."
        )
    if config.order != ORDERS[0]:
        raise UsageError(
            f"order is {config.order!r}, but an audit knows only clients that begin from the same model; audit a run "
            f"with order {ORDERS[0]!r}."
        )


def check_log_of_leaks(config: ConfigDict) -> None:
    """Refuses to log the leaks of a global model that there is not."""
    if config.client.personal and config.log.audit_every:
        raise UsageError(
            f"log.audit_every is {config.log.audit_every}, but with client.personal no whole model is sent that could "
            "be audited; set log.audit_every to 0."
        )


def check_order(config: ConfigDict) -> None:
    """Refuses an order of clients that there is not, and what needs clients side by side where one follows another."""
    lookup(dict.fromkeys(ORDERS), config.order, "order")
    for key, alone in (("aggregation.name", "mean"), ("faults.min_clients", 1), ("execution.devices", 1)):
        if config.order != ORDERS[0] and _value(config, key) != alone:
            raise UsageError(
                f"{key} is {_value(config, key)!r}, but with order {config.order!r} the model travels from client to "
                f"client, and nothing is merged; set {key} to {alone!r}."
            )


def check_held(config: ConfigDict) -> None:
    """Refuses to merge clients as they come where a round needs all of them at once."""
    held, devices = config.execution.clients_held, config.execution.devices
    if held < 0:
        raise UsageError(f"execution.clients_held is {held}: it must not be negative; 0 holds all clients of a round.")
    if not held:
        return
    for key, alone in (("order", ORDERS[0]), ("faults.deadline", 0.0)):
        if _value(config, key) != alone:
            raise UsageError(
                f"{key} is {_value(config, key)!r}, which looks at all clients of a round; set it to {alone!r}, or "
                "execution.clients_held to 0."
            )
    with argument_path(""):
        size = cohort_size(config.partition.num_clients, config.participation)
    if held % devices or size % held % devices:
        raise UsageError(
            f"execution.clients_held is {held}, of {size} clients in a round: both must be multiples of "
            f"execution.devices, {devices}."
        )


def check_early_stopping(config: ConfigDict) -> None:
    """Refuses to wait for a better model where nobody is there to tell."""
    patience, share = config.early_stopping.patience, config.data.validation_share
    if patience and not share:
        raise UsageError(
            f"early_stopping.patience is {patience}, but data.validation_share is {share}, so that nobody is there to "
            "tell which round is better; set data.validation_share to 0.2, or early_stopping.patience to 0."
        )


def check_sites(config: ConfigDict) -> None:
    """Refuses ``auto`` for the number of clients where the data do not say how many there are."""
    if config.partition.num_clients == AUTO and config.partition.name != "site":
        raise UsageError(
            f"partition.num_clients is 'auto', as many as there are sites, but partition.name is "
            f"{config.partition.name!r}; give a number, or set partition.name to 'site'."
        )


def check_outputs(network: Model, data: Federation) -> None:
    """Refuses a network whose outputs do not fit the targets: ``[B]`` numbers, or ``[B, K]`` logits."""
    params = jax.eval_shape(network.init, jax.random.key(0))
    example = jax.ShapeDtypeStruct((1, *data.inputs.shape[1:]), np.float32)
    outputs = jax.eval_shape(network.apply, params, example).shape[1:]
    if data.classes and (len(outputs) != 1 or outputs[0] < data.classes):
        raise UsageError(
            f"model gives {outputs[0] if outputs else 'a single number'}{' outputs' if outputs else ''}, but the data "
            f"have {data.classes} classes; set --config.model.classes={data.classes}."
        )
    if not data.classes and outputs:
        raise UsageError("model is a classifier, but the targets are numbers; choose a model of one number.")


def check_devices(config: ConfigDict) -> None:
    """Refuses more devices than there are, and what cannot be shared out evenly among them."""
    devices, available = config.execution.devices, jax.local_device_count()
    with argument_path(""):
        size = cohort_size(config.partition.num_clients, config.participation)
    if devices > available:
        raise UsageError(f"execution.devices is {devices}, but there are {available}; lower it.")
    if devices > 1 and config.solo_rounds:
        raise UsageError(f"solo_rounds has one client alone, but execution.devices is {devices}; set it to 1.")
    if size % devices and devices % size:
        raise UsageError(
            f"execution.devices is {devices}, but {size} clients take part in a round: one must be a multiple of the "
            "other."
        )
    if config.client.batch_size % (devices // size or 1):
        raise UsageError(
            f"execution.devices is {devices}, so that each of the {size} clients of a round has {devices // size} "
            f"devices: client.batch_size, {config.client.batch_size}, must be a multiple of that."
        )

"""From a config to an `Experiment`: data, network and task, around the method that `method` reads."""

import collections
import functools
import runpy
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedsparse_jax.attacks.evaluate import log_leakage
from fedsparse_jax.attacks.membership import ATTACKS
from fedsparse_jax.communication.transport import MessageSettings
from fedsparse_jax.config import checks
from fedsparse_jax.config.checks import AUTO
from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.method import final_sparsity, recipe_from_config, remarks_on_config, resolve_client_map
from fedsparse_jax.config.network import algorithm_from_config, model_from_config
from fedsparse_jax.config.overrides import CHOICES, override
from fedsparse_jax.config.registry import argument_path, bind_options, lookup
from fedsparse_jax.config.scans import label_from_config, no_progress, people_of_scans, read_scans
from fedsparse_jax.config.warm_start import begin_from, source_from_config, with_numbers_of
from fedsparse_jax.core import masks
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.losses import LOSSES
from fedsparse_jax.core.types import Model, ServerState
from fedsparse_jax.data import partitions
from fedsparse_jax.data.federation import Federation, cohort_size, federate
from fedsparse_jax.data.image_sources import IMAGE_SOURCES
from fedsparse_jax.data.labels import classes_of, targets_of
from fedsparse_jax.data.partitions import PARTITIONS
from fedsparse_jax.data.recorded_splits import recorded_test
from fedsparse_jax.data.roster import federate_as_recorded
from fedsparse_jax.data.scan_cache import ScanSet
from fedsparse_jax.federated.client_map import num_parallel_clients
from fedsparse_jax.federated.client_step import PrivateSteps
from fedsparse_jax.federated.privacy_accounting import epsilon_spent, require_accountant
from fedsparse_jax.models.flops import multiply_adds_per_weight
from fedsparse_jax.runs.experiment import (
    TRAVELS,
    Batching,
    Cohorts,
    Execution,
    Experiment,
    LeakageLog,
    ModelChoice,
    Output,
)
from fedsparse_jax.runs.faults import Faults
from fedsparse_jax.runs.run_dir import is_of_0_1, recorded_people
from fedsparse_jax.runs.trackers import find_tracker


def load_config(spec: str) -> ConfigDict:
    """The config of ``path.py`` or ``path.py:forms``; options of the phantom do not outlive another source in it."""
    path, _, forms = spec.partition(":")
    if not Path(path).is_file():
        raise UsageError(f"There is no config file {path}; give a path such as configs/quickstart.py.")
    config = runpy.run_path(path)["get_config"](forms)
    if config.data.source != "phantom" and config.data.options == defaults().data.options:
        with config.unlocked():
            config.data.options = {}
    return config


def federation_from_config(
    config: ConfigDict, progress=no_progress, test=None, workdir: Path | None = None, scan_set: ScanSet | None = None
) -> tuple[Federation, dict[str, int]]:
    """Who holds which example, and the central test set; and why scans were left out, with counts.

    Args:
        config: of the run.
        progress: shown while scans are read.
        test: people of the central test set instead of a random share; all others are divided among the clients.
        workdir: of the run, which may have begun; its recorded people are then taken, each where he was.
        scan_set: the scans, where they are read already.

    Raises:
        UsageError: no federation can be made of the data, or not that of the run that has begun.
    """
    options = {key: value for key, value in config.partition.items() if key != "num_clients"}
    checks.check_sites(config)
    number: int | None = None if config.partition.num_clients == AUTO else config.partition.num_clients
    divide = functools.partial(
        partitions.divide,
        partition=bind_options(PARTITIONS, options, "partition", *CHOICES["partition"].supplied),
        num_clients=number,
    )
    split: Callable = functools.partial(
        federate,
        divide=divide,
        test_share=config.data.test_share,
        validation_share=config.data.validation_share,
        seed=config.seed,
        split_test=partitions.split_test_by_order if workdir and is_of_0_1(workdir) else partitions.split_test,
    )
    if workdir and (roster := recorded_people(workdir)):
        as_recorded = functools.partial(federate_as_recorded, roster=roster, workdir=workdir)
        split = lambda *arrays, test, classes=0: as_recorded(*arrays, classes=classes)  # the record knows who is tested
    shares = {name: f"data.{name}" for name in ("test_share", "validation_share")}
    with argument_path("partition", **shares, root="data.root", shape="data.shape"):
        if config.data.source in IMAGE_SOURCES:
            return _image_federation(config, split, test), {}
        scan_set = scan_set or read_scans(config, progress)
        label = label_from_config(config)
        with argument_path("data"):
            names = classes_of(scan_set.scans, label)
        targets = targets_of(scan_set.scans, label, names)
        reasons = collections.Counter(drop.reason for drop in scan_set.dropped)
        people = people_of_scans(scan_set)
        if test is None:
            test = recorded_test(scan_set.scans)
        else:  # the data's own test sets are none here
            people = [{**person, "test_set": ""} for person in people]
        data = split(scan_set.inputs, targets, people, test=test, classes=len(names))
        return data._replace(class_names=names), dict(reasons)


def _image_federation(config: ConfigDict, split: Callable, test) -> Federation:
    """The second task; every image counts as a person of its own."""
    images = IMAGE_SOURCES[config.data.source](config.data.root)
    shape, wanted = images.inputs.shape[1:-1], tuple(config.data.shape)
    if shape != wanted:
        raise UsageError(f"data.shape is {wanted}, but the images have {shape} pixels; set data.shape to that.")
    checks.check_channels(config, images.inputs.shape[-1], "image")
    rows = [{"participant_id": f"image-{i:06d}", "session": "", "site": "n/a"} for i in range(len(images.labels))]
    classes = int(images.labels.max()) + 1
    return split(images.inputs, images.labels, rows, test=images.test if test is None else test, classes=classes)


def experiment_from_config(
    config: ConfigDict,
    progress=no_progress,
    test=None,
    workdir: Path | None = None,
    federation: Federation | None = None,
    federate_: Callable[..., tuple[Federation, dict[str, int]]] = federation_from_config,
) -> Experiment:
    """Everything that `runs.loop.run_experiment` folds.

    Args:
        config: complete.
        progress: shown while scans are read.
        test, workdir: see `federation_from_config`.
        federation: who holds what, where that is known already, as at a site that holds its own scans only.
        federate_: else finds it out, as `federation_from_config`.

    Raises:
        UsageError: the config or the data cannot give a federation; nothing has been written to a run folder.
    """
    if config.partition.num_clients == AUTO:
        return _with_as_many_clients_as_sites(config, progress, test, workdir, federate_)
    checks.check_counts(config)
    messages = MessageSettings(**config.communication, seed=config.seed)
    checks.check_messages(messages)
    checks.check_devices(config)
    checks.check_held(config)
    checks.check_clients(config)
    checks.check_early_stopping(config)
    checks.check_order(config)
    checks.check_log_of_leaks(config)
    with argument_path("log"):
        tracker = find_tracker(config.log.tracker)
    output = Output(config.checkpoint.every, config.checkpoint.keep, config.log.tensorboard, tracker)
    task, source = checks.check_task(config), source_from_config(config)
    if source:
        config = with_numbers_of(config, source)
    recipe = recipe_from_config(config, model_from_config(config)[0])
    if recipe.private:
        require_accountant()
    algorithm_from_config(config, recipe.model)  # refuses an impossible method or shape before any data are read
    data, dropped = (federation, {}) if federation else federate_(config, progress, test, workdir)
    network, resolved = model_from_config(config, data.train_targets)
    checks.check_outputs(network, data)
    warm = begin_from(source, network, config.model, config.data, data) if source else None
    if warm:
        network, resolved = network._replace(init=warm.init), {**config.model, **resolved, **warm.resolved}
    params = jax.eval_shape(network.init, jax.random.key(0))
    size = cohort_size(config.partition.num_clients, config.participation)
    return Experiment(
        config=_resolved(config, resolved, data),
        task=task,
        seed=config.seed,
        rounds=config.rounds,
        model=network,
        algorithm=algorithm_from_config(
            config, network, _loss_of_knowing_nothing(config, data), warm.masks if warm else None
        ),
        federation=data,
        cohorts=Cohorts(size, config.solo_rounds, config.order if config.order in TRAVELS else ""),
        batching=Batching(config.client.batch_size, config.client.epochs, config.pruning.batches),
        execution=_execution(config, data, size),
        output=output,
        messages=messages,
        faults=Faults(**{key: config.faults[key] for key in Faults._fields}),
        model_choice=ModelChoice(final_sparsity(config, recipe, params), config.early_stopping.patience),
        multiply_adds=multiply_adds_per_weight(network.apply, params, data.inputs.shape[1:]),
        dropped=dropped,
        remarks=(*_left_out(dropped), *(warm.remarks if warm else ()), *remarks_on_config(config)),
        leakage=_leakage_log(config, network, data) if config.log.audit_every else None,
        epsilon=_epsilon_of_rounds(config, recipe.private, data) if recipe.private else None,
        noise_from_seed=config.privacy.noise_from_seed,
        defaults=defaults().to_dict(),
    )


def _left_out(dropped: dict[str, int]) -> list[str]:
    """What the console says of scans and people that are not in the federation."""
    reasons = ", ".join(f"{count} x {reason}" for reason, count in dropped.items())
    return [f"Left out: {sum(dropped.values())} ({reasons}); scripts/prepare.py lists them."] if dropped else []


def _with_as_many_clients_as_sites(
    config: ConfigDict, progress, test, workdir: Path | None, federate_: Callable
) -> Experiment:
    """The experiment whose number of clients the data say: its config holds the number."""
    checks.check_task(config)
    data, _ = federate_(config, progress, test, workdir)
    counted = override(config, [("partition.num_clients", str(len(data.members)))])
    return experiment_from_config(counted, progress, test, workdir, federate_=federate_)


def _resolved(config: ConfigDict, model: dict, data: Federation) -> dict:
    """The config with all that the data have decided."""
    plain = {**config.to_dict(), "model": model}
    if data.class_names:
        plain["data"] = {**plain["data"], "classes": data.class_names}
    return plain


def _loss_of_knowing_nothing(config: ConfigDict, data: Federation) -> float:
    """The mean training loss of a prediction that is the same for all: the mean age, or all classes alike likely."""
    targets = jnp.asarray(data.train_targets)
    if not len(targets):  # nobody trains here
        return 0.0
    same = jnp.zeros((len(targets), data.classes)) if data.classes else jnp.full(len(targets), targets.mean())
    return float(LOSSES[config.client.loss](same, targets).mean())


def _execution(config: ConfigDict, data: Federation, size: int) -> Execution:
    settings = config.execution
    residency = {"auto": data.inputs.nbytes <= settings.resident_limit, "yes": True, "no": False}
    return Execution(
        steps_per_chunk=settings.steps_per_chunk,
        num_parallel_clients=num_parallel_clients(resolve_client_map(settings.client_map), size),
        devices=settings.devices,
        resident=lookup(residency, settings.resident, "execution.resident"),
        eval_batch=settings.eval_batch,
        clients_held=settings.clients_held,
    )


def _epsilon_of_rounds(config: ConfigDict, private: PrivateSteps, data: Federation) -> Callable[[int], float]:
    """Rounds that a client took part in, to the epsilon of one scan of its data, or of all scans of a person."""
    scans = {"scan": 1, "person": data.most_scans_of_a_person}[config.privacy.unit]
    return lambda rounds: epsilon_spent(private.noise, rounds * config.client.epochs, config.privacy.delta, scans)


def _leakage_log(config: ConfigDict, network: Model, data: Federation) -> LeakageLog:
    """What a run logs of its own leaks."""
    names = tuple(config.log.audit_attacks)
    for name in names:
        lookup(ATTACKS, name, "log.audit_attacks")
    people = data.members, data.test, names, data.person_of_row, bool(data.classes)
    measure = log_leakage(network.apply, data.inputs, data.targets, *people)

    def of_server(server: ServerState) -> dict[str, float]:
        return measure(masks.apply(server.masks, server.params), server.masks)

    return LeakageLog(of_server, config.log.audit_every)

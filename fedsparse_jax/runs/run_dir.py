"""A run folder: what is written into it when it is opened, and the refusal of one that holds something else.

The files::

    config.json         the resolved config                         environment.json  versions, machine, seed
    federation.json     what each client holds, in numbers          metrics.jsonl     a line a round (`records`)
    people.tsv          who was in which client, trained on or of its validation, or the test set
    checkpoints/        the server's state, newest and best rounds  client_records/   masks that both sides know
    predictions.tsv     of the test set, by the final model         slices.npz        a few test examples
    quality.json        its measures with intervals (`quality`)
    validation_predictions.tsv   of the validation, where there is one
    likeness.npz        how scans of the training look (`likeness`)
    tensorboard/        the same numbers as metrics.jsonl           report.html       and figures/, by `reporting`
    attack.json         what an audit found, by `studies.audit_run`
    tracker.json        what a service calls the run, where it is told of the rounds (`trackers`)
    noise_entropy.txt   of private training only, and secret: whoever knows it can take the noise away
"""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import forget_partial, lock, read_json, refuse_file, write_json
from fedsparse_jax.core.machine import processor
from fedsparse_jax.data import roster
from fedsparse_jax.models.flops import flops_per_example
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.migrations import CLIENT_RECORDS, upgrade_folder, upgrade_stored_config

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "nibabel", "fedsparse_jax")
PEOPLE = "people.tsv"
NOISE = "noise_entropy.txt"
LOCK = ".lock"
BEFORE_CONFIG = {LOCK, NOISE, PEOPLE, "environment.json", "federation.json"}  # what a start that was stopped may leave
PLACES = ("root", "cache_dir", "workers")  # keys of the section data
PLACES_OF_TABLES = ("root_path", "participants", "splits")  # keys of its options
ORIGIN_OF_WEIGHTS = ("init_from", "init_which")  # keys of the section model
COST_ONLY = ("execution", "checkpoint", "log")  # sections that change no number, or only what is shown


def open_run_dir(workdir: Path, experiment: Experiment) -> None:
    """Makes the folder and writes what the run is about; refuses a folder that holds another experiment.

    ``config.json`` comes last when the folder is made, so that a folder that has it has everything.
    """
    for folder in (workdir, client_records(workdir)):
        forget_partial(folder)
    config_file, recorded, data = workdir / "config.json", recorded_people(workdir), experiment.federation
    begun = config_file.exists()
    if begun:
        refuse_other_config(experiment.config, workdir, "choose another --workdir", defaults=experiment.defaults)
        roster.refuse_other_split(data, recorded, workdir)
        if is_of_0_1(workdir):
            _refuse_other_numbers(describe_federation(experiment), workdir)
        upgrade_folder(workdir)
    elif experiment.epsilon and not experiment.noise_from_seed:
        _draw_noise_entropy(workdir)
    about = {"environment": environment(experiment.seed), "federation": describe_federation(experiment)}
    for name, value in about.items():  # of the run's first start
        if not (begun and (workdir / f"{name}.json").exists()):
            write_json(workdir / f"{name}.json", value)
    if not recorded:
        roster.write_roster(workdir / PEOPLE, roster.roster_of(data))
    write_json(config_file, {"config": experiment.config})


def lock_run_dir(workdir: Path) -> contextlib.AbstractContextManager:
    """Keeps a second process out of the folder while this one trains.

    Raises:
        UsageError: another process trains in it, or it cannot become a run folder.
    """
    for folder in (workdir, client_records(workdir)):
        refuse_file(folder)
    others = {path.name for path in workdir.iterdir()} - BEFORE_CONFIG if workdir.exists() else set()
    if any(not name.endswith(".partial") for name in others) and not (workdir / "config.json").exists():
        raise UsageError(f"{workdir} is not empty and holds no run; choose another --workdir.")
    return lock(workdir / LOCK, f"Another process trains in {workdir}")


def recorded_people(workdir: Path) -> roster.Roster:
    """Who was in which client and in the test set of a run; empty for a folder that has no run, or an older one."""
    return roster.read_roster(workdir / PEOPLE) if (workdir / "config.json").exists() else ()


def is_of_0_1(workdir: Path) -> bool:
    """Whether the folder's run was begun by version 0.1, which recorded nobody."""
    return (workdir / "config.json").exists() and not (workdir / PEOPLE).exists()


def noise_entropy(workdir: Path) -> int | None:
    """The random number behind the noise of a private run, drawn when its folder was made.

    No two folders share it, so that no noise is added twice to different data; a run that goes on goes on with its own.
    None for a run that takes its noise from the seed: one that is not private, or is older than version 0.2.
    """
    file = workdir / NOISE
    return int(file.read_text(encoding="ascii"), 16) if file.exists() else None


def _draw_noise_entropy(workdir: Path) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(workdir / NOISE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"{secrets.token_hex(8)}\n")


def stored_config(workdir: Path) -> dict[str, Any]:
    """The config of a run folder, in today's words.

    Raises:
        UsageError: the folder holds no run.
    """
    file = workdir / "config.json"
    if not file.exists():
        raise UsageError(f"{workdir} holds no run (no config.json); give the --workdir of scripts/train.py.")
    return upgrade_stored_config(read_json(file)["config"])


def client_records(workdir: Path) -> Path:
    """Where the masks are kept that server and clients know of one another."""
    return workdir / CLIENT_RECORDS


def environment(seed: int) -> dict[str, Any]:
    """Versions, machine, devices and seed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "devices": [str(device) for device in jax.devices()],
        "seed": seed,
        "started": datetime.datetime.now().isoformat(timespec="seconds"),
    }


def describe_federation(experiment: Experiment) -> dict[str, Any]:
    """Who holds what, for the report."""
    data = experiment.federation
    kind = "labels" if data.classes else "ages"
    targets = data.targets.astype(int) if data.classes else data.targets.astype(float).round(1)
    clients = [
        {"name": roster.client_name(i), "n": len(rows), kind: targets[rows].tolist()}
        for i, rows in enumerate(data.members)
    ]
    params = jax.eval_shape(experiment.model.init, jax.random.key(0))
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    validation = (
        {"validation": {"n": len(rows), kind: targets[rows].tolist()}} if len(rows := data.validation_rows) else {}
    )
    return {
        "method": experiment.config["method"],
        "task": experiment.config["task"],
        "classes": data.classes,
        **({"class_names": list(data.class_names)} if data.class_names else {}),
        "clients": clients,
        "test": {"n": len(data.test), kind: targets[data.test].tolist()},
        **validation,
        "dropped": experiment.dropped,
        "total_weights": tree.size(params),
        "layers": dict(zip(tree.leaf_names(params), sizes, strict=True)),
        "flops": flops_per_example(sizes, experiment.multiply_adds),
        "shape": list(data.inputs.shape[1:-1]),
    }


def refuse_other_config(
    config: dict, workdir: Path, remedy: str, but: Iterable[str] = (), defaults: Mapping[str, Any] | None = None
) -> None:
    """Refuses a run folder whose numbers come from another config.

    Args:
        config: resolved, or, with ``but``, not yet.
        workdir: the run.
        remedy: the end of the sentence.
        but: keys that may differ, such as ``model.output_mean``.
        defaults: what a key is that the run's version did not have yet.

    Raises:
        UsageError: keys that decide the numbers are others there; all of them are named.
    """
    differ = differing_keys(config, stored_config(workdir), defaults, may_move=bool(recorded_people(workdir)))
    told = [f"there {key} is {there!r}, here it is {here!r}" for key, (here, there) in differ.items() if key not in but]
    if told:
        raise UsageError(f"{workdir} holds another experiment: {'; '.join(told)}; {remedy}.")


def differing_keys(
    config: dict, stored: dict, defaults: Mapping[str, Any] | None = None, *, may_move: bool = False
) -> dict[str, tuple[Any, Any]]:
    """The keys that decide the numbers and differ in two configs, by path and sorted, with the value in each.

    Args:
        config: one of them.
        stored: the other, perhaps of an older version.
        defaults: what a key is that the older version did not have yet.
        may_move: whether the scans may lie elsewhere.
    """
    ours, theirs = (_flat(_comparable(one, may_move)) for one in (config, stored))
    theirs = {key: value for key, value in _flat(defaults or {}).items() if key in ours} | theirs
    keys = sorted(ours.keys() | theirs.keys())
    return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


def _refuse_other_numbers(federation: dict[str, Any], workdir: Path) -> None:
    """Of a run that recorded no names: whether the same ages or classes are in every client and in the test set."""
    file = workdir / "federation.json"
    recorded = read_json(file) if file.exists() else {}
    for key in ("clients", "test"):
        if key in recorded and recorded[key] != federation[key]:
            raise UsageError(
                f"{workdir} was trained by version 0.1 on other people, or divided them otherwise ({file.name}, "
                f"{key}); give it the same scans, or choose another --workdir. From Python, build the experiment with "
                "workdir= that folder."
            )


def _comparable(config: dict, may_move: bool) -> dict[str, Any]:
    """What decides the numbers; where the scans lie is not among it if people.tsv says whose they are."""
    numbers = {key: value for key, value in config.items() if key not in COST_ONLY}
    if "init_sha256" in numbers.get("model", {}):  # what was taken, and not where it lay
        numbers["model"] = {key: value for key, value in numbers["model"].items() if key not in ORIGIN_OF_WEIGHTS}
    if may_move and "data" in numbers:
        data = {key: value for key, value in numbers["data"].items() if key not in PLACES}
        options = {key: value for key, value in data.get("options", {}).items() if key not in PLACES_OF_TABLES}
        numbers["data"] = data | ({"options": options} if "options" in data else {})
    return numbers


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys by path, with lists for tuples, as in a config that was stored."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in by_path(config).items()}


def by_path(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keys of a config, nested ones as ``outer.inner``; keys that are numbers read as a stored config has them.

    >>> by_path({"seed": 1, "rounds": {0: "dense"}, "client": {"batch_size": 4}})
    {'seed': 1, 'rounds.0': 'dense', 'client.batch_size': 4}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= by_path(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat

"""Who is told of every round while a run goes on: Weights & Biases, MLflow, or a function of the user's own.

A tracker is a function ``(config, workdir)`` that gives a context manager, for the time of the run, of a function
``(round, numbers)``. The numbers are those of the round's line in ``metrics.jsonl``, flat: ``test_mae``,
``density/conv1/kernel``. A run that goes on tells the rounds that its folder holds once more, in order, before the new
ones, so that none is missing; both services here leave out what they know already. Training never ends for a tracker
that fails.
"""

import contextlib
import importlib
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.files import read_json, write_json
from fedsparse_jax.runs.metrics_log import scalars
from fedsparse_jax.runs.records import RoundRecord
from fedsparse_jax.runs.run_dir import by_path

Tell = Callable[[int, dict[str, float]], None]
Tracker = Callable[[dict[str, Any], Path], contextlib.AbstractContextManager[Tell]]

IDS = "tracker.json"  # of the run folder: what a service calls the run, by the service
PARAMS_AT_ONCE = 100  # that a server of MLflow takes


@contextlib.contextmanager
def to_wandb(config: dict[str, Any], workdir: Path) -> Iterator[Tell]:
    """Weights & Biases: one run for the folder, a step for each round."""
    wandb = _package("wandb")
    known = _known_ids(workdir)
    run = wandb.init(id=known.get("wandb"), resume="allow", name=workdir.name, dir=str(workdir), config=config)
    write_json(workdir / IDS, {**known, "wandb": run.id})
    told = run.step  # the next one, in a run that goes on
    try:
        yield lambda round_, numbers: run.log(numbers, step=round_) if round_ >= told else None
    finally:
        run.finish()


@contextlib.contextmanager
def to_mlflow(config: dict[str, Any], workdir: Path) -> Iterator[Tell]:
    """MLflow: one run for the folder, the config as parameters, a step for each round."""
    mlflow = _package("mlflow")
    known = _known_ids(workdir)
    with mlflow.start_run(run_id=known.get("mlflow"), run_name=workdir.name) as run:
        id_ = run.info.run_id
        if "mlflow" not in known:
            write_json(workdir / IDS, {**known, "mlflow": id_})
            params = list(by_path(config).items())
            for begin in range(0, len(params), PARAMS_AT_ONCE):
                mlflow.log_params(dict(params[begin : begin + PARAMS_AT_ONCE]))
        told = max((one.step for one in mlflow.MlflowClient().get_metric_history(id_, "round")), default=0)
        yield lambda round_, numbers: mlflow.log_metrics(numbers, step=round_) if round_ > told else None


def find_tracker(name: str) -> Tracker | None:
    """The tracker that a user names; None for the empty name.

    Args:
        name: a member of ``TRACKERS``, or ``PLACE:FUNCTION``, where the place is a Python file or a module.

    Raises:
        ArgumentError: there is none of this name, or its package is missing.
    """
    if not name:
        return None
    if name in TRACKERS:
        _package(name)
        return TRACKERS[name]
    place, _, function = name.rpartition(":")
    if not place or (place.endswith(".py") and not Path(place).is_file()):
        raise ArgumentError("tracker", name, f"it must be one of {', '.join(TRACKERS)}, or FILE.py:FUNCTION")
    try:
        names = runpy.run_path(place) if place.endswith(".py") else vars(importlib.import_module(place))
    except Exception as error:  # the user's own file may raise any
        raise ArgumentError("tracker", name, f"{place} cannot be read ({type(error).__name__}: {error})") from error
    if not callable(names.get(function)):
        raise ArgumentError("tracker", name, f"{place} has no function {function!r}")
    return names[function]


@contextlib.contextmanager
def tracked(
    tracker: Tracker, config: dict[str, Any], workdir: Path, records: list[RoundRecord], print_fn: Callable[[str], None]
) -> Iterator[Callable[[RoundRecord], None]]:
    """A function that tells a tracker of a round; it begins by telling of the rounds that there are.

    Raises:
        UsageError: the tracker fails before it is told of anything.
    """
    stack = contextlib.ExitStack()
    try:
        tell: Tell | None = stack.enter_context(tracker(config, workdir))
    except Exception as error:  # a user's own code, or a network
        raise UsageError(
            f"The tracker of log.tracker cannot begin ({type(error).__name__}: {error}); mend it, or set log.tracker "
            f"to ''; without {workdir / IDS} it begins a new record."
        ) from error
    fails = lambda when, error: print_fn(
        f"Note: the tracker failed {when} ({type(error).__name__}: {error}); the run goes on without it, and tells it "
        "all rounds when the same command is given again."
    )

    def add(record: RoundRecord) -> None:
        nonlocal tell
        try:
            if tell:
                tell(record.round, scalars(record.to_json()))
        except Exception as error:
            tell = None
            fails(f"in round {record.round}", error)

    try:
        for record in records:
            add(record)
        yield add
    finally:
        try:
            stack.close()
        except Exception as error:
            fails("at its end", error)


def _known_ids(workdir: Path) -> dict[str, str]:
    return read_json(workdir / IDS) if (workdir / IDS).exists() else {}


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ArgumentError("tracker", name, f"the package {name} is missing: pip install {name}") from error


TRACKERS: dict[str, Tracker] = {"wandb": to_wandb, "mlflow": to_mlflow}

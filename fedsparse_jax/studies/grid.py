"""A grid of runs: cells that differ in what a study asks, each trained with several seeds, resumable at every point.

A cell is a config with some keys set. Each pair of cell and seed is an ordinary run in a folder of its own. A run that
fails is reported and stops no other.
"""

import hashlib
import itertools
import re
import runpy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedsparse_jax.config.build import experiment_from_config, load_config
from fedsparse_jax.config.overrides import override
from fedsparse_jax.config.registry import lookup
from fedsparse_jax.config.saved_runs import load_run
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json, write_json
from fedsparse_jax.core.tasks import Task, task_for
from fedsparse_jax.runs.console import duration
from fedsparse_jax.runs.evaluation import predict_test
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.loop import run_experiment
from fedsparse_jax.runs.metrics_log import read_records
from fedsparse_jax.runs.records import RoundRecord
from fedsparse_jax.runs.round import make_runner
from fedsparse_jax.studies.run_measures import MEASURES, FinishedRun
from fedsparse_jax.studies.side_by_side import do_one_by_one, do_side_by_side

ROUND_LINE = re.compile(r"round +\d")  # of a run, one of hundreds here
FINISHED = "finished.json"  # in a run's folder: of which config it is, and that nothing is left to do
MEASURED = "measures.json"  # in a run's folder: what the study measured of it


class GridCell(NamedTuple):
    """Runs that differ in their seeds only."""

    labels: Mapping[str, str]  # by the name of an axis, such as environment, method and sparsity
    spec: str  # a config file and its forms
    settings: Sequence[str] = ()  # KEY=VALUE of the config
    seeds: Sequence[int] = (1, 2, 3)

    @property
    def name(self) -> str:
        """The labels as the name of a folder."""
        return "_".join(re.sub(r"[^\w.+=-]+", "-", label).strip("-") for label in self.labels.values())

    @property
    def three_labels(self) -> list[str]:
        """At least three labels: the first is a panel, the last a place on its axis, and those between are a line. A
        cell with one or two of them stands in a panel of no name, or on a line of its own.
        """
        labels = list(self.labels.values())
        return {1: ["", labels[0], ""], 2: ["", *labels]}.get(len(labels), labels)


class Study(NamedTuple):
    """A question to many runs."""

    title: str
    cells: Sequence[GridCell]
    reference: Mapping[str, str] = {}  # labels of the cell that another one is compared with
    measures: Sequence[str] = ()  # members of `run_measures.MEASURES`, taken of every finished run


class Run(NamedTuple):
    """What came of a cell with one seed."""

    cell: GridCell
    seed: int
    folder: Path
    records: Sequence[RoundRecord]
    failure: str = ""  # a sentence; empty where the run is finished
    measures: Mapping[str, Any] = {}  # by name, see `run_measures`
    environment: Mapping[str, Any] = {}  # versions and machine
    config: Mapping[str, Any] = {}  # that it was made of, with plain dictionaries


def read_study(spec: str) -> Study:
    """What the ``get_study(forms)`` of ``path.py`` or ``path.py:forms`` returns.

    Raises:
        UsageError: no such file, or no such function in it.
    """
    file, _, forms = spec.partition(":")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"There is no study {path}; give a path such as configs/studies/grid.py.")
    named = runpy.run_path(str(path))
    if "get_study" not in named:
        raise UsageError(
            f"{path} has no function get_study(forms); write one that returns a fedsparse_jax.studies.Study."
        )
    return named["get_study"](forms)


def study_of_configs(specs: Sequence[str], values: Iterable[str], seeds: Sequence[int]) -> Study:
    """Every config with every combination of some values; all are compared with the first config.

    Args:
        specs: configs, such as ``configs/quickstart.py:dense``, or ``@FILE`` for the lines of a file.
        values: ``KEY=VALUE,VALUE`` of the config, such as ``client.optimizer.learning_rate=1e-3,3e-3``.
        seeds: of every cell.
    """
    axes = [_axis(text) for text in values]
    specs = expand_lists(specs)
    cells = [
        GridCell({"config": spec, **dict(chosen)}, spec, [f"{key}={value}" for key, value in chosen], seeds)
        for chosen in itertools.product(*axes)
        for spec in specs
    ]
    return Study("Comparison", cells, {"config": specs[0]})


def _axis(text: str) -> list[tuple[str, str]]:
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise UsageError(f"--set is {text!r}: write a key and its values, such as rounds=20,40.")
    return [(key, value) for value in values.split(",")]


def expand_lists(specs: Iterable[str]) -> list[str]:
    """The specs, with every ``@file`` replaced by its lines; what follows a ``#`` is a remark.

    Raises:
        UsageError: there is no such file.
    """
    expanded: list[str] = []
    for spec in specs:
        if not spec.startswith("@"):
            expanded.append(spec)
            continue
        path = Path(spec[1:])
        if not path.is_file():
            raise UsageError(f"There is no list of configs {path}; write one spec a line, or give them by commas.")
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
        expanded += [line for line in lines if line]
    return expanded


def config_of_run(cell: GridCell, seed: int):
    """The config of a cell with a seed; what only a single run needs is left away."""
    settings = [setting.partition("=")[::2] for setting in cell.settings]
    config = override(load_config(cell.spec), settings)
    with config.unlocked():
        config.seed = seed
        config.log.tensorboard = False
        config.checkpoint.keep = 1
    return config


def task_of_study(study: Study) -> Task:
    """What all cells predict.

    Raises:
        UsageError: some predict one thing, some another; or no config of the study can be used.
    """
    kinds: dict[tuple[str, str, str], str] = {}
    for cell in study.cells:
        try:
            config = config_of_run(cell, 0)
        except UsageError:
            continue  # the cell fails by itself
        kinds.setdefault((config.task, config.data.label, config.data.unit), cell.name)
    if not kinds:
        raise UsageError("No config of the study can be used; check its cells, or --configs and --set.")
    if len(kinds) > 1:
        told = ", and ".join(f"{label} ({task}) in {name}" for (task, label, _), name in list(kinds.items())[:2])
        raise UsageError(f"The study predicts {told}; study them apart.")
    return task_for(*next(iter(kinds)))


def run_study(
    study: Study,
    workdir: Path,
    print_fn: Callable[[str], None] = print,
    *,
    known: Sequence[Run] = (),
    keep: Callable[[list[Run]], None] = lambda finished: None,
    at_once: int = 1,
    begin: Callable[[], object] = lambda: None,
) -> list[Run]:
    """All runs, in the order of the cells; seed by seed, so that every cell has its first result early.

    What ``workdir`` holds is not run again.

    Args:
        study: what to train.
        workdir: of the run folders.
        print_fn: told what goes on.
        known: runs whose results are there already, see `kept_runs.read_kept`.
        keep: given all finished runs after each that was trained.
        at_once: runs at a time; each of several has a process of its own.
        begin: a function of a module, called first in such a process.

    Raises:
        UsageError: cells of one name, that predict different things, a measure that there is not, or a process that has
            ended in the middle of a run.
    """
    _refuse_same_names(study)
    for name in study.measures:
        lookup(MEASURES, name, "measures of the study")
    task_of_study(study)
    everything = sorted(
        ((place, cell, seed) for cell in study.cells for place, seed in enumerate(cell.seeds)), key=lambda one: one[0]
    )
    runs = {(run.cell.name, run.seed): run for run in known}
    asked = [
        _Job(study.measures, cell, seed, workdir / f"{cell.name}-seed{seed}")
        for _, cell, seed in everything
        if (cell.name, seed) not in runs
    ]
    left = dict[int, _Job]()
    for number, job in enumerate(asked, 1):
        if run := _held(job):
            runs[job.cell.name, job.seed] = run
            if run.failure:
                print_fn(f"  {job.told}: {_outcome(run)}")
        else:
            left[number] = job
    seconds, began = list[float](), dict[int, float]()  # of the runs that are trained here

    def announce(number: int) -> None:
        each = float(np.mean(seconds)) / at_once if seconds else 0.0
        more = f", about {duration(each * (len(left) - len(began)))} left" if seconds else ""
        began[number] = time.monotonic()
        print_fn(f"Run {number} of {len(asked)}{more}: {left[number].told}")

    if at_once == 1:
        results = do_one_by_one(lambda job: (_train(job, print_fn), []), left, announce)
    else:
        results = do_side_by_side(_train_apart, left, announce, at_once, begin)
    for number, (run, said) in results:
        seconds.append(time.monotonic() - began[number])
        for line in said:
            print_fn(line)
        which = f"Run {number}: " if at_once > 1 else ""
        print_fn(f"  {which}{_outcome(run)} ({duration(seconds[-1])})")
        runs[run.cell.name, run.seed] = run
        keep([one for one in runs.values() if not one.failure])
    return [runs[cell.name, seed] for cell in study.cells for seed in cell.seeds]


class _Job(NamedTuple):
    """A run that a study asks for."""

    measures: Sequence[str]
    cell: GridCell
    seed: int
    folder: Path

    @property
    def told(self) -> str:
        """The job in words."""
        return f"{', '.join(self.cell.labels.values())}, seed {self.seed}"

    def failed(self, error: Exception) -> Run:
        """What is left of it after an error: one cell must not cost the others."""
        sentence = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        return Run(self.cell, self.seed, self.folder, (), sentence)


def _held(job: _Job) -> Run | None:
    """The run, where its folder holds all of it, or where its config is none; else None."""
    try:
        config = config_of_run(job.cell, job.seed)
        measured = read_json(job.folder / MEASURED) if (job.folder / MEASURED).is_file() else {}
        trained = (job.folder / FINISHED).is_file() and read_json(job.folder / FINISHED) == _digest(config)
        return _finished_run(job, config, measured) if trained and measured.keys() >= {*job.measures} else None
    except Exception as error:
        return job.failed(error)


def _digest(config) -> str:
    return hashlib.sha256(config.to_json_best_effort(sort_keys=True).encode()).hexdigest()


def _finished_run(job: _Job, config, measured: Mapping[str, Any]) -> Run:
    environment, records = read_json(job.folder / "environment.json"), read_records(job.folder)
    return Run(job.cell, job.seed, job.folder, records, "", measured, environment, config.to_dict())


def _train(job: _Job, print_fn: Callable[[str], None]) -> Run:
    """The run, trained and measured as far as its folder lacks that."""
    try:
        config = config_of_run(job.cell, job.seed)
        experiment = experiment_from_config(config, workdir=job.folder)
        run_experiment(experiment, job.folder, lambda line: None if ROUND_LINE.match(line) else print_fn(f"  {line}"))
        measured = _measure(job, config, experiment)
        write_json(job.folder / MEASURED, measured)
        write_json(job.folder / FINISHED, _digest(config))
        return _finished_run(job, config, measured)
    except Exception as error:
        return job.failed(error)


def _train_apart(job: _Job) -> tuple[Run, list[str]]:
    """As `_train` in another process, and what it said."""
    said = list[str]()
    return _train(job, said.append), said


def _measure(job: _Job, config, experiment: Experiment) -> dict[str, Any]:
    """The measures that the study asks for, by name."""
    if not job.measures:
        return {}
    server = load_run(job.folder)[2]
    predictions = predict_test(make_runner(experiment), server.params)
    finished = FinishedRun(config, experiment, server, predictions)
    return {name: MEASURES[name](finished) for name in job.measures}


def _outcome(run: Run) -> str:
    """What came of a run, as a line."""
    if run.failure:
        return f"failed: {run.failure}"
    last = run.records[-1]
    measures = ", ".join(f"{name} {value:.3f}" for name, value in last.test.items() if value is not None)
    return f"sparsity {last.sparsity:.3f}, test {measures}"


def _refuse_same_names(study: Study) -> None:
    names = [cell.name for cell in study.cells]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two cells of the study are called {name}; give them labels that differ.")

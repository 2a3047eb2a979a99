"""Everybody predicted by a model that was not trained on him: k folds of people, or of whole sites.

The people of a fold are the test set of a run, all others are divided among the clients as the config says. Each fold
is an ordinary run in a folder of its own, so that a cross-validation that was stopped goes on where it was. A fold of
one site each is leave-site-out.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.config.build import experiment_from_config, federation_from_config
from fedsparse_jax.config.checks import AUTO, check_task
from fedsparse_jax.config.registry import argument_path
from fedsparse_jax.config.saved_runs import chosen_round, load_run
from fedsparse_jax.config.scans import no_progress
from fedsparse_jax.core.age_bias import AgeBias, correct_age_bias
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import write_whole
from fedsparse_jax.core.tasks import Task
from fedsparse_jax.core.uncertainty import bootstrap_measures
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.partitions import fold_people, fold_sites
from fedsparse_jax.reporting.html import formatted
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.reporting.quality_tables import MEASURE_LABELS
from fedsparse_jax.runs.console import sites_line
from fedsparse_jax.runs.evaluation import predict_test, predictions_table
from fedsparse_jax.runs.loop import run_experiment
from fedsparse_jax.runs.quality import UNKNOWN_SITES, judge_sites
from fedsparse_jax.runs.round import make_runner
from fedsparse_jax.studies.evaluate_run import age_bias_of_round
from fedsparse_jax.studies.intervals import mean_with_interval

PREDICTIONS = "out_of_fold.tsv"


class FoldOutcome(NamedTuple):
    """The test people of one fold, and what the model of all others predicts for them."""

    name: str  # of the run's folder
    people: list[dict]  # one row an example
    targets: np.ndarray  # f32[N]
    predictions: np.ndarray  # f32[N], or logits f32[N, K]
    baseline: float  # the headline measure of knowing nothing but the training people
    age_bias: AgeBias | None = None  # of the model on its validation
    class_names: tuple[str, ...] = ()

    @property
    def sites(self) -> list[str]:
        """The sites of its people."""
        return sorted({row["site"] for row in self.people})


def cross_validate(
    config,
    workdir: Path,
    folds: int | str,
    over: str = "people",
    which: str = "last",
    print_fn: Callable[[str], None] = print,
    progress=no_progress,
) -> tuple[list[FoldOutcome], Task]:
    """Trains what is not trained yet of every fold; writes ``out_of_fold.tsv``.

    Args:
        config: of the runs, complete; a test set of the data's own is not used.
        workdir: folder for the runs, ``fold-1`` and on.
        folds: how many, or ``auto`` for one a site.
        over: ``people`` or ``sites``: what is in one fold as a whole.
        which: the model of each run, see `config.saved_runs.chosen_round`.
        print_fn: told what goes on.
        progress: shown while scans are read.

    Raises:
        UsageError: the people cannot be folded so, or the folder holds runs of other folds.
    """
    data, _ = federation_from_config(config, progress)
    fold = assign_folds(data, folds, over, config.seed)
    outcomes = []
    for held in range(fold.max() + 1):
        print_fn(f"fold {held + 1} of {fold.max() + 1}")
        tested = np.flatnonzero(fold == held)
        outcomes.append(_run_fold(config, workdir / f"fold-{held + 1}", tested, which, print_fn, progress))
    task = check_task(config)
    write_whole(workdir / PREDICTIONS, out_of_fold_table(outcomes, task))
    return outcomes, task


def assign_folds(data: Federation, folds: int | str, over: str, seed: int) -> np.ndarray:
    """The fold of each person in the order of names, ``i64[P]`` from 0; arguments as of `cross_validate`."""
    names, first = np.unique([row["participant_id"] for row in data.people], return_index=True)
    sites = np.array([data.people[row]["site"] for row in first])
    if over != "sites" and folds == AUTO:
        raise UsageError(f"--folds is {AUTO!r}, which is a fold for each site; add --over=sites, or give a number.")
    missing = int(np.isin(sites, UNKNOWN_SITES).sum())
    if over == "sites" and missing:
        raise UsageError(
            f"{missing} of {len(sites)} people have no site; add a site column to their table, or give --over=people."
        )
    count = len(np.unique(sites)) if folds == AUTO else int(folds)
    with argument_path("", folds="--folds"):
        return fold_sites(sites, count) if over == "sites" else fold_people(names.tolist(), count, seed)


def _run_fold(config, folder: Path, tested: np.ndarray, which: str, print_fn, progress) -> FoldOutcome:
    experiment = experiment_from_config(config, progress, test=tested, workdir=folder)
    data = experiment.federation
    names = np.unique([row["participant_id"] for row in data.people])
    people = [data.people[row] for row in data.test]
    if {row["participant_id"] for row in people} != set(names[tested]):
        raise UsageError(f"{folder} tests other people than this fold; give the folds it has, or another --workdir.")
    run_experiment(experiment, folder, print_fn)
    server = load_run(folder, chosen_round(folder, which))[2]
    targets = data.targets[data.test]
    return FoldOutcome(
        folder.name,
        people,
        targets,
        predict_test(make_runner(experiment), server.params),
        experiment.task.baseline(data.train_targets, targets),
        age_bias_of_round(folder, int(server.round)),
        data.class_names,
    )


def out_of_fold_table(outcomes: list[FoldOutcome], task: Task) -> str:
    """The predictions of all folds as TSV, with the fold in the column ``set``."""
    corrected = all(one.age_bias for one in outcomes)
    tables = [
        predictions_table(
            *(one.people, one.targets, one.predictions, task, one.class_names, [one.name] * len(one.people)),
            bias=one.age_bias if corrected else None,
        ).splitlines(keepends=True)
        for one in outcomes
    ]
    return "".join([*tables[0], *(line for table in tables[1:] for line in table[1:])])


def summary(outcomes: list[FoldOutcome], task: Task, over: str = "people") -> str:
    """Measures of each fold, their mean over the folds and those of all people together, as Markdown.

    The mean has an interval of Student's t over the folds, all together one of a bootstrap over people.
    """
    each = [task.measure(one.predictions, one.targets) for one in outcomes]
    names = [name for name in MEASURE_LABELS if name in each[0]]
    targets = np.concatenate([one.targets for one in outcomes])
    predictions = np.concatenate([one.predictions for one in outcomes])
    people = [row for one in outcomes for row in one.people]
    who = [row["participant_id"] for row in people]
    pooled = lambda predicted: [len(who), *_with_intervals(task, predicted, targets, who, names), ""]
    naive, in_digits = [one.baseline for one in outcomes], f".{task.digits}f"
    rows: list[list] = [
        [
            f"{one.name} ({', '.join(one.sites)})" if over == "sites" else one.name,
            len(one.people),
            *(formatted(measures[name], MEASURE_LABELS[name][1]) for name in names),
            f"{one.baseline:{in_digits}}",
        ]
        for one, measures in zip(outcomes, each, strict=True)
    ]
    rows.append(["mean", "", *(_mean(name, each) for name in names), f"{np.mean(naive):{in_digits}}"])
    rows.append(["all together", *pooled(predictions)])
    lines = [one.age_bias for one in outcomes if one.age_bias]
    if len(lines) == len(outcomes):
        fixed = [
            correct_age_bias(line, one.predictions, one.targets) for line, one in zip(lines, outcomes, strict=True)
        ]
        rows.append(["corrected for the age bias", *pooled(np.concatenate(fixed))])
    unit = f" ({task.unit.strip()})" if task.unit else ""
    labels = [MEASURE_LABELS[name][0] + (unit if MEASURE_LABELS[name][2] else "") for name in names]
    table = markdown_table(["fold", "scans", *labels, f"{task.label} of {task.naive}"], rows)
    judged = judge_sites(task, [predictions], targets, [row["site"] for row in people])
    return table + (f"\nBy site: {sites_line(judged, task)}\n" if judged else "")


def _mean(name: str, each: list[dict[str, float]]) -> str:
    """Over the folds in which a measure is defined."""
    values, (_, form, _) = [one[name] for one in each if np.isfinite(one[name])], MEASURE_LABELS[name]
    return mean_with_interval(values, int(form[-2]), "+" if "+" in form else "") if values else "–"


def _with_intervals(task: Task, predictions, targets, people, names: list[str]) -> list[str]:
    measures = task.measure(predictions, targets)
    intervals = bootstrap_measures(task.measure, predictions, targets, people)
    shown = lambda value, name: formatted(value, MEASURE_LABELS[name][1])
    return [
        f"{shown(measures[name], name)} ({' to '.join(shown(end, name) for end in intervals[name])})" for name in names
    ]

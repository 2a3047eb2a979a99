"""What the measures of a study's runs say: errors by group of people, what the models look at, and which weights stay.

The tables stand behind the main one. A measure that a study did not ask for has no table.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.tasks import Task
from fedsparse_jax.runs.records import RoundRecord
from fedsparse_jax.runs.series import headline_series
from fedsparse_jax.studies.grid import Run
from fedsparse_jax.studies.grid_tables import Row, excess_over_all
from fedsparse_jax.studies.intervals import mean_with_interval
from fedsparse_jax.studies.run_measures import mask_of_text

SCANS_OF_A_COLUMN = 5  # scans of a group in every run, for it to have a column


class NamedTable(NamedTuple):
    """A table with the sentence that says how to read it."""

    title: str
    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def measure_tables(rows: Sequence[Row], task: Task) -> list[NamedTable]:
    """The tables of the measures that the runs have."""
    found = [
        _over_all(rows, task),
        _of_best_rounds(rows, task),
        _of_simple_predictors(rows, task),
        *(_of_groups(rows, task, kind) for kind in ("decade", "sex")),
    ]
    found += [_of_sites(rows, task), _of_the_phantom(rows), _of_votes(rows), _of_masks(rows)]
    return [table for table in found if table.rows]


def _table(title: str, about: str, rows: Sequence[tuple[Row, Mapping[str, str]]]) -> NamedTable:
    """Rows of cells by column, behind the labels of their cell; rows without any cell are left out."""
    lines = [{**row.cell.labels, **cells} for row, cells in rows if cells]
    head = list(dict.fromkeys(key for line in lines for key in line))
    return NamedTable(title, about, head, [[line.get(key, "–") for key in head] for line in lines])


def _over_all(rows: Sequence[Row], task: Task) -> NamedTable:
    """Differences to the reference, on average over the first axis of the study."""
    axis = next((axis for row in rows for axis in row.cell.labels), "cell")
    lines = [{**labels, "seeds": str(seeds), **more.as_cells()} for labels, seeds, more in excess_over_all(rows, task)]
    about = (
        f"The mean over every {axis} of a seed's differences to the reference, then mean and interval over the seeds. "
        "Seeds that miss somewhere are left out."
    )
    head = list(lines[0]) if lines else []
    return NamedTable(f"Over every {axis}", about, head, [list(line.values()) for line in lines])


def _of_best_rounds(rows: Sequence[Row], task: Task) -> NamedTable:
    """Whether a model was better before the end: overfitting, which the last round's error does not tell."""
    best, scale = (np.nanargmin, 1) if task.lower_is_better else (np.nanargmax, 100)
    cells = []
    for row in rows:
        found = []
        for run in row.runs:
            final = [record for record in run.records if record.sparsity == run.records[-1].sparsity]
            measured = scale * headline_series(final, task)
            if len(final) > 1 and not np.isnan(measured).all():
                where = int(best(measured))
                found.append((final[0].round, final[where].round, measured[where], measured[-1], final[-1].train_loss))
        if not found:
            continue
        began, at, lowest, last, loss = np.array(found, float).T
        digits = task.digits if task.lower_is_better else 1
        line = {
            "final sparsity from round": f"{began.mean():.1f}",
            f"best test {task.label} from there on": mean_with_interval(lowest, digits),
            "in round": f"{at.mean():.1f}",
            "in the last round": mean_with_interval(last, digits),
            "training loss there": f"{loss.mean():.1f}",
        }
        cells.append((row, line))
    about = (
        "The best of the rounds at the final sparsity, on the test set itself. It is no result, since nobody may choose"
        " a round by it, but where it is far better than the last round's, the model has overfitted since."
    )
    return _table("Before the last round", about, cells)


def _of_votes(rows: Sequence[Row]) -> NamedTable:
    """How far the clients of a round agree on the mask, where they change it themselves."""
    lines = []
    for row in rows:
        voted = ([one for one in run.records if one.vote_margin is not None] for run in row.runs)
        disputed = [[one for one in records if one.agreement < 1] for records in voted]
        if found := [records for records in disputed if records]:
            lines.append((row, _votes_of_runs(found)))
    about = (
        "Rounds in which clients sent different masks, and means over these rounds. The overlap is the Jaccard index "
        "of the masks over all pairs of clients. The vote margin is the share of votes on one side less that on the "
        "other, over the weights that somebody keeps."
    )
    return _table("How clients vote", about, lines)


def _votes_of_runs(disputed: Sequence[Sequence[RoundRecord]]) -> dict[str, str]:
    """The cells of a row, of the rounds of each run in which clients disagreed."""
    by_run = lambda key: [[getattr(one, key) for one in records] for records in disputed]
    rounds, overlaps, margins = map(by_run, ("round", "agreement", "vote_margin"))
    return {
        "disputed from round": f"{np.mean([each[0] for each in rounds]):.1f}",
        "to round": f"{np.mean([each[-1] for each in rounds]):.1f}",
        "overlap": mean_with_interval([np.mean(each) for each in overlaps], 3),
        "vote margin": mean_with_interval([np.mean(each) for each in margins], 3),
        "lowest margin": mean_with_interval([min(each) for each in margins], 3),
    }


def _of_simple_predictors(rows: Sequence[Row], task: Task) -> NamedTable:
    """What simple predictors reach on the same test sets, a row for each environment."""
    by_axis: dict[str, dict[int, Run]] = {}
    for row in rows:
        axis = row.cell.three_labels[0]
        by_axis.setdefault(axis, {}).update({run.seed: run for run in row.runs if run.measures.get("simple")})
    lines = []
    for axis, runs in by_axis.items():
        found = [run.measures["simple"] for run in runs.values()]
        for name in dict.fromkeys(name for one in found for name in one):
            values = lambda key: np.array([one[name][key] for one in found])  # noqa: B023
            measured = (("MAE", "mae", task.digits), ("RMSE", "rmse", task.digits), ("r", "r", 2), ("R2", "r2", 2))
            cells = {title: mean_with_interval(values(key), digits) for title, key, digits in measured}
            lines.append([axis or "all", name, *cells.values()])
    about = (
        "Ridge is a linear regression on the voxels of all clients together. The true brain age is what the phantom "
        "made the scan of; no image tells more."
    )
    return NamedTable("Simple predictors", about, ["cells", "predictor", "MAE", "RMSE", "r", "R2"], lines)


def _of_groups(rows: Sequence[Row], task: Task, kind: str) -> NamedTable:
    """The error of each group of people, and how much worse than the reference it is, paired by seed."""
    groups_of = lambda run: run.measures.get("errors", {}).get(kind, {})
    everywhere = [groups_of(run) for row in rows for run in row.runs if groups_of(run)]
    names = sorted({name for one in everywhere for name in one})
    named = [name for name in names if all(one.get(name, {"n": 0})["n"] >= SCANS_OF_A_COLUMN for one in everywhere)]
    cells = []
    for row in rows:
        by_seed = {run.seed: groups_of(run) for run in row.runs if groups_of(run)}
        compared = {run.seed: groups_of(run) for run in row.reference if groups_of(run)}
        shared = sorted(by_seed.keys() & compared.keys())
        line = {}
        for name in named if by_seed else ():
            line[name] = mean_with_interval(np.array([one[name]["mae"] for one in by_seed.values()]), task.digits)
            if len(shared) > 1 and row.cell.labels != row.reference_labels:
                worse = np.array([by_seed[seed][name]["mae"] - compared[seed][name]["mae"] for seed in shared])
                signed = mean_with_interval(worse, task.digits, "+")
                line[name] += f" ({signed})"
        cells.append((row, line))
    about = (
        f"Mean absolute error{task.unit and f' ({task.unit.strip()})'} by {kind} with its 95 % interval over the "
        "seeds; in brackets how much more than the reference, paired by seed."
    )
    return _table(f"Error by {kind}", about, cells)


def _of_sites(rows: Sequence[Row], task: Task) -> NamedTable:
    """The error at the median and the worst site of the test set."""
    cells = []
    for row in rows:
        judged = [run.records[-1].sites.get("test", {}).get(task.headline) for run in row.runs]
        spread = [one for one in judged if one]
        if not task.lower_is_better or not spread:
            continue
        line = {
            name: mean_with_interval(np.array([one[key] for one in spread]), task.digits)
            for name, key in (("best site", "min"), ("median site", "median"), ("worst site", "max"))
        }
        cells.append((row, line))
    return _table("Error by site", f"{task.label} of the sites of the test set, the mean over the seeds.", cells)


def _of_the_phantom(rows: Sequence[Row]) -> NamedTable:
    """What only a phantom can tell: whether the model looks where age shows, and finds the true gap."""
    cells = []
    for row in rows:
        line = {}
        for name, key, title in (
            ("saliency", "spearman", "saliency and age signal (rank correlation)"),
            ("gap", "r", "predicted and true gap (r)"),
        ):
            values = [run.measures[name][key] for run in row.runs if run.measures.get(name)]
            if values:
                line[title] = mean_with_interval(np.array(values), 2)
        cells.append((row, line))
    about = (
        "Saliency is the prediction's absolute gradient by voxel, the age signal the phantom's own change a year. The "
        "line of the gap over age is taken off before the gaps are compared."
    )
    return _table("What the models look at", about, cells)


def _of_masks(rows: Sequence[Row]) -> NamedTable:
    """How much of the kept weights two models share."""
    cells, decoded = [], [_masks(row.runs) for row in rows]
    for row, masks in zip(rows, decoded, strict=True):
        if not masks or all(run.records[-1].sparsity == 0 for run in row.runs):
            continue
        density = np.mean([1 - run.records[-1].sparsity for run in row.runs])
        line = {"by chance": f"{density / (2 - density):.3f}"}
        if len(masks) > 1:
            overlaps = [jaccard(*pair) for pair in itertools.combinations(masks.values(), 2)]
            line["between seeds"] = f"{np.mean(overlaps):.3f}"
        for other, theirs in zip(rows, decoded, strict=True):
            if other is row or other.cell.three_labels[1:] != row.cell.three_labels[1:]:
                continue
            shared = [jaccard(masks[seed], theirs[seed]) for seed in masks.keys() & theirs.keys()]
            if shared:
                line[f"with {other.cell.three_labels[0]}"] = f"{np.mean(shared):.3f}"
        cells.append((row, line))
    about = (
        "Jaccard overlap of the final masks. Models of one seed begin with the same weights. Those of two seeds do "
        "not, and their channels stand in another order. By chance is the overlap of two random masks of that density."
    )
    return _table("Agreement of masks", about, cells)


def _masks(runs: Sequence[Run]) -> dict[int, np.ndarray]:
    """The final mask of each seed, ``bool[W]``."""
    return {run.seed: mask_of_text(run.measures["mask"]["bits"]) for run in runs if run.measures.get("mask")}


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Kept in both over kept in either, of two masks ``bool[W]``."""
    return float((a & b).sum() / (a | b).sum())

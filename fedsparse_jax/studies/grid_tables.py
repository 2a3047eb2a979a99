"""What a grid of runs says: means with intervals, and whether a cell is worse than the one it is compared with.

Differences are paired by seed, since the cells of a seed share its split, its initial weights and its batches. A cell
is *not inferior* at a margin where a one-sided t test of the paired differences refuses, at 5 %, that it is worse than
its reference by that share or more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fedsparse_jax.core.tasks import Task
from fedsparse_jax.runs.records import RoundRecord
from fedsparse_jax.runs.series import as_number, exchanged, headline_series, params_exchanged
from fedsparse_jax.studies.grid import GridCell, Run, Study
from fedsparse_jax.studies.intervals import half_width, mean_with_interval

MARGINS = (0.02, 0.05)  # shares of the reference's measure
LEVEL = 0.05  # of the tests


class Row(NamedTuple):
    """A cell: its runs, and those of the cell it is compared with."""

    cell: GridCell
    runs: Sequence[Run]  # finished ones, by seed
    reference: Sequence[Run]  # finished ones; empty where there is no such cell
    failed: Sequence[Run] = ()
    reference_labels: Mapping[str, str] | None = None

    def values(self, measure: str) -> np.ndarray:
        """A measure on the test set after the last round, ``f64[S]`` by seed."""
        return _last_values(self.runs, measure)

    def worse(self, task: Task) -> dict[int, float]:
        """How much worse than its reference, by the seeds that both have finished, as a share of the reference's mean.

        The mean is over the same seeds. Negative where the cell is better.
        """
        shared = sorted({run.seed for run in self.runs} & {run.seed for run in self.reference})
        own, reference = (
            _last_values([run for seed in shared for run in runs if run.seed == seed], task.headline)
            for runs in (self.runs, self.reference)
        )
        more = own - reference if task.lower_is_better else reference - own
        return dict(zip(shared, more / reference.mean(), strict=True)) if shared else {}


class Excess(NamedTuple):
    """How much worse a cell is than its reference, as a share of the reference's mean; negative where it is better."""

    mean: float
    half: float  # of the 95 % interval
    chances: Mapping[float, float]  # by margin: the p-value of being as much worse as that

    def is_fine(self, margin: float) -> bool:
        """Whether the cell is not inferior at that margin."""
        return self.chances[margin] < LEVEL

    def as_cells(self) -> dict[str, str]:
        """Cells of a table, by column."""
        verdicts = {
            f"within {100 * margin:.0f} %": f"{'yes' if self.is_fine(margin) else 'no'} (p {chance:.3f})"
            for margin, chance in self.chances.items()
        }
        return {"worse than the reference (%)": f"{100 * self.mean:+.1f} ± {100 * self.half:.1f}", **verdicts}


def rows_of(study: Study, runs: Sequence[Run]) -> list[Row]:
    """The cells in order; the reference of a cell has its labels, but for those of ``study.reference``."""
    of = lambda cell: [run for run in runs if run.cell.labels == cell.labels]
    finished = lambda cell: [run for run in of(cell) if not run.failure]
    rows = []
    for cell in study.cells:
        labels = {**cell.labels, **study.reference}
        reference = next((other for other in study.cells if other.labels == labels), None)
        compared = finished(reference) if reference and study.reference else []
        rows.append(Row(cell, finished(cell), compared, [run for run in of(cell) if run.failure], labels))
    return rows


def excess(row: Row, task: Task) -> Excess | None:
    """How much worse a cell is than its reference, paired by seed; None with fewer than two pairs."""
    return _excess(list(row.worse(task).values()))


def _excess(shares: Sequence[float]) -> Excess | None:
    if len(shares) < 2:
        return None
    worse = np.asarray(shares)
    return Excess(float(worse.mean()), half_width(worse), {margin: _chance(worse, margin) for margin in MARGINS})


def excess_over_all(rows: Sequence[Row], task: Task) -> list[tuple[dict[str, str], int, Excess]]:
    """How much worse methods are on average over the first axis of a study, such as its environments.

    A seed's value is the mean of its differences in the cells that share all labels but the first; seeds that miss in
    one of them do not count. Seeds, not cells, are the repeats of the test, since the cells of a seed share their data.

    Returns:
        Labels without the first, number of seeds, and the excess; nothing for methods with a single cell.
    """
    alike: dict[tuple[tuple[str, str], ...], list[dict[int, float]]] = {}
    for row in rows:
        if row.reference and row.cell.labels != row.reference_labels:
            alike.setdefault(tuple(row.cell.labels.items())[1:], []).append(row.worse(task))
    found = []
    for labels, cells in alike.items():
        shared = set.intersection(*(set(cell) for cell in cells))
        shares = [float(np.mean([cell[seed] for cell in cells])) for seed in sorted(shared)]
        if len(cells) > 1 and (more := _excess(shares)):
            found.append((dict(labels), len(shares), more))
    return found


def _chance(worse: np.ndarray, margin: float) -> float:
    """The p-value of ``mean(worse) >= margin``, one-sided."""
    if np.ptp(worse) == 0:
        return float(worse[0] >= margin)
    return float(stats.ttest_1samp(worse, margin, alternative="less").pvalue)


def study_rows(rows: Sequence[Row], task: Task) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of a study, as text without a markup."""
    cells = [_cells(row, task) for row in rows]
    head = list(dict.fromkeys(key for one in cells for key in one))
    return head, [[one.get(key, "–") for key in head] for one in cells]


def _cells(row: Row, task: Task) -> dict[str, str]:
    cells = {**row.cell.labels, "seeds": str(len(row.runs))}
    if row.failed:
        cells["failed"] = f"{len(row.failed)}: {row.failed[0].failure}"
    if not row.runs:
        return cells
    last = [run.records[-1] for run in row.runs]
    cells["sparsity reached"] = f"{np.mean([record.sparsity for record in last]):.3f}"
    scale, digits = (1, task.digits) if task.lower_is_better else (100, 1)
    unit = (task.unit.strip() or "") if task.lower_is_better else "%"
    cells[f"test {task.label}" + (f" ({unit})" if unit else "")] = mean_with_interval(
        scale * row.values(task.headline), digits
    )
    cells[task.naive] = f"{scale * np.mean([record.baseline for record in last]):.{digits}f}"
    if task.lower_is_better:
        for measure, name in (("rmse", "RMSE"), ("r", "r"), ("r2", "R2")):
            cells[name] = mean_with_interval(row.values(measure), 2)
    else:
        for measure, name in (("balanced_accuracy", "balanced accuracy (%)"), ("auc", "AUC (%)")):
            cells[name] = mean_with_interval(100 * row.values(measure), 1)
    if not task.lower_is_better and all(task.headline in record.own for record in last):
        cells["on own classes (%)"] = f"{np.mean([100 * record.own[task.headline] for record in last]):.1f}"
    if row.cell.labels == row.reference_labels:
        cells["worse than the reference (%)"] = "reference"
    elif more := excess(row, task):
        cells |= more.as_cells()
    return cells | _exchanged_cells(row, task)


def _exchanged_cells(row: Row, task: Task) -> dict[str, str]:
    """What crossed the network in all rounds and, in bytes, until the reference's last measure was reached."""
    totals = [exchanged(run.records) for run in row.runs]
    if any(unit == "weights" for _, unit in totals):
        return {"weights exchanged": f"{np.mean([params_exchanged(run.records)[-1] for run in row.runs]) / 1e6:.2f} M"}
    cells = {"MB exchanged": f"{np.mean([sent[-1] for sent, _ in totals]) / 1e6:.2f}"}
    wanted = {run.seed: as_number(run.records[-1].test[task.headline]) for run in row.reference}
    reached, asked = [], [run for run in row.runs if run.seed in wanted]
    for run in asked:
        measured, sent = headline_series(run.records, task), exchanged(run.records)[0] / 1e6
        good = measured <= wanted[run.seed] if task.lower_is_better else measured >= wanted[run.seed]
        reached += [sent[good.argmax()]] if good.any() else []
    if asked:
        all_reached = len(reached) == len(asked)
        when = f"{np.mean(reached):.2f}" if all_reached else f"reached by {len(reached)} of {len(asked)}"
        cells[f"MB to the reference's {task.label}"] = when
    return cells


def runs_table(runs: Sequence[Run]) -> tuple[list[str], list[list[Any]]]:
    """Head and rows of every run: labels, seed, and all measures after the last round."""
    axes = list(dict.fromkeys(axis for run in runs for axis in run.cell.labels))
    measures = sorted({name for run in runs if run.records for name in run.records[-1].test})
    head = [*axes, "seed", "rounds", "sparsity", *measures, "baseline", "bytes", "failure"]
    rows = []
    for run in runs:
        row: list[Any] = [*(run.cell.labels.get(axis, "") for axis in axes), run.seed]
        if run.records:
            last = run.records[-1]
            sent, unit = exchanged(run.records)
            row += [last.round, f"{last.sparsity:.6f}", *(_cell(last.test.get(name)) for name in measures)]
            row += [_cell(last.baseline), int(sent[-1]) if unit == "bytes" else ""]
        rows.append([*row, *[""] * (len(head) - 1 - len(row)), run.failure])
    return head, rows


def _cell(value: float | None) -> str:
    number = as_number(value)
    return f"{number:.5f}" if np.isfinite(number) else ""


def latex_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for LaTeX with the package booktabs."""
    escape = lambda text: "".join({"±": r"$\pm$", "–": "--"}.get(c, f"\\{c}" if c in "%&_#$" else c) for c in text)
    line = lambda cells: " & ".join(escape(str(cell)) for cell in cells) + r" \\"
    body = [r"\toprule", line(head), r"\midrule", *map(line, rows), r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{'l' * len(head)}}}", *body, r"\end{tabular}", ""])


def mean_over_seeds(runs: Sequence[Run], task: Task) -> list[RoundRecord]:
    """The mean over the seeds of what a picture shows, round by round, as far as all of them were trained."""
    mean = lambda same, get: float(np.mean([as_number(get(record)) for record in same]))
    return [
        RoundRecord(
            round=same[0].round,
            test={task.headline: mean(same, lambda r: r.test.get(task.headline))},
            baseline=mean(same, lambda r: r.baseline),
            params_up_total=mean(same, lambda r: r.params_up_total),
            params_down_total=mean(same, lambda r: r.params_down_total),
            bytes_up_total=mean(same, lambda r: r.bytes_up_total),
            bytes_down_total=mean(same, lambda r: r.bytes_down_total),
            density={leaf: mean(same, lambda r: r.density[leaf]) for leaf in same[0].density},  # noqa: B023
        )
        for same in zip(*(run.records for run in runs), strict=False)  # a run may have ended early
    ]


def _last_values(runs: Sequence[Run], measure: str) -> np.ndarray:
    return np.array([as_number(run.records[-1].test.get(measure)) for run in runs])

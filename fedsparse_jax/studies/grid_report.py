"""The files that a study leaves: tables as Markdown, CSV and LaTeX, figures as PNG and PDF, and one HTML page."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import write_whole
from fedsparse_jax.core.tasks import Task
from fedsparse_jax.reporting.html import Section, Table, Text, render_page
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.reporting.plots_grid import DensityPanel, Panel, Point, density_by_round, measure_by_level
from fedsparse_jax.reporting.plots_run import compare_runs
from fedsparse_jax.reporting.style import render_figure
from fedsparse_jax.studies import grid_measures, grid_tables
from fedsparse_jax.studies.grid import Run, Study, task_of_study
from fedsparse_jax.studies.grid_measures import NamedTable
from fedsparse_jax.studies.grid_tables import Row
from fedsparse_jax.studies.intervals import half_width
from fedsparse_jax.studies.kept_runs import KEPT, write_kept

CURVES = 8  # cells in one picture of curves, at most
PANELS = 9  # cells in the picture of densities, at most


def write_study(study: Study, runs: Sequence[Run], workdir: Path) -> str:
    """Writes ``study.md``, ``.csv``, ``.tex``, ``.png``, ``.pdf``, ``.html``, ``runs.csv`` and ``runs.jsonl.gz``.

    Returns:
        The table of the cells, as Markdown; ``study.md`` has those of the measures behind it.

    Raises:
        UsageError: no run is finished.
    """
    rows, task = grid_tables.rows_of(study, runs), task_of_study(study)
    if not any(row.runs for row in rows):
        raise UsageError("No run of the study is finished; mend what the lines above say, and start it again.")
    head, cells = grid_tables.study_rows(rows, task)
    table = markdown_table(head, cells)
    measured = grid_measures.measure_tables(rows, task)
    write_whole(workdir / "study.md", _markdown(table, measured, runs))
    write_kept(workdir / KEPT, [run for run in runs if not run.failure])
    write_whole(workdir / "study.csv", _csv(head, cells))
    write_whole(workdir / "runs.csv", _csv(*grid_tables.runs_table(runs)))
    write_whole(workdir / "study.tex", grid_tables.latex_table(head, cells))
    figure = measure_by_level(panels_of(rows, task), task)
    for kind in ("png", "pdf"):
        write_whole(workdir / f"study.{kind}", render_figure(figure, kind))
    write_whole(workdir / "study.html", _page(study, rows, task, measured))
    return table


def panels_of(rows: Sequence[Row], task: Task) -> list[Panel]:
    """The cells by their first label (a panel), the last one (a place on the axis), and those between (a line)."""
    panels: dict[str, dict[str, list[Point]]] = {}
    baselines: dict[str, list[float]] = {}
    for row in rows:
        if not row.runs:
            continue
        first, *between, last = row.cell.three_labels
        values = row.values(task.headline)
        lines = panels.setdefault(first, {})
        lines.setdefault(", ".join(between), []).append(Point(last, float(values.mean()), half_width(values)))
        baselines.setdefault(first, []).extend(run.records[-1].baseline for run in row.runs)
    return [Panel(title, lines, float(np.mean(baselines[title]))) for title, lines in panels.items()]


def _markdown(table: str, measured: Sequence[NamedTable], runs: Sequence[Run]) -> str:
    parts = [table, *(f"{made_on}\n" for made_on in origins(runs))]
    parts += [f"## {one.title}\n\n{one.about}\n\n{markdown_table(one.head, one.rows)}" for one in measured]
    return "\n".join(parts)


def origins(runs: Sequence[Run]) -> list[str]:
    """Which runs were made when, on which processor and with which versions, a sentence each."""
    made: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        if not run.environment:
            continue
        versions = run.environment["versions"]
        told = ", ".join(f"{name} {versions[name]}" for name in ("fedsparse_jax", "jax", "flax", "numpy"))
        place = (run.environment.get("processor", "an unnamed processor"), told)
        made.setdefault(place, []).append(run.environment["started"][:10])
    between = lambda days: min(days) if min(days) == max(days) else f"{min(days)} to {max(days)}"
    return [
        f"{len(days)} runs: {between(days)}, on {processor}; {versions}."
        for (processor, versions), days in sorted(made.items())
    ]


def _page(study: Study, rows: Sequence[Row], task: Task, measured: Sequence[NamedTable]) -> str:
    sections = []
    finished = sum(len(row.runs) for row in rows)
    failed = [run for row in rows for run in row.failed]
    for title, some in _by_first_label(rows).items():
        head, cells = grid_tables.study_rows(some, task)
        curves = [
            (", ".join(row.cell.labels.values()), grid_tables.mean_over_seeds(row.runs, task))
            for row in some
            if row.runs
        ]
        figures = {}
        if panels := panels_of(some, task):
            figures["levels"] = (measure_by_level(panels, task), "Mean over the seeds with its 95 % interval.")
        for i in range(0, len(curves), CURVES):
            drawn = compare_runs(curves[i : i + CURVES], task)
            figures[f"curves-{i}"] = (drawn, "Mean over the seeds, by round and by what was exchanged.")
        sections.append(Section(title or "All cells", [Table(head, cells)], figures))
    if densities := [panel for row in rows if (panel := _density_panel(row, task))]:
        drawn = density_by_round(densities[:PANELS])
        about = "Share of the weights of each kernel that the model keeps, the mean over the seeds."
        sections.append(Section("Density by layer", [], {"density": (drawn, about)}))
    for one in measured:
        sections.append(Section(one.title, [Text(one.about, "note"), Table(one.head, one.rows)]))
    if made := origins([run for row in rows for run in row.runs]):
        sections.append(Section("Where the runs were made", [Text(line, "note") for line in made]))
    if failed:
        told = [Text(f"{run.folder.name}: {run.failure}", "warning") for run in failed]
        sections.insert(0, Section("Runs that failed", told))
    tiles = [("runs", str(finished), f"{len(failed)} failed"), ("cells", str(len(rows)), "")]
    return render_page(study.title, tiles, sections)


def _density_panel(row: Row, task: Task) -> DensityPanel | None:
    """The kernels of a cell that is pruned, the mean over its seeds; None of one that is not."""
    if all(run.records[-1].sparsity == 0 for run in row.runs):
        return None
    records = grid_tables.mean_over_seeds(row.runs, task)
    kernels = [name for name in records[-1].density if name.endswith("kernel")]
    kept = {name: [record.density[name] for record in records] for name in kernels}
    first, *others = row.cell.labels.values()
    return DensityPanel(f"{first}\n{', '.join(others)}", [record.round for record in records], kept)


def _by_first_label(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.cell.three_labels[0], []).append(row)
    return groups


def _csv(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([list(head), *map(list, rows)])
    return buffer.getvalue()

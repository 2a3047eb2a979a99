"""Several configs over several seeds, and one table: the evidence behind every number in the docs.

Each pair of config and seed is an ordinary run in a folder of its own, so that a comparison that was stopped
goes on where it was.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedsparse_jax.config.build import experiment_from_config, load_config
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.tasks import AGE, TASKS, Task, task_for
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.reporting.plots_run import compare_runs
from fedsparse_jax.reporting.style import render_figure
from fedsparse_jax.runs.loop import run_experiment
from fedsparse_jax.runs.records import RoundRecord
from fedsparse_jax.runs.series import as_number, exchanged, headline_series, params_exchanged
from fedsparse_jax.studies.intervals import mean_with_interval

Results = dict[str, list[list[RoundRecord]]]  # for each config, for each seed, the records of its rounds


def expand_lists(specs: list[str]) -> list[str]:
    """The specs, with every ``@file`` replaced by its lines; what follows a ``#`` is a remark.

    Raises:
        UsageError: there is no such file.
    """
    expanded = []
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


def run_comparison(
    specs: list[str], seeds: list[int], workdir: Path, print_fn: Callable[[str], None] = print
) -> Results:
    """Runs every config with every seed, each in a folder of its own under ``workdir``."""
    results: Results = {spec: [] for spec in specs}
    for seed in seeds:
        for spec in specs:
            config = load_config(spec)
            config.seed = seed
            path, _, forms = spec.partition(":")
            name = f"{Path(path).stem}-{forms or 'default'}-seed{seed}"
            print_fn(f"{spec}, seed {seed}")
            folder = workdir / name
            results[spec].append(run_experiment(experiment_from_config(config, workdir=folder), folder, print_fn))
    return results


def comparison_figure(results: Results) -> bytes:
    """The headline measure by round and by weights exchanged, the mean over the seeds, as PNG."""
    task = task_of(results)
    runs = [(str(load_config(spec).method), mean_over_seeds(runs, task)) for spec, runs in results.items()]
    return render_figure(compare_runs(runs, task), "png")


def task_of(results: Results) -> Task:
    """What the runs measured.

    Raises:
        UsageError: some measured one thing, some another.
    """
    last = [records[-1] for runs in results.values() for records in runs]
    for name, task in TASKS.items():
        measured = [task.headline in record.test for record in last]
        if all(measured):
            return task_for(name, *_label_of(results))
        if any(measured):
            break
    raise UsageError("--configs holds regressions and classifications; compare them apart.")


def _label_of(results: Results) -> tuple[str, str]:
    """The column that all configs predict, and its unit; the age where records came without their config's file."""
    data = [load_config(spec).data for spec in results if Path(spec.partition(":")[0]).is_file()]
    labels = sorted({(one.label, one.unit) for one in data})
    if len(labels) > 1:
        names = " and ".join(name for name, _ in labels)
        raise UsageError(f"--configs predict different labels ({names}); compare them apart.")
    return labels[0] if labels else (AGE, "")


def mean_over_seeds(runs: list[list[RoundRecord]], task: Task) -> list[RoundRecord]:
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
        )
        for same in zip(*runs, strict=False)  # a run may have ended early
    ]


def comparison_table(results: Results) -> str:
    """Means over the seeds at the last round with their 95 % intervals, one row a config, as Markdown."""
    task = task_of(results)
    first = np.array([records[-1].test[task.headline] for records in next(iter(results.values()))], float)
    rows = [_row(spec, runs, first, task) for spec, runs in results.items()]
    return markdown_table(rows[0], [row.values() for row in rows])


def _row(spec: str, runs: list[list[RoundRecord]], first: np.ndarray, task: Task) -> dict[str, str]:
    """One config's cells by heading; ``first`` is the headline measure of the first row, seed by seed."""
    last = [records[-1] for records in runs]
    values = np.array([record.test[task.headline] for record in last], float)
    row = {
        "config": f"`{spec}`",
        "seeds": str(len(last)),
        "sparsity": f"{np.mean([record.sparsity for record in last]):.3f}",
    }
    if task.lower_is_better:
        baseline = np.mean([record.baseline for record in last])
        unit = f" ({task.unit.strip()})" if task.unit else ""
        row[f"test {task.label}{unit}"] = mean_with_interval(values, task.digits)
        row[f"below {task.naive}"] = f"{1 - values.mean() / baseline:.1%} of {baseline:.2f}"
        row["against the first row"] = f"{values.mean() / np.mean(first) - 1:+.1%}"
    else:
        own = [100 * record.own[task.headline] for record in last]
        row[f"test {task.label} (%)"] = mean_with_interval(100 * values, 1)
        row["on own classes (%)"] = f"{np.mean(own):.1f}"
        row["against the first row (points)"] = mean_with_interval(100 * (values - first), 1, "+")
    return row | _exchanged_cells(runs, first, task)


def _exchanged_cells(runs: list[list[RoundRecord]], first: np.ndarray, task: Task) -> dict[str, str]:
    """What crossed the network in all rounds and, in bytes, until the first row's last measure was reached."""
    totals = [exchanged(records) for records in runs]
    if any(unit == "weights" for _, unit in totals):
        return {"weights exchanged": f"{np.mean([params_exchanged(r)[-1] for r in runs]) / 1e6:.2f} M"}
    reached = []
    for records, wanted, (sent, _) in zip(runs, first, totals, strict=True):
        measured = headline_series(records, task)
        good = measured <= wanted if task.lower_is_better else measured >= wanted
        reached += [sent[good.argmax()] / 1e6] if good.any() else []
    all_reached = len(reached) == len(runs)
    when = f"{np.mean(reached):.2f}" if all_reached else f"reached by {len(reached)} of {len(runs)}"
    return {
        "MB exchanged": f"{np.mean([sent[-1] for sent, _ in totals]) / 1e6:.2f}",
        f"MB to the first row's {task.label}": when,
    }

"""Several configs over several seeds, and one table: the evidence behind every number in the docs.

Each pair of config and seed is an ordinary run in a folder of its own, so that a comparison that was stopped
goes on where it was.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.stats

from fedsparse_jax.config import build
from fedsparse_jax.core import tasks
from fedsparse_jax.core.types import UsageError
from fedsparse_jax.reporting import plots
from fedsparse_jax.runs import loop

Results = dict[str, list[list[dict]]]  # for each config, for each seed, the log of its rounds


def listed(specs: list[str]) -> list[str]:
    """The specs, with every ``@file`` replaced by its lines; what follows a ``#`` is a remark.

    Raises:
        UsageError: there is no such file.
    """
    found = []
    for spec in specs:
        if not spec.startswith("@"):
            found.append(spec)
            continue
        path = Path(spec[1:])
        if not path.is_file():
            raise UsageError(
                f"There is no list of configs {path}; write one spec a line, or give them by commas."
            )
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found += [line for line in lines if line]
    return found


def run(specs: list[str], seeds: list[int], workdir: Path, say: Callable[[str], None] = print) -> Results:
    """Runs every config with every seed, each in a folder of its own under ``workdir``."""
    results: Results = {spec: [] for spec in specs}
    for seed in seeds:
        for spec in specs:
            config = build.load(spec)
            config.seed = seed
            name = f"{Path(spec.partition(':')[0]).stem}-{spec.partition(':')[2] or 'default'}-seed{seed}"
            say(f"{spec}, seed {seed}")
            results[spec].append(loop.run(build.experiment(config), workdir / name, say))
    return results


def picture(results: Results) -> bytes:
    """The headline measure by round and by weights exchanged, the mean over the seeds, as PNG."""
    task = task_of(results)
    runs = [(str(build.load(spec).method), average(logs, task)) for spec, logs in results.items()]
    return plots.render(plots.compare_runs(runs, task), "png")


def task_of(results: Results) -> tasks.Task:
    """What the runs measured.

    Raises:
        UsageError: some measured one thing, some another.
    """
    last = [records[-1] for runs in results.values() for records in runs]
    for task in tasks.TASKS.values():
        measured = [f"test_{task.headline}" in record for record in last]
        if all(measured):
            return task
        if any(measured):
            break
    raise UsageError("--configs holds regressions and classifications; compare them apart.")


def average(logs: list[list[dict]], task: tasks.Task) -> list[dict]:
    """The mean over the seeds of what a picture shows, round by round."""
    totals = [f"{what}_{way}_total" for what in ("params", "bytes") for way in ("up", "down")]
    keys = ("round", f"test_{task.headline}", task.baseline_key, *totals)
    return [
        {key: float(np.mean([tasks.number(entry.get(key)) for entry in same])) for key in keys}
        for same in zip(*logs, strict=True)
    ]


def interval(values, digits: int, sign: str = "") -> str:
    """Mean and half the width of its 95 % interval (Student's t over the seeds), as text.

    >>> interval([1.0, 2.0, 3.0], 2), interval([1.0], 1)
    ('2.00 ± 2.48', '1.0')
    """
    values = np.asarray(values, float)
    text = f"{values.mean():{sign}.{digits}f}"
    if len(values) < 2:
        return text
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{text} ± {half:.{digits}f}"


def table(results: Results) -> str:
    """Means over the seeds at the last round with their 95 % intervals, one row a config, as Markdown."""
    task = task_of(results)
    first = [records[-1][f"test_{task.headline}"] for records in next(iter(results.values()))]
    cells = [_row(spec, runs, first, task) for spec, runs in results.items()]
    head = list(cells[0])
    rows = [head, ["---"] * len(head), *[list(row.values()) for row in cells]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _row(spec: str, runs: list[list[dict]], first: list[float], task: tasks.Task) -> dict[str, str]:
    """One config's cells by heading; ``first`` is the headline measure of the first row, seed by seed."""
    last = [records[-1] for records in runs]
    values = np.array([record[f"test_{task.headline}"] for record in last])
    row = {
        "config": f"`{spec}`",
        "seeds": str(len(last)),
        "sparsity": f"{np.mean([record['sparsity'] for record in last]):.3f}",
    }
    if task.lower_is_better:
        baseline = np.mean([record[task.baseline_key] for record in last])
        row[f"test {task.label}{f' ({task.unit.strip()})' if task.unit else ''}"] = interval(
            values, task.digits
        )
        row[f"below {task.naive}"] = f"{1 - values.mean() / baseline:.1%} of {baseline:.2f}"
        row["against the first row"] = f"{values.mean() / np.mean(first) - 1:+.1%}"
    else:
        own = [100 * record[f"own_{task.headline}"] for record in last]
        row[f"test {task.label} (%)"] = interval(100 * values, 1)
        row["on own classes (%)"] = f"{np.mean(own):.1f}"
        row["against the first row (points)"] = interval(100 * (values - first), 1, "+")
    row |= _exchanged(runs, first, task)
    return row


def _exchanged(runs: list[list[dict]], first: list[float], task: tasks.Task) -> dict[str, str]:
    """What crossed the network in all rounds and, in bytes, until the first row's last measure was reached."""
    totals = [tasks.traffic(records) for records in runs]
    if any(unit == "weights" for _, unit in totals):
        return {"weights exchanged": f"{np.mean([tasks.exchanged(r)[-1] for r in runs]) / 1e6:.2f} M"}
    reached = []
    for records, wanted, (sent, _) in zip(runs, first, totals, strict=True):
        measured = tasks.column(records, f"test_{task.headline}")
        there = measured <= wanted if task.lower_is_better else measured >= wanted
        reached += [sent[there.argmax()] / 1e6] if there.any() else []
    when = (
        f"{np.mean(reached):.2f}"
        if len(reached) == len(runs)
        else f"reached by {len(reached)} of {len(runs)}"
    )
    return {
        "MB exchanged": f"{np.mean([sent[-1] for sent, _ in totals]) / 1e6:.2f}",
        f"MB to the first row's {task.label}": when,
    }

"""Alternatives of the same work, timed in turn, so that a machine that slows down slows all of them."""

import atexit
import contextlib
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.studies.intervals import half_width

Alternatives = dict[str, Callable[[], object]]


class Timing(NamedTuple):
    """What an alternative that measures itself returns: its seconds, and columns for the table."""

    seconds: float
    columns: Mapping[str, Any]  # a function is given the median of the seconds


def compare(alternatives: Alternatives, repeats: int) -> list[dict]:
    """Times the alternatives in turn, after one call each to compile.

    Returns:
        One row each: ``name``, ``seconds`` (median), ``low`` and ``high``, ``first`` (with compilation), ``ratio``, the
        first alternative's median over this one's: above 1 is faster than the first; ``between``, the 95 % interval of
        the ratios turn by turn; and the columns of a `Timing`.
    """
    first = {name: _timed(work).seconds for name, work in alternatives.items()}
    rounds = [{name: _timed(work) for name, work in alternatives.items()} for _ in range(repeats)]
    seconds = {name: [one[name].seconds for one in rounds] for name in alternatives}
    of_first = next(iter(seconds.values()))
    reference = float(np.median(of_first))
    return [
        {
            "name": name,
            "seconds": float(np.median(seconds[name])),
            "low": min(seconds[name]),
            "high": max(seconds[name]),
            "first": first[name],
            "ratio": reference / float(np.median(seconds[name])),
            "between": ratio_interval(of_first, seconds[name]),
            **_told(rounds[-1][name].columns, float(np.median(seconds[name]))),
        }
        for name in alternatives
    ]


def ratio_interval(of_first: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of how many times as fast as the first an alternative is, of times paired by turn.

    It is that of the mean of the ratios' logarithms (Student's t): twice and half as fast are equally far from 1.

    >>> ratio_interval([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]), ratio_interval([1.0], [2.0])
    ((2.0, 2.0), (nan, nan))
    """
    ratios = np.log(np.asarray(of_first) / np.asarray(seconds))
    low, high = np.exp(ratios.mean() + half_width(ratios) * np.array([-1, 1]))
    return float(low), float(high)


def _told(columns: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    return {name: value(seconds) if callable(value) else value for name, value in columns.items()}


def _timed(work: Callable[[], object]) -> Timing:
    began = time.perf_counter()
    result = jax.block_until_ready(work())
    return result if isinstance(result, Timing) else Timing(time.perf_counter() - began, {})


def measured(
    work: Callable, columns: Mapping[str, Any] | None = None, before: Callable[[], tuple] = lambda: ()
) -> Callable[[], Timing]:
    """An alternative with columns for the table.

    Args:
        work: timed until its result is there.
        columns: see `Timing`.
        before: makes the arguments of ``work``, and is not timed.
    """

    def play() -> Timing:
        arguments = jax.block_until_ready(before())
        return _timed(lambda: work(*arguments))._replace(columns=columns or {})

    return play


def working_megabytes(compiled) -> float | str:
    """What XLA plans for a compiled function beside its arguments and results, where the backend tells."""
    planned = compiled.memory_analysis()
    return round(planned.temp_size_in_bytes / 1e6, 1) if planned else "unknown"


def peak(process: int | str = "self") -> int:
    """Peak resident memory of a process in bytes, shared pages included; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    return 0


def temporary_folder() -> Path:
    """An empty folder that lasts as long as this process."""
    path = Path(tempfile.mkdtemp(prefix="benchmark-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


SHOWN = ("name", "seconds", "low", "high", "first", "ratio", "between")


def timings_table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    more = list(dict.fromkeys(name for row in rows for name in row if name not in SHOWN))
    heads = ["alternative", "seconds", "range", "first call", "ratio", "ratio between", *more]
    lines = []
    for row in rows:
        spread = f"{row['low']:.4g} to {row['high']:.4g}"
        low, high = row["between"]
        between = "–" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
        cells = [row["name"], f"{row['seconds']:.4g}", spread, f"{row['first']:.3g}", f"{row['ratio']:.2f}", between]
        told = [row.get(name, "") for name in more]
        cells += [f"{value:.6g}" if isinstance(value, float) else str(value) for value in told]
        lines.append(cells)
    return markdown_table(heads, lines)

"""Alternatives of the same work, timed in turn, so that a machine that slows down slows all of them."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Alternatives = dict[str, Callable[[], object]]


class Played(NamedTuple):
    """What an alternative that measures itself returns: its seconds, and columns for the table."""

    seconds: float
    columns: dict[str, Any]


def compare(alternatives: Alternatives, repeats: int) -> list[dict]:
    """Times the alternatives in turn, after one call each to compile.

    Returns:
        One row each: ``name``, ``seconds`` (median), ``low`` and ``high``, ``first`` (with compilation), ``ratio``, the
        first alternative's median over this one's: above 1 is faster than the first; and the columns of a `Played`.
    """
    first = {name: _timed(work).seconds for name, work in alternatives.items()}
    rounds = [{name: _timed(work) for name, work in alternatives.items()} for _ in range(repeats)]
    seconds = {name: [one[name].seconds for one in rounds] for name in alternatives}
    reference = float(np.median(next(iter(seconds.values()))))
    return [
        {
            "name": name,
            "seconds": float(np.median(seconds[name])),
            "low": min(seconds[name]),
            "high": max(seconds[name]),
            "first": first[name],
            "ratio": reference / float(np.median(seconds[name])),
            **rounds[-1][name].columns,
        }
        for name in alternatives
    ]


def _timed(work: Callable[[], object]) -> Played:
    began = time.perf_counter()
    result = jax.block_until_ready(work())
    return result if isinstance(result, Played) else Played(time.perf_counter() - began, {})


def working_megabytes(compiled) -> float | str:
    """What XLA plans for a compiled function beside its arguments and results, where the backend tells."""
    planned = compiled.memory_analysis()
    return round(planned.temp_size_in_bytes / 1e6, 1) if planned else "unknown"


SHOWN = ("name", "seconds", "low", "high", "first", "ratio")


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    more = list(dict.fromkeys(name for row in rows for name in row if name not in SHOWN))
    heads = ["alternative", "seconds", "range", "first call", "ratio", *more]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in rows:
        spread = f"{row['low']:.4g} to {row['high']:.4g}"
        cells = [row["name"], f"{row['seconds']:.4g}", spread, f"{row['first']:.3g}", f"{row['ratio']:.2f}"]
        told = [row.get(name, "") for name in more]
        cells += [f"{value:.6g}" if isinstance(value, float) else str(value) for value in told]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"

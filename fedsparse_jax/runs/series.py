"""One number over the rounds of a run, for pictures and tables."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedsparse_jax.core.tasks import Task
from fedsparse_jax.runs.records import RoundRecord

Records = Sequence[RoundRecord]


def as_number(value: Any) -> float:
    """``value`` as a float; NaN for what is missing or no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def series(records: Records, get: Callable[[RoundRecord], Any]) -> np.ndarray:
    """``get(record)`` over the rounds as ``f64[T]``, NaN where there is none."""
    return np.array([as_number(get(record)) for record in records], dtype=float)


def headline_series(records: Records, task: Task) -> np.ndarray:
    """The task's headline measure on the test set, ``f64[T]``."""
    return series(records, lambda record: record.test.get(task.headline))


def params_exchanged(records: Records) -> np.ndarray:
    """Weights sent up and down since the first round, ``f64[T]``: non-zero values, over all clients."""
    totals = series(records, lambda record: record.params_down_total + record.params_up_total)
    sums = np.cumsum(np.nan_to_num(series(records, lambda record: record.params_down + record.params_up)))
    return np.where(np.isfinite(totals), totals, sums)


def exchanged(records: Records) -> tuple[np.ndarray, str]:
    """What crossed the network since the first round: ``(f64[T], "bytes")``, the lengths of the messages, where every
    round has measured them; else ``(f64[T], "weights")``, see `params_exchanged`."""
    totals = series(records, lambda record: record.bytes_down_total + record.bytes_up_total)
    return (totals, "bytes") if np.isfinite(totals).all() else (params_exchanged(records), "weights")


def dense_exchanged(records: Records, total_weights: int, num_clients: int) -> np.ndarray:
    """How many weights dense FedAvg sends in the same rounds to the same cohorts, cumulative ``f64[T]``."""
    cohorts = [len(record.cohort) or num_clients for record in records]
    return 2.0 * total_weights * np.cumsum(cohorts)

"""How sure a measure is: a bootstrap over people, since scans of one person are no evidence of their own."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.streams import Stream


class Interval(NamedTuple):
    """Between which values a measure lies; NaN twice where it is undefined."""

    low: float
    high: float


def bootstrap_measures(
    measure: Callable, predictions, targets, people=None, *, seed=0, draws=1000, level=0.95
) -> dict[str, Interval]:
    """Percentile intervals of measures (Efron and Tibshirani, 1993, chapter 13).

    People are drawn with replacement, each with all scans. The intervals hold for other people of the same kind and
    this one model; another training is another draw.

    Args:
        measure: ``(predictions, targets) -> measures by name``, such as that of a `core.tasks.Task`.
        predictions: ``[N]``, or logits ``[N, K]``.
        targets: ``[N]``.
        people: ``[N]``, who each example is of; None where each is of somebody else.
        seed: of the draws.
        draws: how many.
        level: share of the draws within an interval.

    >>> errors = lambda p, y: {"bias": float((p - y).mean())}
    >>> bootstrap_measures(errors, np.array([3.0, 5.0]), np.array([2.0, 4.0]))
    {'bias': Interval(low=1.0, high=1.0)}
    """
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    person = np.arange(len(targets)) if people is None else np.unique(people, return_inverse=True)[1]
    order, counts = np.argsort(person, kind="stable"), np.bincount(person)
    rows_of = np.split(order, np.cumsum(counts)[:-1])
    rng = np.random.default_rng([seed, Stream.PEOPLE_BOOTSTRAP])
    drawn = []
    for _ in range(draws):
        chosen = rng.integers(len(counts), size=len(counts))
        rows = np.concatenate([rows_of[i] for i in chosen]) if len(counts) < len(targets) else order[chosen]
        drawn.append(measure(predictions[rows], targets[rows]))
    return {name: _percentiles(np.array([one[name] for one in drawn]), level) for name in drawn[0]}


def _percentiles(values: np.ndarray, level: float) -> Interval:
    """Of the draws in which the measure is defined."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))

"""How good predictions are, how sparse a model is and what was exchanged, in plain numbers."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def regression(predictions, targets) -> dict[str, float]:
    """Error measures of a regressor.

    Args:
        predictions, targets: ``[N]``, in years.

    Returns:
        ``mae`` and ``rmse`` in years; ``r``, Pearson's correlation (NaN where one side is constant); ``r2``, the
        coefficient of determination, negative where the mean of the targets would do better.
    """
    p, y = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    error = p - y
    spread_p, spread_y = p - p.mean(), y - y.mean()
    scale = np.sqrt((spread_p**2).sum() * (spread_y**2).sum())
    variation = (spread_y**2).sum()
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r": float((spread_p * spread_y).sum() / scale) if scale > 0 else float("nan"),
        "r2": float(1 - (error**2).sum() / variation) if variation > 0 else float("nan"),
    }


def classification(logits, labels) -> dict[str, float]:
    """How well a classifier does.

    Args:
        logits: ``[N, K]``.
        labels: ``[N]``, whole numbers below K.

    Returns:
        ``accuracy``; ``balanced_accuracy``, the mean over the classes that occur of the share found; ``f1``, the mean
        over the same classes of the harmonic mean of precision and recall; ``nll``, the mean cross-entropy in nats.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels).astype(int)
    found = z.argmax(-1)
    shifted = z - z.max(-1, keepdims=True)
    log_share = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    hits = {k: ((found == k) & (y == k)).sum() for k in np.unique(y)}
    recall = [hits[k] / (y == k).sum() for k in hits]
    f1 = [2 * hits[k] / ((found == k).sum() + (y == k).sum()) for k in hits]
    return {
        "accuracy": float((found == y).mean()),
        "balanced_accuracy": float(np.mean(recall)),
        "f1": float(np.mean(f1)),
        "nll": float(-log_share[np.arange(len(y)), y].mean()),
    }


def commonest_class_accuracy(train_labels, test_labels) -> float:
    """Accuracy of always naming the class that is commonest in the training set."""
    values, counts = np.unique(np.asarray(train_labels), return_counts=True)
    return float((np.asarray(test_labels) == values[counts.argmax()]).mean())


def predict_mean_mae(train_targets, test_targets) -> float:
    """MAE in years of the predictor that knows nothing but the mean age of the training set."""
    return float(
        np.abs(np.asarray(test_targets, np.float64) - np.mean(train_targets, dtype=np.float64)).mean()
    )


class Task(NamedTuple):
    """What is predicted, and how it is judged."""

    measure: Callable  # (predictions, targets) -> measures by name
    headline: str  # the measure that is shown first
    label: str
    unit: str  # with a leading space, or empty
    digits: int  # behind the point
    lower_is_better: bool
    baseline: Callable  # (train_targets, test_targets) -> the headline measure of knowing nothing
    baseline_key: str
    naive: str  # what the baseline does, in words
    brief: str  # the same in a word


REGRESSION = Task(
    regression,
    "mae",
    "MAE",
    " y",
    2,
    True,
    predict_mean_mae,
    "predict_mean_mae",
    "predicting the mean",
    "mean",
)
CLASSIFICATION = Task(
    classification,
    "accuracy",
    "accuracy",
    "",
    3,
    False,
    commonest_class_accuracy,
    "commonest_class_accuracy",
    "naming the commonest class",
    "commonest",
)
TASKS = {"regression": REGRESSION, "classification": CLASSIFICATION}


def sparsity(kept, sizes) -> float:
    """Share of zeros in the whole model, from the weights kept in each leaf and the leaves' sizes."""
    return 1 - int(np.sum(kept)) / int(np.sum(sizes))


def density(kept, sizes, names) -> dict[str, float]:
    """Share kept in each leaf, by name."""
    return {name: int(k) / int(n) for name, k, n in zip(names, kept, sizes, strict=True)}


def number(value):
    """``value`` as a float; NaN for what is missing or no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def column(rounds, key):
    """One metric over the rounds as f64[T], NaN where a round lacks it."""
    return np.array([number(entry.get(key)) for entry in rounds], dtype=float)


def exchanged(rounds):
    """Parameters sent up and down since the first round, f64[T]: non-zero values, over all clients."""
    totals = column(rounds, "params_down_total") + column(rounds, "params_up_total")
    sums = np.cumsum(np.nan_to_num(column(rounds, "params_down") + column(rounds, "params_up")))
    return np.where(np.isfinite(totals), totals, sums)


def traffic(rounds):
    """What crossed the network since the first round: ``(f64[T], "bytes")``, the lengths of the messages, where every
    round has measured them; else ``(f64[T], "weights")``, see `exchanged`."""
    totals = column(rounds, "bytes_down_total") + column(rounds, "bytes_up_total")
    return (totals, "bytes") if np.isfinite(totals).all() else (exchanged(rounds), "weights")


def dense_exchanged(rounds, total_weights, num_clients):
    """How many weights dense FedAvg sends in the same rounds to the same cohorts, cumulative f64[T]; 4 bytes each."""
    cohorts = [len(entry["cohort"]) if entry.get("cohort") else num_clients for entry in rounds]
    return 2.0 * total_weights * np.cumsum(cohorts)

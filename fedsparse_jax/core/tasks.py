"""What is predicted, and how it is judged: error measures as plain numbers, and what knowing nothing gives."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def regression_measures(predictions, targets) -> dict[str, float]:
    """Error measures of a regressor.

    Args:
        predictions, targets: ``[N]``, in years.

    Returns:
        ``mae`` and ``rmse`` in years; ``r``, Pearson's correlation (NaN where one side is constant); ``r2``, the
        coefficient of determination, negative where the mean of the targets would do better.
    """
    p, y = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    error = p - y
    centred_p, centred_y = p - p.mean(), y - y.mean()
    scale = np.sqrt((centred_p**2).sum() * (centred_y**2).sum())
    variation = (centred_y**2).sum()
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r": float((centred_p * centred_y).sum() / scale) if scale > 0 else float("nan"),
        "r2": float(1 - (error**2).sum() / variation) if variation > 0 else float("nan"),
    }


def classification_measures(logits, labels) -> dict[str, float]:
    """How well a classifier does.

    Args:
        logits: ``[N, K]``.
        labels: ``[N]``, whole numbers below K.

    Returns:
        ``accuracy``; ``balanced_accuracy``, the mean over the classes that occur of the share found; ``f1``, the mean
        over the same classes of the harmonic mean of precision and recall; ``nll``, the mean cross-entropy in nats.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels).astype(int)
    predicted = z.argmax(-1)
    shifted = z - z.max(-1, keepdims=True)
    log_share = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    hits = {k: ((predicted == k) & (y == k)).sum() for k in np.unique(y)}
    recall = [hits[k] / (y == k).sum() for k in hits]
    f1 = [2 * hits[k] / ((predicted == k).sum() + (y == k).sum()) for k in hits]
    return {
        "accuracy": float((predicted == y).mean()),
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
    return float(np.abs(np.asarray(test_targets, np.float64) - np.mean(train_targets, dtype=np.float64)).mean())


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
    measure=regression_measures,
    headline="mae",
    label="MAE",
    unit=" y",
    digits=2,
    lower_is_better=True,
    baseline=predict_mean_mae,
    baseline_key="predict_mean_mae",
    naive="predicting the mean",
    brief="mean",
)
CLASSIFICATION = Task(
    measure=classification_measures,
    headline="accuracy",
    label="accuracy",
    unit="",
    digits=3,
    lower_is_better=False,
    baseline=commonest_class_accuracy,
    baseline_key="commonest_class_accuracy",
    naive="naming the commonest class",
    brief="commonest",
)
TASKS = {"regression": REGRESSION, "classification": CLASSIFICATION}

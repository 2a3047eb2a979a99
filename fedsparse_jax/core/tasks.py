"""What is predicted, and how it is judged: error measures as plain numbers, and what knowing nothing gives."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # whose parts are loaded when they are used


def regression_measures(predictions, targets) -> dict[str, float]:
    """Error measures of a regressor.

    Args:
        predictions, targets: ``[N]``, in years or whatever unit the label has.

    Returns:
        ``mae`` and ``rmse`` in that unit; ``r``, Pearson's correlation (NaN where one side is constant); ``r2``, the
        coefficient of determination, negative where the mean of the targets would do better; ``bias``, the mean of
        prediction minus target.
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
        "bias": float(error.mean()),
    }


def classification_measures(logits, labels) -> dict[str, float]:
    """How well a classifier does.

    Args:
        logits: ``[N, K]``.
        labels: ``[N]``, whole numbers below K.

    Returns:
        ``accuracy``; ``balanced_accuracy``, the mean over the classes that occur of the share found; ``f1``, the mean
        over the same classes of the harmonic mean of precision and recall; ``auc``, the area under the ROC curve, of
        more than two classes the mean over those that occur, each against all others (NaN where one class occurs);
        ``nll``, the mean cross-entropy in nats.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels).astype(int)
    predicted = z.argmax(-1)
    shifted = z - z.max(-1, keepdims=True)
    log_share = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    count = lambda labels: np.bincount(labels, minlength=z.shape[-1])
    of_class, called, hits = count(y), count(predicted), count(y[predicted == y])
    occur = np.flatnonzero(of_class)
    against_rest = [1] if z.shape[-1] == 2 else occur
    ranks = scipy.stats.rankdata(log_share, axis=0)
    areas = [_area(ranks[:, k], y == k) for k in against_rest if len(occur) > 1]
    f1 = 2 * hits[occur] / (called + of_class)[occur]
    return {
        "accuracy": float((predicted == y).mean()),
        "balanced_accuracy": float(np.mean(hits[occur] / of_class[occur])),
        "f1": float(np.mean(f1)),
        "auc": float(np.mean(areas)) if areas else float("nan"),
        "nll": float(-log_share[np.arange(len(y)), y].mean()),
    }


def area_under_roc(scores, positive) -> float:
    """Chance that a positive scores above a negative, ties counted half; NaN where one of them is missing.

    >>> area_under_roc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75
    """
    return _area(scipy.stats.rankdata(scores), np.asarray(positive, bool))


def _area(ranks: np.ndarray, positive: np.ndarray) -> float:
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def commonest_class_accuracy(train_labels, test_labels) -> float:
    """Accuracy of always naming the class that is commonest in the training set."""
    values, counts = np.unique(np.asarray(train_labels), return_counts=True)
    return float((np.asarray(test_labels) == values[counts.argmax()]).mean())


def predict_mean_mae(train_targets, test_targets) -> float:
    """MAE of the predictor that knows nothing but the mean target of the training set, in the unit of the targets."""
    return float(np.abs(np.asarray(test_targets, np.float64) - np.mean(train_targets, dtype=np.float64)).mean())


AGE = "age"


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
    target: str = AGE  # what is predicted, as its column is called

    @property
    def of_age(self) -> bool:
        """Whether the age is predicted."""
        return self.target == AGE

    @property
    def axis(self) -> str:
        """The target and its unit, for an axis."""
        unit = "years" if self.of_age else self.unit.strip()
        return f"{self.target} ({unit})" if unit else self.target


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


def task_for(name: str, target: str = AGE, unit: str = "") -> Task:
    """The task of a run.

    Args:
        name: a member of ``TASKS``.
        target: what is predicted, as its column is called.
        unit: of a number other than the age, such as ``points``.

    >>> task_for("regression").axis, task_for("regression", "memory", "points").axis
    ('age (years)', 'memory (points)')
    """
    if target == AGE:
        return TASKS[name]
    return TASKS[name]._replace(target=target, unit=f" {unit}" if unit and name == "regression" else "")

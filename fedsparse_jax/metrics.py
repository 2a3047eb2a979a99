"""How good predictions are, how sparse a model is and what was exchanged, in plain numbers."""

import math

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


def predict_mean_mae(train_targets, test_targets) -> float:
    """MAE in years of the predictor that knows nothing but the mean age of the training set."""
    return float(
        np.abs(np.asarray(test_targets, np.float64) - np.mean(train_targets, dtype=np.float64)).mean()
    )


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


def dense_exchanged(rounds, total_weights, num_clients):
    """What dense FedAvg sends in the same rounds to the same cohorts, cumulative f64[T]."""
    cohorts = [len(entry["cohort"]) if entry.get("cohort") else num_clients for entry in rounds]
    return 2.0 * total_weights * np.cumsum(cohorts)

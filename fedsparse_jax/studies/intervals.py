"""The interval that stands beside every mean over seeds or targets."""

import numpy as np
from scipy import stats


def half_width(values, level: float = 0.95) -> float:
    """Half the width of the mean's confidence interval (Student's t); NaN for a single value.

    >>> round(half_width([1.0, 2.0, 3.0]), 2)
    2.48
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float("nan")
    if np.ptp(values) == 0:
        return 0.0
    _, high = stats.t.interval(level, len(values) - 1, scale=stats.sem(values))
    return float(high)


def mean_with_interval(values, digits: int, sign: str = "") -> str:
    """Mean and half the width of its interval, as text; a dash where a value is not defined.

    >>> mean_with_interval([1.0, 2.0, 3.0], 2), mean_with_interval([1.0], 1), mean_with_interval([1.0, np.nan], 1)
    ('2.00 ± 2.48', '1.0', '–')
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all():
        return "–"
    text = f"{values.mean():{sign}.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {half_width(values):.{digits}f}"

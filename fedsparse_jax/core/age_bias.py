r"""The age bias of a brain age, and its correction.

A model that is not perfect takes the young for older and the old for younger than they are (regression to the mean).
The predicted age is therefore a line of the true one, :math:`\hat y = a y + b` with a slope below 1. The correction
takes the line for the identity, :math:`\hat y_c = \hat y + (y - (a y + b))`, so that the gap no longer hangs on the age
(de Lange and Cole, 2020, doi 10.1016/j.nicl.2020.102229). The regression of the gap on the age (Beheshti et al., 2019,
doi 10.1016/j.nicl.2019.102063) gives the same numbers, with the slope :math:`a - 1`.

The line is fitted on people who neither trained nor are tested. A corrected prediction knows the true age, so that its
errors say nothing about how well ages are predicted (Butler et al., 2021, doi 10.1002/hbm.25533).
"""

from typing import NamedTuple

import numpy as np

FEWEST = 3  # scans through which a line says something


class AgeBias(NamedTuple):
    """The line of the predicted age over the true one, both in years."""

    slope: float
    offset: float
    scans: int  # through which it was fitted


def fit_age_bias(predictions, ages) -> AgeBias | None:
    """The least-squares line; None for fewer than three scans, for scans of one age, and for what is no number.

    Args:
        predictions, ages: ``[N]``, in years, of people who neither trained nor are tested.

    >>> fit_age_bias([55.0, 60.0, 65.0], [50.0, 60.0, 70.0])
    AgeBias(slope=0.5, offset=30.0, scans=3)
    """
    p, y = np.asarray(predictions, np.float64), np.asarray(ages, np.float64)
    if len(y) < FEWEST or np.ptp(y) == 0 or not np.isfinite(p).all():
        return None
    slope = float(((y - y.mean()) * (p - p.mean())).sum() / ((y - y.mean()) ** 2).sum())
    return AgeBias(slope, float(p.mean() - slope * y.mean()), len(y))


def correct_age_bias(bias: AgeBias, predictions, ages) -> np.ndarray:
    """Corrected predictions ``f64[N]``, in years.

    >>> correct_age_bias(AgeBias(0.5, 30.0, 3), [55.0, 66.0], [50.0, 70.0]).tolist()
    [50.0, 71.0]
    """
    p, y = np.asarray(predictions, np.float64), np.asarray(ages, np.float64)
    return p + (y - (bias.slope * y + bias.offset))

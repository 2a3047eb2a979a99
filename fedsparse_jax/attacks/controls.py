"""What must not pass for an attack: an attack that only knows who is old fails on pairs of the same age."""

from typing import NamedTuple

import numpy as np
import scipy


class Matched(NamedTuple):
    """Pairs of a member and a non-member of like age: places in the scored people."""

    pairs: np.ndarray  # i64[K, 2], members first
    dropped: int  # members without a partner

    @property
    def places(self) -> np.ndarray:
        """All who have a partner, in rising order."""
        return np.sort(self.pairs.ravel())


def age_matched(ages, inside, caliper: float = 1.0) -> Matched:
    """As many pairs as there can be, each of a member and a non-member at most ``caliper`` apart, as close as can be.

    An attack that only knows who is old fails on these people; one that knows the members does not.

    Args:
        ages: ``[N]`` of the scored people, in years.
        inside: ``bool[N]``.
        caliper: years.

    >>> age_matched([50.0, 60.0, 60.4, 71.0, 52.0], [True, True, False, False, False]).pairs.tolist()
    [[1, 2]]
    """
    ages, inside = np.asarray(ages, np.float64), np.asarray(inside, bool)
    members, outsiders = np.flatnonzero(inside), np.flatnonzero(~inside)
    apart = np.abs(ages[members][:, None] - ages[outsiders][None])
    close = apart <= caliper + 1e-6
    cost = np.where(close, apart, (caliper + 1) * (len(ages) + 1))  # one pair too few costs more than any closeness
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    good = close[rows, columns]
    pairs = np.stack([members[rows[good]], outsiders[columns[good]]], axis=1).astype(np.int64)
    return Matched(pairs, len(members) - len(pairs))

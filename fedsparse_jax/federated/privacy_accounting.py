"""What private training has spent: epsilon of the client who took part most, by an accountant from a library.

Every example of a client enters one batch of every epoch, so that k epochs are k Gaussian mechanisms of that client's
data, which together are one with the noise divided by the square root of k (its epsilon: Balle and Wang, 2018, arXiv
1805.06530). No amplification by sampling is claimed: batches are shuffled, not drawn at random, and the server knows
who takes part. Neighbours are data sets of which one has nothing in one example's place; or, where the unit is a
person, nothing in the place of all examples of one person, which moves the sums of an epoch by at most so many times as
much.
"""

import collections
import functools
import math
from collections.abc import Iterable

from fedsparse_jax.core.errors import UsageError


def require_accountant() -> None:
    """Refuses where the accountant is missing.

    Raises:
        UsageError: ``dp_accounting`` is not installed.
    """
    _accountant()


@functools.cache
def epsilon_spent(noise: float, epochs: int, delta: float, scans: int = 1) -> float:
    """Epsilon of so many epochs over the same examples.

    Args:
        noise: standard deviation over the largest norm, of the sum in each batch.
        epochs: over all rounds.
        delta: the chance that is left out.
        scans: examples that neighbours differ in, 1 or all those of a person. Together they move the sums of one epoch,
            over all its batches, by at most ``scans`` times the largest norm (the triangle inequality).
    """
    return float(_accountant()(noise / (scans * math.sqrt(epochs)), delta)) if epochs else 0.0


def most_rounds(cohorts: Iterable[Iterable[int]]) -> int:
    """Rounds of the client who took part most.

    >>> most_rounds([[0, 1], [1, 2]])
    2
    """
    return max(collections.Counter(client for cohort in cohorts for client in cohort).values(), default=0)


def _accountant():
    try:
        from dp_accounting import get_epsilon_gaussian
    except ImportError as error:
        raise UsageError(
            "Private training needs an accountant, which is missing: pip install -e '.[privacy]'."
        ) from error
    return get_epsilon_gaussian

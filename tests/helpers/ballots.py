"""Measures of votes, of the masks that were voted with."""

from fedsparse_jax.core import masks


def of_masks(measure, ballots, present):
    """``measure(votes, count)`` of leaves ``bool[C, ...]`` and of who is ``present bool[C]``."""
    return measure(masks.votes(ballots, present), present.sum())

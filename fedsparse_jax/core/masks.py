"""The algebra of masks: boolean trees shaped like the params, True where a weight is kept.

A mask is a fact that is stored; it is never guessed from zeros.
"""

import jax
import jax.numpy as jnp

from fedsparse_jax.core import tree
from fedsparse_jax.core.types import Array, Masks, Params


def ones(params: Params) -> Masks:
    """Keeps everything."""
    return jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)


def apply(masks: Masks, values):
    """Zeroes what is pruned. Unlike ``mask * w`` it also silences a pruned NaN."""
    return jax.tree.map(lambda m, w: jnp.where(m, w, jnp.zeros((), w.dtype)), masks, values)


def count_kept(masks: Masks) -> Array:
    """Number of kept weights in each leaf, ``i32[L]`` in leaf order."""
    return jnp.stack([leaf.sum(dtype=jnp.int32) for leaf in jax.tree.leaves(masks)])


def hamming(a: Masks, b: Masks) -> Array:
    """Number of weights that one keeps and the other does not, ``i32[]``."""
    return count_kept(jax.tree.map(jnp.logical_xor, a, b)).sum()


def dead_channels(masks: Masks) -> Array:
    """Output channels (last axis) that no kept weight leads to, ``i32[L]``; 0 for leaves with fewer than two axes.

    >>> dead_channels({"kernel": jnp.array([[True, False, False], [True, True, False]])}).tolist()
    [1]
    """

    def dead(leaf):
        if leaf.ndim < 2:
            return jnp.zeros((), jnp.int32)
        return (~leaf.reshape(-1, leaf.shape[-1]).any(0)).sum(dtype=jnp.int32)

    return jnp.stack([dead(leaf) for leaf in jax.tree.leaves(masks)])


def agreement(votes, count: Array) -> Array:
    """Jaccard overlap of the clients' masks, pooled over all pairs of clients: kept in both over kept in either, summed
    over pairs and weights.

    Args:
        votes: leaves ``i32[...]``, how many clients keep each weight, of `votes`.
        count: ``i32[]``, how many clients there are.

    Returns:
        ``f32[]`` in [0, 1]; 1 for a single client, and where nobody keeps anything.
    """

    def pairs(leaf_votes):
        without = count - leaf_votes
        both = (leaf_votes * (leaf_votes - 1)).astype(jnp.float32).sum()
        either = (count * (count - 1) - without * (without - 1)).astype(jnp.float32).sum()
        return both, either

    both, either = zip(*[pairs(leaf) for leaf in jax.tree.leaves(votes)], strict=True)
    total = sum(either)
    return jnp.where(total > 0, sum(both) / jnp.maximum(total, 1), 1.0)


def vote_margin(votes, count: Array) -> Array:
    """How clear the clients' votes on the masks are: ``|keep - drop| / voters``, the mean over the weights that at
    least one client keeps.

    Args:
        votes, count: see `agreement`.

    Returns:
        ``f32[]`` in [0, 1]; 1 where all agree, and where nobody keeps anything.
    """
    voters, counts = jnp.maximum(count, 1), jax.tree.leaves(votes)
    margins = sum(jnp.where(keep > 0, jnp.abs(2 * keep - voters), 0).astype(jnp.float32).sum() for keep in counts)
    voted = sum((keep > 0).astype(jnp.float32).sum() for keep in counts)
    return jnp.where(voted > 0, margins / (voters.astype(jnp.float32) * jnp.maximum(voted, 1)), 1.0)


def votes(masks: Masks, present: Array):
    """How many present clients keep each weight: leaves ``[C, ...]`` and ``bool[C]`` to ``i32[...]``."""

    def term(leaf, here):
        return (leaf & tree.per_row(here, leaf)).astype(jnp.int32)

    return jax.tree.map(lambda leaf: tree.sum_rows(term, leaf, present), masks)

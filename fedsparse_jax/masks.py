"""The algebra of masks: boolean trees shaped like the params, True where a weight is kept.

A mask is a fact that is stored; it is never guessed from zeros.
"""

import jax
import jax.numpy as jnp

from fedsparse_jax.types import Array, Masks, Params


def ones(params: Params) -> Masks:
    """Keeps everything."""
    return jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)


def apply(masks: Masks, tree):
    """Zeroes what is pruned. Unlike ``mask * w`` it also silences a pruned NaN."""
    return jax.tree.map(lambda m, w: jnp.where(m, w, jnp.zeros((), w.dtype)), masks, tree)


def kept(masks: Masks) -> Array:
    """Number of kept weights in each leaf, ``i32[L]`` in leaf order."""
    return jnp.stack([leaf.sum(dtype=jnp.int32) for leaf in jax.tree.leaves(masks)])


def intersect(a: Masks, b: Masks) -> Masks:
    """Kept in both."""
    return jax.tree.map(jnp.logical_and, a, b)


def union(a: Masks, b: Masks) -> Masks:
    """Kept in either."""
    return jax.tree.map(jnp.logical_or, a, b)


def jaccard(a: Masks, b: Masks) -> Array:
    """Overlap of two masks, kept in both over kept in either, ``f32[]`` in [0, 1]; 1 where both keep nothing."""
    both = kept(intersect(a, b)).astype(jnp.float32).sum()
    either = kept(union(a, b)).astype(jnp.float32).sum()
    return jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0)


def votes(masks: Masks, present: Array):
    """How many present clients keep each weight: leaves ``[C, ...]`` and ``bool[C]`` to ``i32[...]``."""

    def count(leaf):
        here = present.reshape((-1,) + (1,) * (leaf.ndim - 1))
        return (leaf & here).sum(0, dtype=jnp.int32)

    return jax.tree.map(count, masks)

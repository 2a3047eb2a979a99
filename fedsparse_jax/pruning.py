"""Exact selection of what to prune, and how a budget is spread over the leaves.

The count is exact to the weight: ties, all-equal scores and weights that are already pruned change which
weights go, never how many. A pruned weight never comes back.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedsparse_jax.types import Array, Criterion, Key, Masks, Params, Schedule, Scope


def share_of(share: Array, count: int) -> Array:
    """The whole number nearest to ``share * count``, as ``i32[]``.

    The product is taken in 24-bit fixed point with whole numbers: a float32 product is wrong by several units
    beyond 16 million.

    Args:
        share: ``f32[]`` in [0, 1], traced or not.
        count: a static whole number below 2**30.
    """
    fixed = jnp.round(jnp.clip(share, 0, 1) * 2.0**24).astype(jnp.uint32)
    high, low = fixed >> 12, fixed & 0xFFF
    count_high, count_low = jnp.uint32(count >> 12), jnp.uint32(count & 0xFFF)
    middle = high * count_low + low * count_high + ((low * count_low) >> 12)
    return (high * count_high + ((middle + 0x800) >> 12)).astype(jnp.int32)


def keep_largest(scores: Array, alive: Array, num_pruned: Array) -> Array:
    """The mask without the ``num_pruned`` smallest scores; what is not ``alive`` counts as smallest of all.

    A radix select on the bits of the scores: non-negative floats order as their bits do, so a histogram of the
    upper bits and one of the lower bits find the k-th smallest without a sort. Among equal scores, earlier
    positions go first.

    Args:
        scores: ``f32[n]``, not negative.
        alive: ``bool[n]``, what is kept so far.
        num_pruned: ``i32[]``, zeros wanted in the result; more if more are pruned already.

    Returns:
        ``bool[n]``
    """
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.uint32)
    rank = jnp.where(alive, (bits & 0x7FFFFFFF) + 1, 0)
    upper, lower = rank >> 16, rank & 0xFFFF
    bin_upper, below = _bin_of(upper, jnp.ones_like(alive), num_pruned, 2**15 + 1)
    bin_lower, below_lower = _bin_of(lower, upper == bin_upper, num_pruned - below, 2**16)
    threshold = (bin_upper << 16) | bin_lower
    ties = rank == threshold
    tie_position = jnp.cumsum(ties, dtype=jnp.int32)
    excess = num_pruned - below - below_lower
    return alive & ((rank > threshold) | (ties & (tie_position > excess)))


def _bin_of(digits: Array, counted: Array, k: Array, bins: int) -> tuple[Array, Array]:
    """The bin that holds the k-th smallest counted digit (from 1), and how many lie in the bins before it."""
    histogram = jnp.zeros(bins, jnp.int32).at[digits].add(counted.astype(jnp.int32))
    total = jnp.cumsum(histogram)
    bin_ = (total < k).sum(dtype=jnp.int32)
    return bin_.astype(jnp.uint32), total[bin_] - histogram[bin_]


def global_(scores, masks: Masks, sparsity: Array, prunable) -> Masks:
    """One threshold over all prunable leaves jointly (the paper's choice)."""
    leaves, treedef = jax.tree.flatten(masks)
    flags = jax.tree.leaves(prunable)
    chosen = [i for i, flag in enumerate(flags) if flag]
    if not chosen:
        return masks
    flat_scores = jnp.concatenate([jax.tree.leaves(scores)[i].ravel() for i in chosen])
    flat_alive = jnp.concatenate([leaves[i].ravel() for i in chosen])
    keep = keep_largest(flat_scores, flat_alive, share_of(sparsity, flat_scores.size))
    start = 0
    for i in chosen:
        leaf = leaves[i]
        leaves[i] = keep[start : start + leaf.size].reshape(leaf.shape)
        start += leaf.size
    return jax.tree.unflatten(treedef, leaves)


def per_layer(scores, masks: Masks, sparsity: Array, prunable) -> Masks:
    """The same sparsity in every prunable leaf."""

    def prune(score, mask, flag):
        if not flag:
            return mask
        keep = keep_largest(score.ravel(), mask.ravel(), share_of(sparsity, mask.size))
        return keep.reshape(mask.shape)

    return jax.tree.map(prune, scores, masks, prunable)


def pruner(
    criterion: Criterion, scope: Scope, schedule: Schedule, prunable
) -> Callable[[Params, Masks, Array, Key], Masks]:
    """``(params, masks, round, key) -> masks``: a criterion, a scope and a schedule as one function."""

    def prune(params, masks, t, key):
        return scope(criterion(params, key=key), masks, schedule(t), prunable)

    return prune


def everything(params: Params):
    """All leaves may be pruned, biases included: the paper's choice."""
    return jax.tree.map(lambda _: True, params)


def kernels(params: Params):
    """Only leaves with at least two axes: biases stay whole."""
    return jax.tree.map(lambda w: w.ndim > 1, params)


SCOPES = {
    "global": global_,
    "per_layer": per_layer,
}

PRUNABLE = {
    "everything": everything,
    "kernels": kernels,
}

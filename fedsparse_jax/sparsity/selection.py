"""Exact selection: which of many scores are among the largest, to the weight.

Ties, all-equal scores and weights that are already pruned change which weights go, never how many. A pruned weight
never comes back here; `regrowth` is where it may.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array

BLOCK = 2**18  # scores that a selection looks at at a time
MOST_WEIGHTS = 2**30  # of a network, not included


def share_of(share: Array, count: int) -> Array:
    """The whole number nearest to ``share * count``, as ``i32[]``.

    The product is taken in 24-bit fixed point with whole numbers: a float32 product is wrong by several units
    beyond 16 million. A share below one half is rounded to a multiple of 2**-24 first, which moves the product by up to
    ``count / 2**25``: nothing for networks of some million weights, 16 weights of 2**29.

    Args:
        share: ``f32[]`` in [0, 1], traced or not.
        count: a whole number below 2**30, traced or not.

    Raises:
        ArgumentError: a count from 2**30 on.
    """
    if isinstance(count, int) and count >= MOST_WEIGHTS:
        raise ArgumentError("count", count, f"so many weights cannot be counted here; it must be below {MOST_WEIGHTS}")
    fixed = jnp.round(jnp.clip(share, 0, 1) * 2.0**24).astype(jnp.uint32)
    high, low = fixed >> 12, fixed & 0xFFF
    whole = jnp.asarray(count, jnp.uint32)
    count_high, count_low = whole >> 12, whole & 0xFFF
    middle = high * count_low + low * count_high + ((low * count_low) >> 12)
    return (high * count_high + ((middle + 0x800) >> 12)).astype(jnp.int32)


def keep_largest(scores: Array, alive: Array, num_pruned: Array) -> Array:
    """The mask without the ``num_pruned`` smallest scores; what is not ``alive`` counts as smallest of all.

    A radix select on the bits of the scores: a histogram of the upper 16 bits and one of the lower 16 find the k-th
    smallest without a sort, block by block, so that no copy of them is kept.
    Among equal scores, earlier positions go first; NaN is smaller than any number.

    Args:
        scores: ``f32[n]``, of either sign.
        alive: ``bool[n]``, what is kept so far.
        num_pruned: ``i32[]``, zeros wanted in the result; more if more are pruned already.

    Returns:
        ``bool[n]``
    """
    ranks = lambda start, size: _ranks(scores, alive, start, size)
    bins = jnp.zeros(2**16 + 1, jnp.int32)
    digits = lambda digit_of: _fold_blocks(ranks, scores.size, partial(_add_digits, digit_of), bins)
    upper, below = _bin_of(digits(lambda rank: rank >> 16), num_pruned)
    in_bin = lambda rank: jnp.where(rank >> 16 == upper, rank & 0xFFFF, 2**16)
    lower, below_lower = _bin_of(digits(in_bin), num_pruned - below)
    threshold = (upper << 16) | lower
    cut = _position_of(ranks, scores.size, threshold, num_pruned - below - below_lower)
    rank, position = ranks(0, scores.size), jnp.arange(scores.size)
    return alive & ((rank > threshold) | ((rank == threshold) & (position >= cut)))


def _ranks(scores: Array, alive: Array, start, size: int) -> Array:
    """``u32[size]`` in the order of the scores from ``start`` on; 0 for what is not alive."""
    piece = lambda array: jax.lax.dynamic_slice_in_dim(array, start, size)
    return jnp.where(piece(alive), _ordered_bits(piece(scores)) + 1, 0)


def _ordered_bits(scores: Array) -> Array:
    """``u32[n]`` in the order of the floats, both zeros alike, NaN as 0; below 2**32 - 1."""
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.uint32)
    magnitude, sign = bits & 0x7FFFFFFF, jnp.uint32(0x80000000)
    ordered = jnp.where((bits & sign) != 0, sign - magnitude, sign + magnitude)
    return jnp.where(magnitude > 0x7F800000, 0, ordered)


def _fold_blocks(ranks: Callable, count: int, add: Callable, initial: Array) -> Array:
    """Folds ``add(total, block, rank, fresh)`` over blocks of ranks: a few passes, in memory of one block.

    The last block is moved back so as to be full; ``fresh`` says what no earlier block held.
    """
    size = min(BLOCK, count)

    def body(block, total):
        start = jnp.minimum(block * size, count - size)
        fresh = start + jnp.arange(size) >= block * size
        return add(total, block, ranks(start, size), fresh)

    nothing = ranks(0, 1)[0].astype(initial.dtype) * 0  # so that inside a shard_map the total varies as the ranks do
    return jax.lax.fori_loop(0, -(-count // size), body, initial + nothing)


def _add_digits(digit_of: Callable, histogram: Array, block, rank: Array, fresh: Array) -> Array:
    """Counts 16-bit digits; the last bin is for what does not count."""
    return histogram.at[jnp.where(fresh, digit_of(rank), 2**16)].add(1, mode="promise_in_bounds")


def _bin_of(histogram: Array, k: Array) -> tuple[Array, Array]:
    """The bin that holds the k-th smallest digit (from 1), and how many lie in the bins before."""
    total = jnp.cumsum(histogram[:-1])
    bin_ = (total < k).sum(dtype=jnp.int32)
    return bin_.astype(jnp.uint32), total[bin_] - histogram[bin_]


def _position_of(ranks: Callable, count: int, threshold: Array, k: Array) -> Array:
    """The position behind the k-th rank (from 1) that equals ``threshold``; 0 for k = 0."""
    size = min(BLOCK, count)
    blocks = -(-count // size)

    def add(found, block, rank, fresh):
        return found.at[block].set((fresh & (rank == threshold)).sum(dtype=jnp.int32))

    total = jnp.cumsum(_fold_blocks(ranks, count, add, jnp.zeros(blocks, jnp.int32)))
    block = (total < k).sum(dtype=jnp.int32)
    before = jnp.where(block > 0, total[block - 1], 0)
    start = jnp.minimum(block * size, count - size)
    fresh = start + jnp.arange(size) >= block * size
    within = jnp.cumsum(fresh & (ranks(start, size) == threshold), dtype=jnp.int32)
    return jnp.where(k > 0, start + (within < k - before).sum(dtype=jnp.int32) + 1, 0)

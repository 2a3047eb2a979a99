"""Exact selection of what to prune, how a budget is spread over the leaves, and who prunes when.

The count is exact to the weight: ties, all-equal scores and weights that are already pruned change which
weights go, never how many. A pruned weight never comes back here; `regrowth` is where it may.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.core.types import Array, Chunk, Criterion, Key, Masks, Params, Schedule, Scope, UsageError
from fedsparse_jax.sparsity import criteria

PLACEMENTS = ("init", "arrival", "client", "server")
BLOCK = 2**18  # scores that a selection looks at at a time


def share_of(share: Array, count: int) -> Array:
    """The whole number nearest to ``share * count``, as ``i32[]``.

    The product is taken in 24-bit fixed point with whole numbers: a float32 product is wrong by several units
    beyond 16 million.

    Args:
        share: ``f32[]`` in [0, 1], traced or not.
        count: a whole number below 2**30, traced or not.
    """
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

    nothing = (
        ranks(0, 1)[0].astype(initial.dtype) * 0
    )  # so that inside a shard_map the total varies as the ranks do
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


# --- scopes -------------------------------------------------------------------------------------


def jointly(function: Callable[..., Array], prunable, masks: Masks, *trees) -> Masks:
    """``function`` of all prunable leaves of the masks, and of other trees like them, as one vector each.

    Args:
        function: ``(bool[n], f32[n], ...) -> bool[n]``.
        prunable: which leaves; the others keep their mask.
    """
    leaves, treedef = jax.tree.flatten(masks)
    chosen = [i for i, flag in enumerate(jax.tree.leaves(prunable)) if flag]
    if not chosen:
        return masks
    flat = lambda tree: jnp.concatenate([jax.tree.leaves(tree)[i].ravel() for i in chosen])
    cuts = np.cumsum([leaves[i].size for i in chosen])[:-1]
    for i, part in zip(chosen, jnp.split(function(flat(masks), *map(flat, trees)), cuts), strict=True):
        leaves[i] = part.reshape(leaves[i].shape)
    return jax.tree.unflatten(treedef, leaves)


def global_(scores, masks: Masks, sparsity: Array, prunable) -> Masks:
    """One threshold over all prunable leaves jointly (the paper's choice)."""

    def prune(alive, score):
        return keep_largest(score, alive, share_of(sparsity, alive.size))

    return jointly(prune, prunable, masks, scores)


def per_layer(scores, masks: Masks, sparsity: Array, prunable) -> Masks:
    """The same sparsity in every prunable leaf."""

    def prune(score, mask, flag):
        if not flag:
            return mask
        keep = keep_largest(score.ravel(), mask.ravel(), share_of(sparsity, mask.size))
        return keep.reshape(mask.shape)

    return jax.tree.map(prune, scores, masks, prunable)


def erk(scores, masks: Masks, sparsity: Array, prunable) -> Masks:
    """Erdos-Renyi-Kernel: the same budget as `global_`, spread by the shapes of the leaves (Evci et al., arXiv
    1911.11134, after Mocanu et al., 2018).

    A leaf of sides ``d_1 ... d_m`` gets a density in proportion to ``(d_1 + ... + d_m) / (d_1 ... d_m)``, at most 1:
    small leaves stay denser than large ones, and no leaf is emptied while others are full.
    """
    leaves, treedef = jax.tree.flatten(masks)
    chosen = [i for i, flag in enumerate(jax.tree.leaves(prunable)) if flag]
    if not chosen:
        return masks
    total = sum(leaves[i].size for i in chosen)
    counts = erk_counts([leaves[i].shape for i in chosen], total - share_of(sparsity, total))
    for i, count in zip(chosen, counts, strict=True):
        score, leaf = jax.tree.leaves(scores)[i], leaves[i]
        leaves[i] = keep_largest(score.ravel(), leaf.ravel(), leaf.size - count).reshape(leaf.shape)
    return jax.tree.unflatten(treedef, leaves)


def erk_counts(shapes, total: Array) -> list[Array]:
    """Weights kept in each leaf, ``i32[]`` each, that sum up to ``total`` exactly.

    >>> [int(count) for count in erk_counts([(4, 4), (10, 10)], 45)]
    [13, 32]
    """
    sizes = np.array([math.prod(shape) for shape in shapes], np.int32)
    raw = np.array(
        [sum(shape) or 1 for shape in shapes], np.float32
    )  # density before scaling, times the size
    full = jnp.zeros(len(shapes), bool)
    for _ in shapes:  # a leaf that is full leaves the rest of its share to the others
        left = total - jnp.where(full, sizes, 0).sum()
        scale = left / jnp.maximum(jnp.where(full, 0, raw).sum(), 1e-9)
        full = full | (scale * raw >= sizes)
    ideal = jnp.where(full, sizes, scale * raw)
    counts = jnp.clip(jnp.floor(ideal).astype(jnp.int32), 0, sizes)
    by_remainder = jnp.argsort(jnp.argsort(counts - ideal))
    counts = jnp.minimum(counts + (by_remainder < total - counts.sum()), sizes)
    exact, missing = [], total - counts.sum()
    for count, size in zip(counts, sizes, strict=True):  # what float32 rounded away, on large models
        change = jnp.clip(missing, -count, int(size) - count)
        exact.append(count + change)
        missing = missing - change
    return exact


def with_floor(scope: Scope, floor: float) -> Scope:
    """A scope that leaves at least the share ``floor`` of every prunable leaf, rounded up: no leaf collapses.

    Under one threshold the count of the whole stays exact as long as the floors leave room for it; where they do not,
    and under scopes that give every leaf a count of its own, the floors win. A leaf that is below its floor already
    stays as it is: nothing is revived.
    """
    if not 0 <= floor < 1:
        raise UsageError(
            f"pruning.floor is {floor}: it is a share of each leaf, from 0 up to, but not including, 1."
        )
    if floor == 0:
        return scope

    def floored(scores, masks, sparsity, prunable):
        def best(score, mask):
            return keep_largest(
                score.ravel(), mask.ravel(), mask.size - math.ceil(floor * mask.size)
            ).reshape(mask.shape)

        safe = jax.tree.map(best, scores, masks)
        lifted = jax.tree.map(lambda keep, score: jnp.where(keep, jnp.inf, score), safe, scores)
        kept = scope(lifted, masks, sparsity, prunable)
        return jax.tree.map(lambda keep, mask, flag: keep | mask if flag else mask, safe, kept, prunable)

    return floored


# --- the rule of a method -----------------------------------------------------------------------


class Pruning(NamedTuple):
    """What a method prunes by: a choice from each registry, and who does it."""

    criterion: Criterion
    scope: Scope
    schedule: Schedule
    prunable: Callable[[Params], object]  # which leaves, a member of ``PRUNABLE``
    placement: tuple[str, ...] = ()  # any of ``PLACEMENTS``; none for a dense method
    iterations: int = (
        1  # at initialization: score and prune so many times, an equal factor of the density each
    )
    over: str = "all"  # at initialization: the batches of "all" clients, or of "one" that the seed chooses
    gate: float = 0.0  # on arrival: least share of right predictions with which a client prunes
    rewind: bool = True  # on arrival: a client that has pruned begins again from the initial weights

    def select(self, scores, masks: Masks, sparsity: Array) -> Masks:
        """The masks with ``sparsity`` reached."""
        return self.scope(scores, masks, sparsity, self.prunable(masks))


def scorer(criterion: Criterion, objective: Callable, apply: Callable) -> Callable:
    """``(params, key, chunk) -> scores``: a criterion on the batches of one client.

    Args:
        criterion: scores one batch, or needs none.
        objective: ``(params, batch) -> f32[]``, the mean loss of the valid examples.
        apply: the network.

    Returns:
        The mean over the batches ``[T, B, ...]`` that hold a valid example; without data, the criterion itself.
    """
    if not criteria.takes_data(criterion):
        return lambda params, key, chunk: criterion(params, key=key)

    def score(params: Params, key: Key, chunk: Chunk):
        def add(total, batch):
            fresh = criterion(params, key=key, objective=objective, apply=apply, batch=batch)
            present = batch.valid.any()
            return jax.tree.map(lambda a, b: a + jnp.where(present, b, 0), total, fresh), present

        total, present = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), chunk)
        return jax.tree.map(lambda leaf: leaf / jnp.maximum(present.sum(), 1), total)

    return score


def everything(params: Params | Masks):
    """All leaves may be pruned, biases included: the paper's choice."""
    return jax.tree.map(lambda _: True, params)


def kernels(params: Params | Masks):
    """Only leaves with at least two axes: biases stay whole."""
    return jax.tree.map(lambda w: w.ndim > 1, params)


SCOPES: dict[str, Scope] = {
    "global": global_,
    "per_layer": per_layer,
    "erk": erk,
}

PRUNABLE = {
    "everything": everything,
    "kernels": kernels,
}

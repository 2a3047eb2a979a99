"""How a budget is spread over the leaves of a model, and which leaves may be pruned at all.

A scope gets scores, masks and a sparsity, and gives masks of exactly that sparsity (`selection.keep_largest`).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array, Masks, Params, Scope
from fedsparse_jax.sparsity.selection import keep_largest, share_of


def apply_to_flat_leaves(function: Callable[..., Array], prunable, masks: Masks, *trees) -> Masks:
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

    return apply_to_flat_leaves(prune, prunable, masks, scores)


def per_layer(scores, masks: Masks, sparsity: Array, prunable) -> Masks:
    """The same sparsity in every prunable leaf."""

    def prune(score, mask, flag):
        if not flag:
            return mask
        return keep_count(score, mask, mask.size - share_of(sparsity, mask.size))

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
        leaves[i] = keep_count(jax.tree.leaves(scores)[i], leaves[i], count)
    return jax.tree.unflatten(treedef, leaves)


def keep_count(score: Array, mask: Array, count: Array) -> Array:
    """The mask of one leaf with only the ``count`` largest scores."""
    return keep_largest(score.ravel(), mask.ravel(), mask.size - count).reshape(mask.shape)


def erk_counts(shapes, total: Array) -> list[Array]:
    """Weights kept in each leaf, ``i32[]`` each, that sum up to ``total`` exactly.

    >>> [int(count) for count in erk_counts([(4, 4), (10, 10)], 45)]
    [13, 32]
    """
    sizes = np.array([math.prod(shape) for shape in shapes], np.int32)
    room = sizes.astype(np.float32)
    raw = np.array([sum(shape) or 1 for shape in shapes], np.float32)  # density before scaling, times the size
    full = jnp.zeros(len(shapes), bool)
    for _ in shapes:  # a leaf that is full leaves the rest of its share to the others
        left = (total - jnp.where(full, sizes, 0).sum()).astype(jnp.float32)
        scale = left / jnp.maximum(jnp.where(full, 0, raw).sum(), 1e-9)
        full = full | (scale * raw >= room)
    return whole_counts(jnp.where(full, room, scale * raw), sizes, total)


def whole_counts(ideal: Array, sizes: np.ndarray, total: Array) -> list[Array]:
    """Counts near ``ideal f32[L]``, ``i32[]`` each, at most ``sizes i32[L]``, that sum up to ``total`` exactly; the
    largest remainders are rounded up.

    >>> [int(count) for count in whole_counts(jnp.array([1.5, 2.25, 0.25]), np.array([4, 4, 4], np.int32), 4)]
    [2, 2, 0]
    """
    counts = jnp.clip(jnp.floor(ideal).astype(jnp.int32), 0, sizes)
    by_remainder = jnp.argsort(jnp.argsort(counts.astype(jnp.float32) - ideal))
    rounded_up = by_remainder < total - counts.sum()
    counts = jnp.minimum(counts + rounded_up.astype(jnp.int32), sizes)
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
        raise ArgumentError("floor", floor, "it is a share of each leaf, from 0 up to, but not including, 1")
    if floor == 0:
        return scope

    def floored(scores, masks, sparsity, prunable):
        best = lambda score, mask: keep_count(score, mask, math.ceil(floor * mask.size))
        safe = jax.tree.map(best, scores, masks)
        lifted = jax.tree.map(lambda keep, score: jnp.where(keep, jnp.inf, score), safe, scores)
        kept = scope(lifted, masks, sparsity, prunable)
        return jax.tree.map(lambda keep, mask, flag: keep | mask if flag else mask, safe, kept, prunable)

    return floored


def everything(params: Params | Masks):
    """All leaves may be pruned, biases included: the paper's choice."""
    return jax.tree.map(lambda _: True, params)


def kernels(params: Params | Masks):
    """Only leaves with at least two axes: biases stay whole."""
    return jax.tree.map(lambda w: w.ndim > 1, params)


SCOPES: dict[str, Scope] = {"global": global_, "per_layer": per_layer, "erk": erk}

PRUNABLE = {"everything": everything, "kernels": kernels}

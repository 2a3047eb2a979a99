"""What may come back: rules that drop small weights and let others grow in their place.

A rule knows one model: its params, its mask, and a score for every weight, pruned ones included, that says how
much the loss would feel it (`criteria.squared_gradient`). What was pruned before starts from zero; what a rule drops
and takes back at once keeps its value. Nothing here changes a leaf that is not prunable.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array, Masks, Params, RegrowthRule
from fedsparse_jax.sparsity.criteria import Criterion
from fedsparse_jax.sparsity.scopes import apply_to_flat_leaves
from fedsparse_jax.sparsity.selection import keep_largest, share_of


class Regrowth(NamedTuple):
    """When and by what rule a method lets weights come back; where in the round, its hook says."""

    rule: RegrowthRule
    criterion: Criterion  # scores what may grow
    begin: int  # first round
    every: int  # rounds between two
    end: int  # last round

    def due(self, t: Array) -> Array:
        """bool[]: whether masks are readjusted in round ``t``."""
        return (t >= self.begin) & (t <= self.end) & ((t - self.begin) % self.every == 0)


def swap(
    *, fraction: float = 0.5, end: int = 20, anneal: bool = True, dropped_may_return: bool = False
) -> RegrowthRule:
    r"""As many back as dropped, leaf by leaf: the counts stay what they are (FedDST, arXiv 2112.09824; RigL, arXiv
    1911.11134; with random scores and without annealing SET, arXiv 1707.04780).

    .. math:: \alpha_t = \tfrac{\alpha}{2} (1 + \cos(\pi t / T_{end}))

    of the kept weights of a leaf, the smallest ones, are dropped, and as many of those that were pruned before grow,
    the scores farthest from zero. A full leaf stays as it is.

    Args:
        fraction: alpha, share of the kept weights. (The published code multiplies by alpha twice: for its reading
            give the square.)
        end: T_end, the round in which the share reaches zero.
        anneal: whether the share falls; else it is alpha in every round.
        dropped_may_return: whether what was just dropped may grow as well; it then keeps its value.
    """
    _check_fraction(fraction)

    def rule(params: Params, masks: Masks, scores, t: Array, sparsity: Array, prunable) -> Masks:
        progress = jnp.clip(t / end, 0, 1)
        share = fraction / 2 * (1 + jnp.cos(jnp.pi * progress)) if anneal else jnp.float32(fraction)

        def readjust(weight, mask, score, flag):
            if not flag:
                return mask
            flat, alive = jnp.abs(weight).ravel(), mask.ravel()
            kept = alive.sum(dtype=jnp.int32)
            count = share_of(share, kept)
            count = count if dropped_may_return else jnp.minimum(count, flat.size - kept)
            stay = keep_largest(flat, alive, flat.size - kept + count)
            may_grow = ~stay if dropped_may_return else ~alive
            grown = keep_largest(jnp.abs(score).ravel(), may_grow, flat.size - count)
            return (stay | grown).reshape(mask.shape)

        return jax.tree.map(readjust, params, masks, scores, prunable)

    return rule


def greedy(*, fraction: float = 0.3, halving: float = 10_000, fixed: float = 0.1, costs=()) -> RegrowthRule:
    r"""Grow while it pays: what raises the importance won per unit of a round's time (PruneFL, arXiv 1909.12326).

    Every leaf frees the share :math:`d_t = d\,2^{-t / h}` of its kept weights, the smallest. Freed and pruned weights
    of all leaves then come (back) from the highest :math:`g^2 / c_l` on, as long as it is above

    .. math:: \Gamma = \sum_{kept} g^2 / (c_0 + \sum_l c_l n_l),

    the importance per unit of time so far, and until the sparsity falls to the one that the schedule asks for (the
    paper's bound on the density). Density is therefore an outcome.

    Args:
        fraction: d, .3 in the published code.
        halving: h, rounds in which the share halves; 10,000 there.
        fixed: c_0, what a round costs at any density, as a share of what all prunable weights cost.
        costs: pairs of a leaf's name and c_l, the time that one of its weights takes in a round (the paper measures
            it); 1 for leaves that are not named.
    """
    _check_fraction(fraction)
    if fixed < 0 or halving <= 0:
        name, value = ("fixed", fixed) if fixed < 0 else ("halving", halving)
        raise ArgumentError(name, value, "fixed may not be negative, and halving must be positive")

    def rule(params: Params, masks: Masks, scores, t: Array, sparsity: Array, prunable) -> Masks:
        share = fraction * 0.5 ** (t / halving)

        def free(weight, mask, flag):
            kept = mask.sum(dtype=jnp.int32)
            gone = mask.size - kept + share_of(share, kept)
            rest = keep_largest(jnp.abs(weight).ravel(), mask.ravel(), gone)
            return rest.reshape(mask.shape) if flag else mask

        held = jax.tree.map(free, params, masks, prunable)
        prices = [dict(costs).get(name, 1.0) for name in tree.leaf_names(held)]
        price = jax.tree.unflatten(jax.tree.structure(held), prices)
        price = jax.tree.map(lambda leaf, cost: jnp.full(leaf.shape, cost), held, price)
        grow = lambda alive, score, cost: alive | _worthwhile(alive, score, cost, fixed, sparsity)
        return apply_to_flat_leaves(grow, prunable, held, scores, price)

    return rule


def _worthwhile(held: Array, scores: Array, price: Array, fixed: float, sparsity: Array) -> Array:
    """The weights outside ``held [n]`` that `greedy` adds, ``bool[n]``."""
    order = jnp.argsort(jnp.where(held, -jnp.inf, scores / price), descending=True)
    gain, pay = scores[order], price[order]
    before = jnp.where(held, scores, 0).sum() + jnp.cumsum(gain) - gain  # importance without this one
    cost = fixed * price.sum() + jnp.where(held, price, 0).sum() + jnp.cumsum(pay) - pay
    pays = (gain * cost > before * pay) & ~held[order]
    room = held.size - share_of(sparsity, held.size) - held.sum()
    count = jnp.minimum(jnp.cumprod(pays.astype(jnp.int32)).sum(), room)
    return jnp.zeros(held.size, bool).at[order].set(jnp.arange(held.size) < count)


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1 or not math.isfinite(fraction):
        raise ArgumentError("fraction", fraction, "it is a share of the kept weights, from 0 to 1")


REGROWTH: dict[str, Callable[..., RegrowthRule]] = {"swap": swap, "greedy": greedy}

"""How much is pruned, when: round to sparsity, the share of prunable weights that are zero after it.

Rounds count from 1. Each factory checks its arguments and returns a function that can be traced.
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Schedule
from fedsparse_jax.sparsity.pacing import check_sparsity, paced


def gradual(initial=0.0, final=0.95, begin=1, end=40, *, power=3.0, every=1) -> Schedule:
    r"""Sparsity that rises fast at first and flattens towards the end.

    .. math:: s(t) = s_f + (s_0 - s_f)\,(1 - \tfrac{q(t) - t_0}{T - t_0})^n, \quad q(t) = F \lfloor t / F \rfloor

    (FedSparsify, arXiv 2208.11669; the curve is that of Zhu and Gupta, arXiv 1710.01878.) From ``end`` on it is
    ``final`` exactly, also where ``every`` does not divide ``end``.

    Args:
        initial: s_0, share of prunable weights that are zero, in [0, 1).
        final: s_f, same unit.
        begin: t_0, in rounds; s(t) = s_0 up to it.
        end: T, in rounds; s(t) = s_f from it on.
        power: n, 3 in the paper.
        every: F, rounds between two prunings.

    >>> s = gradual(0.0, 0.8, begin=0, end=10)
    >>> [round(float(s(t)), 3) for t in (0, 5, 10, 99)]
    [0.0, 0.7, 0.8, 0.8]
    """
    check_sparsity("initial", initial)
    check_sparsity("final", final)
    if not 0 <= begin < end:
        raise ArgumentError("begin", begin, f"it must be at least 0 and below end, {end}")
    _check_every(every)
    curve = optax.polynomial_schedule(initial, final, power, end - begin, begin)

    def schedule(t):
        t = jnp.asarray(t, jnp.int32)
        return jnp.where(t >= end, final, curve(t // every * every)).astype(jnp.float32)

    return schedule


def constant(final=0.95) -> Schedule:
    """The same sparsity after every round.

    >>> float(constant(0.5)(3))
    0.5
    """
    check_sparsity("final", final)
    return lambda t: jnp.full_like(jnp.asarray(t, jnp.float32), final)


def one_shot(final=0.95, at=1) -> Schedule:
    """Dense before round ``at``, ``final`` from it on.

    >>> [float(one_shot(0.5, at=3)(t)) for t in (2, 3)]
    [0.0, 0.5]
    """
    check_sparsity("final", final)
    return lambda t: jnp.where(jnp.asarray(t) >= at, final, 0.0).astype(jnp.float32)


def step_wise(final=0.95, at=(10, 20, 30), levels=()) -> Schedule:
    """Stairs: another sparsity from each round of ``at`` on, dense before the first.

    Args:
        final: sparsity after the last step.
        at: rounds of the steps, rising.
        levels: sparsity from each of these rounds on, the last one being ``final``; empty for equal steps.

    >>> [round(float(step_wise(0.9, at=(2, 4, 5))(t)), 3) for t in (1, 2, 3, 4, 5, 9)]
    [0.0, 0.3, 0.3, 0.6, 0.9, 0.9]
    """
    check_sparsity("final", final)
    if not at or sorted(set(at)) != list(at):
        raise ArgumentError("at", tuple(at), "it lists the rounds of the steps, rising")
    heights = tuple(levels) or (*(final * i / len(at) for i in range(1, len(at))), final)
    if len(heights) != len(at) or heights[-1] != final:
        rule = f"it needs one sparsity for each of the {len(at)} steps, the last one being final, {final}"
        raise ArgumentError("levels", heights, rule)
    for height in heights:
        check_sparsity("levels", height)
    stairs = jnp.asarray((0.0, *heights), jnp.float32)
    return lambda t: stairs[(jnp.asarray(t)[..., None] >= jnp.asarray(at)).sum(-1)]


def multiplicative(final=0.95, rate=0.2, begin=1, every=1) -> Schedule:
    r"""Each pruning takes the same share of what remains: :math:`s = \min(s_f, 1 - (1 - r)^k)` after k prunings.

    Args:
        final: s_f, where it stops.
        rate: r, share of the remaining weights that a pruning takes, in (0, 1].
        begin: round of the first pruning.
        every: rounds between two prunings.

    >>> [round(float(multiplicative(0.5, rate=0.2, begin=2)(t)), 3) for t in (1, 2, 3, 4, 5)]
    [0.0, 0.2, 0.36, 0.488, 0.5]
    """
    check_sparsity("final", final)
    if not 0 < rate <= 1:
        raise ArgumentError("rate", rate, "it is a share above 0 and up to 1")
    _check_every(every)

    def schedule(t):
        prunings = jnp.maximum((jnp.asarray(t, jnp.int32) - begin) // every + 1, 0)
        remaining = jnp.float32(1 - rate) ** prunings.astype(jnp.float32)
        return jnp.minimum(1 - remaining, final).astype(jnp.float32)

    return schedule


def _check_every(every: int) -> None:
    if every < 1:
        raise ArgumentError("every", every, "it counts rounds and must be at least 1")


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "gradual": gradual,
    "constant": constant,
    "one_shot": one_shot,
    "step_wise": step_wise,
    "multiplicative": multiplicative,
    "paced": paced,
}

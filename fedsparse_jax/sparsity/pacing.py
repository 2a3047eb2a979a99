"""A schedule that looks: pruning begins when learning has, and advances while the federation bears it.

A fixed schedule must know beforehand how fast a federation learns. This one reads it from the mean training loss that
the clients report. It is a pure function of a small state, `Pace`, which the server keeps and every checkpoint holds.
"""

from typing import NamedTuple

import jax.numpy as jnp

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array


class Pace(NamedTuple):
    """What a paced schedule remembers between rounds."""

    first: Array  # f32[], the first loss that was reported; NaN before
    progress: Array  # f32[], share of the way to the final sparsity, in [0, 1]


class Paced(NamedTuple):
    """A `Schedule` that a `Pace` drives; see `paced`. Called without one, it gives the least that it will ask for."""

    final: float
    end: int  # the first round at the final sparsity, at the latest
    steps: int
    power: float
    learned: float

    def __call__(self, t: Array | int, pace: Pace | None = None) -> Array:
        """Sparsity after round ``t``, by what was reported in the rounds before it: ``f32[]``."""
        t = jnp.asarray(t, jnp.int32)
        curve = self.final * (1 - (1 - self._progress(t, pace)) ** self.power)
        return jnp.where(t >= self.end, self.final, curve).astype(jnp.float32)

    def init(self) -> Pace:
        """The state before round 1."""
        return Pace(jnp.float32(jnp.nan), jnp.float32(0))

    def update(self, pace: Pace, t: Array, loss: Array) -> Pace:
        """The state after round ``t``.

        Args:
            pace: before it.
            t: ``i32[]``.
            loss: ``f32[]``, mean training loss of the clients that counted; NaN where nobody reported one.
        """
        first = jnp.where(jnp.isnan(pace.first), loss, pace.first)
        bears = loss <= self.learned * first  # no comparison holds with NaN
        progress = self._progress(t, pace) + jnp.where(bears, 1 / self.steps, 0)
        return Pace(first, jnp.minimum(progress, 1).astype(jnp.float32))

    def _progress(self, t: Array, pace: Pace | None) -> Array:
        """Progress in round ``t``: what was earned, and at least what the end demands."""
        due = (t - (self.end - self.steps)) / self.steps
        earned = jnp.float32(0) if pace is None else pace.progress
        return jnp.maximum(earned, jnp.clip(due, 0, 1)).astype(jnp.float32)


def paced(final=0.95, rounds=40, *, steps=0.5, recover=0.2, power=3.0, learned=0.5) -> Paced:
    r"""Sparsity that waits until the federation learns, and pauses where pruning hurts.

    .. math:: s = s_f\,(1 - (1 - p)^n)

    The progress p rises by one step after each round whose training loss is at most the share ``learned`` of the first
    round's. Near the end it rises whatever is reported, so that the last rounds are at the final sparsity. The curve is
    that of `schedules.gradual`, with p in the place of the time that has passed.

    Args:
        final: s_f, share of prunable weights that are zero in the end.
        rounds: of the run; a config supplies them.
        steps: steps of p from 0 to 1, as a share of all rounds: as fast as that pruning may be.
        recover: share of all rounds, at least, that train at the final sparsity.
        power: n, 3 in FedSparsify.
        learned: share of the first loss.

    >>> schedule = paced(0.8, 10, steps=0.2, recover=0.1)
    >>> pace = schedule.update(schedule.init(), 1, 10.0)
    >>> for t, loss in ((2, 7.0), (3, 4.0), (4, 6.0), (5, 5.0)):
    ...     pace = schedule.update(pace, t, loss)
    ...     print(round(float(schedule(t + 1, pace)), 3))
    0.0
    0.7
    0.7
    0.8
    """
    check_sparsity("final", final)
    for name, share in (("steps", steps), ("recover", recover)):
        if not 0 <= share < 1:
            raise ArgumentError(name, share, "it is a share of the rounds, from 0 up to, but not including, 1")
    if not learned > 0:
        raise ArgumentError("learned", learned, "it is a share of the first loss, above 0")
    reached = max(1, rounds - round(recover * rounds))
    return Paced(final, reached, min(max(1, round(steps * rounds)), reached), power, learned)


def check_sparsity(name: str, value: float) -> None:
    """Refuses what is no sparsity; an `ArgumentError` that names the argument."""
    if not 0 <= value <= 1:
        raise ArgumentError(name, value, "a sparsity lies between 0 and 1")

"""A schedule that looks: pruning begins when learning has begun, and advances as fast as the federation bears it.

A fixed schedule must know beforehand how fast a federation learns. This one reads it from what the clients report:
the loss of the model that they were sent, on the first examples of their training. It is a pure function of a small
state, `Pace`, which the server keeps and every checkpoint holds.
"""

from typing import NamedTuple

import jax.numpy as jnp

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array


class Pace(NamedTuple):
    """What a paced schedule remembers between rounds; losses are 0 before the first report."""

    reports: Array  # i32[], rounds in which some client reported a loss
    first: Array  # f32[], the loss of the model that has learned nothing
    recent: Array  # f32[], running mean of the losses
    best: Array  # f32[], the lowest running mean so far
    progress: Array  # f32[], share of the way to the final sparsity, in [0, 1]


class Paced(NamedTuple):
    """A `Schedule` that a `Pace` drives. Called without one, it gives the least that it will ask for."""

    final: float
    begin: int
    end: int
    steps: int
    power: float
    learned: float
    slack: float
    memory: float

    def __call__(self, t: Array | int, pace: Pace | None = None) -> Array:
        """Sparsity after round ``t``, by what was reported in the rounds before it: ``f32[]``."""
        t = jnp.asarray(t, jnp.int32)
        return jnp.where(t >= self.end, self.final, self._curve(self._progress(t, pace))).astype(jnp.float32)

    def init(self) -> Pace:
        """The state before round 1."""
        nothing = jnp.float32(0)
        return Pace(jnp.int32(0), nothing, nothing, nothing, nothing)

    def update(self, pace: Pace, t: Array, loss: Array) -> Pace:
        """The state after round ``t``.

        Args:
            pace: before it.
            t: ``i32[]``.
            loss: ``f32[]``, mean of the clients who counted; NaN where nobody reported one, which changes nothing but
                the progress that the end demands.
        """
        known = jnp.isfinite(loss)
        is_first = known & (pace.reports == 0)
        recent = jnp.where(is_first, loss, self.memory * pace.recent + (1 - self.memory) * loss)
        seen = Pace(
            reports=pace.reports + known,
            first=jnp.where(is_first, loss, pace.first),
            recent=jnp.where(known, recent, pace.recent),
            best=jnp.where(known, jnp.where(is_first, loss, jnp.minimum(pace.best, recent)), pace.best),
            progress=self._progress(t, pace),
        )
        learns = (seen.best <= self.learned * seen.first) & (t >= self.begin)
        bears = seen.recent <= (1 + self.slack) * seen.best
        step = jnp.where(known & learns & bears, 1 / self.steps, 0)
        return seen._replace(progress=jnp.minimum(seen.progress + step, 1).astype(jnp.float32))

    def _progress(self, t: Array, pace: Pace | None) -> Array:
        """Progress in round ``t``: what was earned, and at least what must be for the end to be kept."""
        due = (t - (self.end - self.steps)) / self.steps
        earned = jnp.float32(0) if pace is None else pace.progress
        return jnp.maximum(earned, jnp.clip(due, 0, 1)).astype(jnp.float32)

    def _curve(self, progress: Array) -> Array:
        return self.final * (1 - (1 - progress) ** self.power)


def paced(final=0.95, end=40, *, begin=1, steps=8, power=3.0, learned=0.8, slack=0.03, memory=0.5) -> Paced:
    r"""Sparsity that waits for the federation to learn, and pauses where pruning hurts.

    .. math:: s = s_f\,(1 - (1 - p)^n)

    The progress p rises by ``1/steps`` after a round in which the model has learned and bears it; it is 1 from ``end``
    on, whatever is reported. The curve is that of `schedules.gradual`, with p for the share of time that has passed.

    Args:
        final: s_f, share of prunable weights that are zero in the end.
        end: first round at the final sparsity at the latest.
        begin: round before which nothing is pruned.
        steps: rounds that pruning takes at least.
        power: n, 3 in FedSparsify.
        learned: learning has begun once the loss fell to this share of the first one.
        slack: pruning pauses while the loss is above its best by more than this share.
        memory: of the running mean of losses, in [0, 1): 0 takes the last loss alone.
    """
    if not 0 <= final <= 1:
        raise ArgumentError("final", final, "a sparsity lies between 0 and 1")
    if not 1 <= steps <= end:
        raise ArgumentError("steps", steps, f"it counts rounds, from 1 to end, {end}")
    if not learned > 0:
        raise ArgumentError("learned", learned, "it is a share of the first loss, above 0")
    if not 0 <= memory < 1:
        raise ArgumentError("memory", memory, "it lies between 0 and 1")
    return Paced(final, begin, end, steps, power, learned, slack, memory)

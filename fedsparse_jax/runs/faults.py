"""Clients that fail in a simulation: they drop out in mid-round, or come too late. Who fails is drawn from the seed."""

from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.streams import Stream
from fedsparse_jax.core.types import Absence


class Faults(NamedTuple):
    """How often clients fail. By default nobody does."""

    dropout: float = 0.0  # chance that a client drops out of a round after it was sent the model
    stragglers: float = 0.0  # chance that a client is slow in a round
    straggler_factor: float = 4.0  # how many times as long as otherwise a slow client takes
    deadline: float = 0.0  # for how many times the cohort's median time the server waits; 0 until all are there


def check_faults(faults: Faults) -> None:
    """Refuses settings that mean nothing.

    Raises:
        ArgumentError: a chance outside [0, 1], a factor below 1, a negative deadline.
    """
    for name in ("dropout", "stragglers"):
        if not 0 <= getattr(faults, name) <= 1:
            raise ArgumentError(name, getattr(faults, name), "it is a chance, from 0 to 1")
    if not faults.straggler_factor >= 1:
        raise ArgumentError("straggler_factor", faults.straggler_factor, "a slow client takes at least 1 times as long")
    if not faults.deadline >= 0:
        raise ArgumentError("deadline", faults.deadline, "it must not be negative")


def who_fails(faults: Faults, seed: int, round_: int, ids: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Why each client's model does not reach the server in time, ``i32[C]``: an `Absence`, 0 where it does.

    A client takes as long as its local steps, and longer if it is slow. Its fate depends on seed, round and its own
    number alone.

    Args:
        faults: how often clients fail.
        seed, round_: of the run.
        ids: the cohort, ``i32[C]``.
        steps: local steps of each client, ``[C]``; a client without any has no data.

    >>> late = Faults(stragglers=1.0, straggler_factor=3.0, deadline=2.0)
    >>> who_fails(late, 1, 1, np.array([0, 1]), np.array([4, 2])).tolist()  # 12 and 6 steps' time, at most 2 * 4
    [3, 0]
    """
    without_data = np.where(steps > 0, Absence.NONE, Absence.NO_DATA).astype(np.int32)
    if not faults.dropout and not faults.deadline:  # nobody else can fail, so that nothing is drawn
        return without_data
    draws = np.array([np.random.default_rng([seed, Stream.FAULTS, round_, int(i)]).random(2) for i in ids])
    drops_out, slow = [[faults.dropout], [faults.stragglers]] > draws.reshape(-1, 2).T
    seconds = steps * np.where(slow, faults.straggler_factor, 1.0)
    usual = np.median(steps[steps > 0]) if (steps > 0).any() else 0.0
    late = seconds > faults.deadline * usual if faults.deadline else np.zeros(len(ids), bool)
    reason = np.where(late, Absence.LATE, Absence.NONE)
    reason = np.where(drops_out, Absence.DROPPED_OUT, reason)
    return np.where(without_data, without_data, reason).astype(np.int32)

"""Runs of the toy federation that are stopped on the way, and what is compared afterwards."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax

from fedsparse_jax.core.types import ServerState
from fedsparse_jax.runs import RoundRecord, checkpoint
from tests.helpers import toy_federation

QUIET = lambda line: None  # a ``print_fn`` that says nothing


class Killed(BaseException):
    """Nothing catches it: as good as a signal."""


def stop_after(round_: int) -> Callable[[str], None]:
    """A ``print_fn`` that kills the run as soon as ``round_`` is finished."""

    def print_fn(line: str) -> None:
        if line.startswith(f"round {round_}/"):
            raise Killed

    return print_fn


def die_before_saving(round_: int) -> Callable:
    """A ``checkpoint.save_checkpoint`` that kills the run before a round is on disk."""
    save = checkpoint.save_checkpoint

    def dies(manager, server, log):
        if int(server.round) == round_:
            raise Killed
        save(manager, server, log)

    return dies


def without_time(records: list[RoundRecord]) -> list[RoundRecord]:
    """The records with the wall time of each set to zero."""
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def final_state(workdir: Path, rounds: int = 5) -> ServerState:
    """The newest state in the folder of a run of `toy_federation.experiment`."""
    init = toy_federation.experiment(rounds).algorithm.init
    with checkpoint.open_manager(workdir) as manager:
        return checkpoint.restore_checkpoint(manager, jax.eval_shape(init, jax.random.key(0)))

"""Jobs of a study in several processes at a time, where one job does not fill the machine."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.processes import when_parent_ends


def do_one_by_one(
    do: Callable[[Any], Any], jobs: Mapping[int, Any], announce: Callable[[int], None]
) -> Iterator[tuple[int, Any]]:
    """As `do_side_by_side`, in this process."""
    for number, job in jobs.items():
        announce(number)
        yield number, do(job)


def do_side_by_side(
    do: Callable[[Any], Any],
    jobs: Mapping[int, Any],
    announce: Callable[[int], None],
    at_once: int,
    begin: Callable[[], object],
) -> Iterator[tuple[int, Any]]:
    """``(number, do(job))`` of each job, as they come; each process does one job after another.

    Args:
        do: a function of a module, whose argument and result can be pickled.
        jobs: by their numbers, in the order in which they begin.
        announce: told the number of a job that begins.
        at_once: how many processes.
        begin: a function of a module, called first in each process.

    Raises:
        UsageError: a process has ended in the middle of a job.
    """
    waiting, running = deque(jobs), dict[Future, int]()
    fresh = multiprocessing.get_context("spawn")  # JAX does not bear a fork
    pool = ProcessPoolExecutor(at_once, mp_context=fresh, initializer=_begin, initargs=(os.getpid(), begin))
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.popleft()
                announce(number)
                running[pool.submit(do, jobs[number])] = number
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()
    except BrokenProcessPool:
        raise UsageError(
            "A process of the study has ended in the middle of a run, as for lack of memory; lower --at_once. Finished "
            "rounds are safe, and the same command goes on from there."
        ) from None
    finally:
        for process in multiprocessing.active_children():  # none works any more unless this ends early
            process.kill()
        pool.shutdown()


def _begin(parent: int, begin: Callable[[], object]) -> None:
    """What a process does first; it leaves an interrupt to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    when_parent_ends(lambda: os._exit(1), parent)
    begin()

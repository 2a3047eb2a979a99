"""Jobs of a study in several processes at a time, where one job does not fill the machine."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fedsparse_jax.core.errors import UsageError


def do_one_by_one(
    do: Callable[..., Any], jobs: Sequence[tuple], announce: Callable[[int], None]
) -> Iterator[tuple[int, Any]]:
    """As `do_side_by_side`, in this process."""
    for place, job in enumerate(jobs):
        announce(place)
        yield place, do(*job)


def do_side_by_side(
    do: Callable[..., Any],
    jobs: Sequence[tuple],
    announce: Callable[[int], None],
    at_once: int,
    begin: Callable[[], object],
) -> Iterator[tuple[int, Any]]:
    """``(place, do(*jobs[place]))`` of each job, as they come; each process does one job after another.

    Args:
        do: a function of a module, with arguments and a result that can be pickled.
        jobs: the arguments of each.
        announce: told the place of a job that begins.
        at_once: how many processes.
        begin: a function of a module, called first in each process.

    Raises:
        UsageError: a process has ended in the middle of a job.
    """
    waiting, running = deque(range(len(jobs))), dict[Future, int]()
    fresh = multiprocessing.get_context("spawn")  # JAX does not bear a fork
    pool = ProcessPoolExecutor(at_once, mp_context=fresh, initializer=_begin, initargs=(os.getpid(), begin))
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                place = waiting.popleft()
                announce(place)
                running[pool.submit(do, *jobs[place])] = place
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
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    begin()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

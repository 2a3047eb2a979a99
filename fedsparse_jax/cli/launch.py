"""Flags of a command that may run as many processes, on one host or many, and how these are started and ended."""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from fedsparse_jax.core.errors import UsageError

if TYPE_CHECKING:
    from fedsparse_jax.runs.host_link import HostLink

FOUND, LOOPBACK = "auto", "127.0.0.1:9911"
HEARTBEAT, MEETING = 30, 120.0  # seconds
ENDED_BY_ANOTHER = 3
_LAUNCHERS = (  # Open MPI; MPICH, Intel MPI and others; SLURM
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_NTASKS", "SLURM_PROCID"),
)


def hosts_flags() -> None:
    """Defines ``--num_processes``, ``--process_id``, ``--coordinator`` and ``--meeting_seconds``."""
    flags.DEFINE_integer("num_processes", None, "How many processes share the clients of this run.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0; process 0 writes.", lower_bound=0)
    flags.DEFINE_string(
        "coordinator",
        None,
        f"HOST:PORT at which process 0 listens, {LOOPBACK} by default, which only this host reaches; 'auto' finds all "
        "three in the environment of SLURM, Open MPI or whatever else JAX knows.",
    )
    flags.DEFINE_float("meeting_seconds", MEETING, "How long the processes wait for one another at the start.")


def wants_hosts() -> bool:
    """Whether the command line asks for more than this process."""
    return "coordinator" in flags.FLAGS and any(flags.FLAGS[name].value is not None for name in _WHERE)


_WHERE = ("coordinator", "num_processes", "process_id")


@contextlib.contextmanager
def many_hosts() -> Iterator["HostLink | None"]:
    """The link to the other processes while the body runs; None where this process is alone, also as one of one.

    JAX must not have been used before. Where the body fails, the others end as well.

    Raises:
        UsageError: the flags do not say who is who, or not all processes come.
    """
    who = _who_is_who() if wants_hosts() else None
    if who is None or who[1] == 1:
        yield None
        return
    import jax

    from fedsparse_jax.cli.process import check_platform
    from fedsparse_jax.runs.host_link import meet

    address, count, index, devices = who
    link, coordinator = meet(address, index, count, flags.FLAGS.meeting_seconds, _end_at_once)
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
    _put_off_aborts()
    with _all_or_none(link):
        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
        jax.distributed.initialize(
            coordinator,
            num_processes=count,
            process_id=index,
            local_device_ids=devices,
            cluster_detection_method="deactivate",
            initialization_timeout=int(MEETING),
            heartbeat_timeout_seconds=HEARTBEAT,
            coordinator_bind_address=coordinator if index == 0 else None,
        )
        check_platform()
        yield link


def _put_off_aborts() -> None:
    """Lets every abort of this process wait for six seconds, in which the link ends it with a sentence.

    JAX aborts a process as soon as process 0 is gone, and has no way to tell it otherwise. The wait is the C library's
    own ``sleep``, called with the signal's number, 6: Python cannot act in a process that aborts.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


@contextlib.contextmanager
def _all_or_none(link: "HostLink") -> Iterator[None]:
    """Ends all processes together: in peace if the body ends, and else at once."""
    try:
        yield
        link.close()
    except BaseException as error:
        if not isinstance(error, UsageError | OSError | KeyboardInterrupt):
            time.sleep(2)  # an operation on all hosts fails where one of them is gone, which the link then tells
        link.abort()
        raise


def _who_is_who() -> tuple[str, int, int, Sequence[int] | None]:
    """``(address, count, index, devices)`` by the flags or the environment; devices None for all of the host."""
    address, count, index = (flags.FLAGS[name].value for name in _WHERE)
    devices: Sequence[int] | None = None
    if address != FOUND and count is None and index is None:
        count, index = _of_launcher()
    if address == FOUND:
        from jax._src.clusters import ClusterEnv  # JAX tells in no public way what it finds

        found = ClusterEnv.auto_detect_unset_distributed_params(None, count, index, None, None, int(MEETING))
        address, count, index, devices = found
        if None in found[:3]:
            raise UsageError(
                "--coordinator=auto finds neither SLURM nor Open MPI nor another launcher in the environment; start "
                "the command by srun or mpirun, or give --num_processes, --process_id and --coordinator=HOST:PORT."
            )
    if count is None or index is None or index >= count:
        raise UsageError(
            f"--num_processes is {count} and --process_id is {index}; give both, the second from 0 to one below the "
            "first, or --coordinator=auto under SLURM or Open MPI."
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    alone = devices and visible is not None and max(devices) >= len(visible.split(","))  # each task sees its own GPU
    if alone or os.environ.get("JAX_LOCAL_DEVICE_IDS"):  # which JAX reads itself
        devices = None
    return address or LOOPBACK, count, index, devices


def _of_launcher() -> tuple[int | None, int | None]:
    """``(count, index)`` as a launcher tells them; None where there is none."""
    for names in _LAUNCHERS:
        told = [os.environ.get(name, "") for name in names]
        if all(map(str.isdecimal, told)):
            return int(told[0]), int(told[1])
    return None, None


def _end_at_once(sentence: str) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stdout.flush()
    os.write(2, f"{sentence}\n".encode())
    os._exit(ENDED_BY_ANOTHER)

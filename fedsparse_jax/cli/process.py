"""What a script does for its process: progress bars, compiled programs that are kept, memory that is kept."""

import ctypes
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

from absl import logging

from fedsparse_jax.core.errors import UsageError


def show_progress(items: Iterable, description: str, total: int) -> Iterable:
    """Progress bar with time left; where there is no terminal, a line every tenth."""
    if sys.stdout.isatty():
        from rich.progress import track as bar

        return bar(items, description, total)
    return _lines(items, description, total)


def cache_compilations(folder: str | None = None) -> None:
    """Keeps compiled programs in a user cache folder, so that a second start compiles nothing."""
    import jax

    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fedsparse_jax" / "xla"
    try:
        programs = Path(folder or default).expanduser()
        programs.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=programs).close()
    except (OSError, RuntimeError):  # no such place, not a writable one, a full disk, or nobody's home
        print("Note: compiled programs cannot be kept in the cache folder; set XDG_CACHE_HOME.", file=sys.stderr)
        return
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")  # compiled anew
    jax.config.update("jax_compilation_cache_dir", str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def begin_worker() -> None:
    """What `run_main` and `cache_compilations` do for a command, in a process that works for one."""
    keep_freed_memory()
    silence_orbax()
    cache_compilations()


def check_platform() -> None:
    """Refuses a platform that the environment asks for and this machine does not have.

    Raises:
        UsageError: none of those in ``JAX_PLATFORMS`` is there.
    """
    asked = os.environ.get("JAX_PLATFORMS")
    if not asked:
        return
    import jax

    try:
        jax.devices()
    except Exception as error:  # JAX raises RuntimeError, AssertionError and others, by platform
        raise UsageError(
            f"JAX_PLATFORMS is {asked!r}, but this machine has no such platform, or JAX was installed without it; give "
            "JAX_PLATFORMS=cpu, or install the extra 'cuda' on a machine that has a GPU."
        ) from error


MALLOPT = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_MMAP_MAX": (-4, 0)}  # by the numbers of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tells glibc to keep what was freed for the next round; returns whether there is a glibc to tell.

    By default it gives large arrays back to the system, which hands out fresh, zeroed pages for the next ones: a
    round's largest cost beyond its steps on CPU (docs/results/performance.md). To be called before other threads start.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        return all([library.mallopt(*setting) for setting in MALLOPT.values()])
    except (OSError, AttributeError):
        return False


def silence_orbax() -> None:
    """Keeps from the console what Orbax says of a save or a read that is told here in a sentence.

    Its words come by absl's log; and, of array files that are missing, as tracebacks of threads that outlive the read.
    """
    logging.set_verbosity(logging.FATAL)
    show = sys.unraisablehook

    def hook(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    sys.unraisablehook = hook


def show_lines_at_once() -> None:
    """Prints every line when it is said, also into a file or a pipe, so that whoever watches a log sees the rounds."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _lines(items: Iterable, description: str, total: int) -> Iterable:
    for done, item in enumerate(items, 1):
        yield item
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"{description}: {done}/{total}", flush=True)

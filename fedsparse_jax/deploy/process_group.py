"""Processes of a simulation of sites, as one group that ends with the process that wanted it."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from fedsparse_jax.core.processes import when_parent_ends

_CACHE_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def run_as_group(module: str, words: Sequence[str]) -> int:
    """Runs a module of this package as a process group of its own, which ends with this process; returns its code.

    Its processes find this package, and the programs that this process has compiled.

    Args:
        module: by its dotted path; it calls `end_with_parent`.
        words: its arguments.
    """
    settings = {name: getattr(jax.config, name) for name in _CACHE_SETTINGS}
    cache = {name.upper(): str(value) for name, value in settings.items() if settings[_CACHE_SETTINGS[0]]}
    modules = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", module, *words]
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, **cache, "PYTHONPATH": modules})
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def end_with_parent() -> None:
    """Ends the process group of this process as soon as the process that started it is gone."""
    when_parent_ends(lambda: os.killpg(os.getpgid(0), signal.SIGKILL), os.getppid())

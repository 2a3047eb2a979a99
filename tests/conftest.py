"""Shared by all tests: four host devices, and one compilation cache so that nothing compiles twice."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # also in the processes that tests start
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")

import jax
import pytest

CACHE = Path(tempfile.gettempdir()) / f"fedsparse_jax-tests-{os.getuid()}"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Compiled programs of a module are dropped after it, so that the process stays small; the cache on disk stays."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent

"""Shared by all tests: four host devices, and one compilation cache so that nothing compiles twice."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest

CACHE = Path(tempfile.gettempdir()) / f"fedsparse_jax-tests-{os.getuid()}"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent

"""Shared by all tests: four host devices, and one compilation cache so that nothing compiles twice."""

import ctypes
import importlib.util
import os
import platform
import tempfile
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")  # also in the processes that tests start
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")

import jax
import psutil
import pytest

from fedsparse_jax.reporting import html, report
from tests.helpers import three_sites

collect_ignore = [] if importlib.util.find_spec("flwr") else ["helpers/hostile_flower_site.py"]  # needs an extra
CACHE = Path(tempfile.gettempdir()) / f"fedsparse_jax-tests-{os.getuid()}"
CACHE.mkdir(exist_ok=True)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.fixture(autouse=True)
def forget_compiled_programs():
    """Compiled programs are dropped when the process has grown large; the cache on disk stays."""
    yield
    if psutil.Process().memory_info().rss > 1.1e9:
        jax.clear_caches()
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures of a report are made and not drawn, which takes most of its time."""
    for module in (report, html):
        monkeypatch.setattr(module, "render_figure", lambda *args, **kwargs: b"")


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sites(tmp_path_factory) -> Path:
    """Folders of three hospitals, of a test set, and of all together."""
    root = tmp_path_factory.mktemp("sites")
    three_sites.write_sites(root)
    return root


@pytest.fixture(scope="module")
def simulated(sites) -> Path:
    """The run folder of the simulation that the numbers of the pages about real sites lead to."""
    numbers = {"model.output_mean": "62.7", "model.output_scale": "7.9"}
    three_sites.simulate("configs/quickstart.py:smoke", sites, sites / "cache", sites / "simulated", numbers)
    return sites / "simulated"

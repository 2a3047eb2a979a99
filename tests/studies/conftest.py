"""A small dense run on the phantom, whose model other scans are given to."""

import json
import shutil
from pathlib import Path

import pytest

from fedsparse_jax.config import experiment_from_config, load_config
from fedsparse_jax.runs import run_experiment
from tests.helpers.interrupted import QUIET


@pytest.fixture(scope="session")
def phantom_cache(tmp_path_factory) -> str:
    """Where the scans of the run are kept."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def dense_run(tmp_path_factory, phantom_cache, repository) -> Path:
    """The run's folder: dense, because a network that is pruned so early predicts the same age for everybody."""
    config = load_config(f"{repository}/configs/quickstart.py:dense+smoke")
    config.data.cache_dir, config.log.tensorboard = phantom_cache, False
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_experiment(experiment_from_config(config), folder, QUIET)
    return folder


@pytest.fixture
def trained_on(dense_run, tmp_path):
    """The same run as if it had been trained on another source, by other options."""

    def run(source, **data) -> Path:
        folder = tmp_path / f"run-{source}"
        shutil.copytree(dense_run, folder, dirs_exist_ok=True)
        stored = json.loads((folder / "config.json").read_text())
        stored["config"]["data"] |= dict(source=source, root="", options={}) | data
        (folder / "config.json").write_text(json.dumps(stored))
        return folder

    return run

"""The scripts as processes, as a user starts them."""

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def call(repository, tmp_path_factory):
    """Runs a script in the repository with a cache of its own; returns the finished process."""
    cache = tmp_path_factory.mktemp("scripts")
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "HOME": str(cache)}

    def run(script, *flags, start=False):
        command = [sys.executable, f"scripts/{script}.py", *flags]
        options = dict(cwd=repository, env=environment, text=True)
        if start:
            return subprocess.Popen(command, stdout=subprocess.PIPE, **options)
        return subprocess.run(command, capture_output=True, timeout=300, **options)

    return run

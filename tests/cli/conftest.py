"""The scripts as processes, as a user starts them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from subprocess import PIPE, CompletedProcess

import jax
import pytest


@pytest.fixture(scope="session")
def surroundings(repository, tmp_path_factory):
    """How a script is started: in the repository, with a home of its own, but the programs all tests have compiled."""
    home = tmp_path_factory.mktemp("home")
    (home / "fedsparse_jax").mkdir()
    (home / "fedsparse_jax" / "xla").symlink_to(jax.config.jax_compilation_cache_dir)
    return dict(cwd=repository, env={**os.environ, "XDG_CACHE_HOME": str(home), "HOME": str(home)}, text=True)


@pytest.fixture(scope="session")
def start(surroundings):
    """Starts a script as a process of its own."""

    def run(script, *flags):
        hear_ctrl_c = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell's background job ignores
        command = [sys.executable, f"scripts/{script}.py", *flags]
        return subprocess.Popen(command, stdout=PIPE, stderr=PIPE, preexec_fn=hear_ctrl_c, **surroundings)

    return run


@pytest.fixture(scope="session")
def scripts(tmp_path_factory):
    """Starts a process that has imported all packages, in given surroundings, and runs scripts in forks of it."""

    @contextlib.contextmanager
    def serve(surroundings):
        folder = tmp_path_factory.mktemp("printed")
        command = [sys.executable, "-m", "tests.helpers.script_server"]
        server = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, **surroundings)

        def run(script, *flags):
            files = dict(out=str(folder / "out"), err=str(folder / "err"))
            server.stdin.write(json.dumps(dict(words=[f"scripts/{script}.py", *flags], **files)) + "\n")
            server.stdin.flush()
            code = int(server.stdout.readline())
            return CompletedProcess(flags, code, (folder / "out").read_text(), (folder / "err").read_text())

        with server:
            yield run
            server.stdin.close()

    return serve


@pytest.fixture(scope="session")
def call(surroundings, scripts):
    """Runs a script in a fork of a process that has imported all packages; returns what it printed."""
    with scripts(surroundings) as run:
        yield run

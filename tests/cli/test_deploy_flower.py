"""The commands of the page about Flower, as typed: on loopback, then with a certificate and a key for each site."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fedsparse_jax.core.processes import free_ports
from fedsparse_jax.runs import read_records
from tests.helpers import three_sites
from tests.helpers.started import PATIENCE, processes_of, wait_until

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow  # minutes, since Flower starts a process for each message to a site

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/deploy_flower.md"


@pytest.fixture(scope="module")
def commands(sites):
    return three_sites.commands_of(PAGE, r"(?!pip)\S.+", sites)


def test_a_run_that_was_killed_and_then_stopped_goes_on_and_ends_where_the_simulation_ends(
    commands, simulated, start, tmp_path
):
    (line,) = [line for line in commands if "--workdir" in line]
    _, script, *flags = shlex.split(line.replace("runs/", f"{tmp_path}/"))

    def start_and_stop(round_, how):
        process = start(Path(script).stem, *flags)
        for told in process.stdout:
            if told.startswith(f"round {round_}/"):
                break
        process.send_signal(how)
        return process.communicate(timeout=PATIENCE)[1], process.returncode

    start_and_stop(1, signal.SIGKILL)  # the server and the sites end with it
    wait_until(lambda: not processes_of(str(tmp_path)), "the processes of a run that was killed do not end")
    told, code = start_and_stop(2, signal.SIGINT)
    assert code == 130 and told.strip().endswith("the same command goes on from there."), told
    assert not processes_of(str(tmp_path))
    last = start(Path(script).stem, *flags)
    told, errors = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, errors
    assert "round 3/3" in told and "round 2/3" not in told
    assert three_sites.distance(simulated, tmp_path / "three-sites") == 0
    assert not processes_of(str(tmp_path))


def test_sites_with_certificate_and_keys_play_the_same_rounds(commands, simulated, surroundings, tmp_path):
    for name in ("scripts", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    port = free_ports(1)[0]
    env = dict(surroundings["env"], PYTHONPATH=str(ROOT))
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    here = dict(cwd=tmp_path, text=True, env=env)

    def listens():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True

    try:
        with (tmp_path / "told.txt").open("w") as told:
            for line in commands:
                line = line.replace("9400", str(port))
                if "--workdir" in line:
                    continue
                if line.startswith("export "):
                    pairs = [word.partition("=") for word in shlex.split(line)[1:]]
                    env |= {key: value.replace("$PWD", str(tmp_path)) for key, _, value in pairs}
                elif line.endswith("/start.sh"):
                    subprocess.Popen([line], stdout=told, stderr=told, **here)
                    wait_until(listens, "the server does not start")
                else:
                    subprocess.run(shlex.split(line), check=True, stdout=told, stderr=told, **here)
    finally:
        for process in processes_of(str(tmp_path)):
            process.kill()
    run_dir = tmp_path / "kits/server/runs/brain-age"
    assert three_sites.distance(simulated, run_dir) == 0
    assert [record.left_out for record in read_records(run_dir)] == [{}] * 3

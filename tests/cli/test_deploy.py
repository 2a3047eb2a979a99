"""The commands of the page about real sites, as typed: on loopback, then by start-up kits with certificates."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedsparse_jax.core.processes import free_ports
from fedsparse_jax.runs import read_records
from tests.helpers import three_sites
from tests.helpers.started import PATIENCE, processes_of, wait_until

pytest.importorskip("nvflare")
pytestmark = pytest.mark.slow  # minutes, most of which NVFlare takes to start and to stop

PAGE = Path(__file__).parents[2] / "docs/how-to/deploy.md"


@pytest.fixture(scope="module")
def commands(sites):
    return three_sites.commands_of(PAGE, r"(?:python|nvflare|kits/).+", sites)


def test_a_run_of_processes_that_was_killed_goes_on_and_ends_where_the_simulation_ends(
    commands, simulated, start, tmp_path
):
    (line,) = [line for line in commands if "--workdir" in line]
    _, script, *flags = shlex.split(line.replace("runs/", f"{tmp_path}/"))
    first = start(Path(script).stem, *flags)
    for told in first.stdout:
        if told.startswith("round 2/"):  # that the line is there says that round 1 is on disk, and no more
            break
    first.send_signal(signal.SIGKILL)  # the server and the sites end with it
    first.communicate()
    wait_until(lambda: not processes_of(str(tmp_path)), "the processes of a run that was killed do not end")
    again = start(Path(script).stem, *flags)
    told, errors = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, errors
    assert "round 3/3" in told and "round 1/3" not in told
    assert three_sites.distance(simulated, tmp_path / "three-sites") <= 1e-5


def test_provisioned_kits_play_the_same_rounds(commands, simulated, surroundings, tmp_path):
    project = tmp_path / "project.yml"
    shutil.copy("docs/examples/project.yml", project)
    for port in ("8002", "8003"):
        project.write_text(project.read_text().replace(port, str(free_ports(1)[0])))
    bin_ = Path(sys.executable).parent
    env = surroundings["env"] | {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(PAGE.parents[2])}
    places = {"docs/examples/project.yml": str(project), "kits/": f"{tmp_path}/kits/", "kits ": f"{tmp_path}/kits "}
    kits = tmp_path / "kits/brain_age/prod_00"

    def run(line):
        for there, here in places.items():
            line = re.sub(rf"(?<![\w/]){re.escape(there)}", here, line)
        line = line.replace("jobs/", f"{tmp_path}/jobs/")
        with (tmp_path / "told.txt").open("a") as told:
            subprocess.run(shlex.split(line), check=True, stdout=told, stderr=told, **surroundings | {"env": env})

    try:
        for line in commands:
            if "--workdir" in line:
                continue
            if line.startswith("nvflare job submit"):
                wait_until(
                    lambda: _joined(kits / "localhost/log.txt") == set(three_sites.NAMES), "no site joins the server"
                )
            run(line)
            if "localhost/startup" in line:
                wait_until((kits / "localhost/log.txt").exists, "the server does not start")
        run_dir = kits / "localhost/runs/brain-age"
        wait_until((run_dir / "quality.json").exists, "the job does not end")
    finally:
        for process in processes_of(str(tmp_path)):
            process.kill()
    assert three_sites.distance(simulated, run_dir) <= 1e-5
    assert [record.left_out for record in read_records(run_dir)] == [{}] * 3


def _joined(log):
    return set(re.findall(r"New client (\w+)@", log.read_text()))

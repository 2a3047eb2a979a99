"""The blocks of the page about many devices and hosts, as typed, on loopback and in small."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from fedsparse_jax.core.processes import free_ports
from fedsparse_jax.runs import read_records

pytestmark = pytest.mark.slow  # runs of seconds, and many of them

PAGE = Path(__file__).parents[2] / "docs/scaling.md"
BLOCKS = {
    heading: re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    for heading, text in re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
}
SMALL = "configs/methods/fedsparsify_global.py:digits+smoke --config.partition.num_clients=8 --config.log.report=false"
MPI = [dict(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK=str(i)) for i in range(2)]
SLURM = [
    dict(SLURM_JOB_ID="1", SLURM_STEP_NODELIST="localhost", SLURM_NTASKS="2", SLURM_PROCID=str(i), SLURM_LOCALID=str(i))
    for i in range(2)
]


@pytest.fixture
def start(repository, tmp_path):
    """Starts a block in a shell: on digits and in small, in a folder of the test, and 10.0.0.1 is this host."""
    started, port = [], free_ports(1)[0]
    programs = tmp_path / "cache/fedsparse_jax"
    programs.mkdir(parents=True)
    (programs / "xla").symlink_to(jax.config.jax_compilation_cache_dir)

    def run(block, **environment):
        block = block.replace("configs/quickstart.py", SMALL).replace("runs/", f"{tmp_path}/runs/")
        block = block.replace("10.0.0.1:9911", f"127.0.0.1:{port}").replace("127.0.0.1:9911", f"127.0.0.1:{port}")
        around = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(repository),
            **environment,
        }
        options = dict(cwd=repository, env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(subprocess.Popen(["bash", "-c", block], start_new_session=True, **options))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.communicate()


def finish(*processes):
    told = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(map("".join, told))


def of_one(block, *launcher):
    """What each task of a launcher runs."""
    (command,) = re.findall(r"^ +(python .+)$", block, re.MULTILINE)
    return [(command, environment) for environment in launcher]


def test_one_host_with_four_devices(start, tmp_path):
    (block,) = BLOCKS["One host with n GPUs"]
    finish(start(block, XLA_FLAGS="--xla_force_host_platform_device_count=4"))
    assert len(read_records(tmp_path / "runs/devices")) == 3


def test_two_processes_on_one_host_give_what_two_hosts_give(start, tmp_path):
    finish(*map(start, BLOCKS["Try two processes on one host"]))
    finish(*map(start, BLOCKS["Two hosts by hand"]))
    assert (tmp_path / "runs/two/predictions.tsv").exists()
    ours, theirs = (read_records(tmp_path / "runs" / name) for name in ("two", "hosts"))
    for a, b in zip(ours, theirs, strict=True):
        assert a.test["accuracy"] == pytest.approx(b.test["accuracy"], abs=1e-4) and a.bytes_up == b.bytes_up


def test_a_job_of_one_process_is_a_run_by_itself(start, tmp_path):
    (block,) = BLOCKS["One host with n GPUs"]
    as_one = f"{block.strip()} --num_processes=1 --process_id=0"
    finish(start(as_one, XLA_FLAGS="--xla_force_host_platform_device_count=4"))
    assert len(read_records(tmp_path / "runs/devices")) == 3


@pytest.mark.parametrize(("heading", "tasks"), [("SLURM", SLURM), ("MPI", MPI)])
def test_what_a_launcher_starts_finds_its_number_in_the_environment(start, tmp_path, heading, tasks):
    (block,) = BLOCKS[heading]
    finish(*(start(command, **environment) for command, environment in of_one(block, *tasks)))
    assert len(read_records(tmp_path / "runs" / heading.lower())) == 3

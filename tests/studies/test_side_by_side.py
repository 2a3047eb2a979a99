"""Jobs in processes of their own: the same results, and what is said when a process is gone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedsparse_jax import cli
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.studies import GridCell, Study, run_study
from fedsparse_jax.studies.grid_report import write_study
from fedsparse_jax.studies.side_by_side import do_side_by_side

pytestmark = pytest.mark.slow  # each process imports JAX


def test_two_runs_at_a_time_give_the_very_numbers_of_one_after_another(repository, tmp_path):
    specs = [f"{repository}/configs/methods/{name}.py:digits+smoke" for name in ("fedavg", "snip")]
    cells = [GridCell({"method": spec[-20:], "sparsity": str(i)}, spec, seeds=(1, 2)) for i, spec in enumerate(specs)]
    study, told = Study("Two", cells, cells[0].labels, ("mask",)), []
    alone = run_study(study, tmp_path / "alone", told.append)
    beside = run_study(study, tmp_path / "beside", told.append, at_once=2, begin=cli.begin_worker)
    texts = [write_study(study, runs, tmp_path / name) for runs, name in ((alone, "alone"), (beside, "beside"))]
    assert texts[0] == texts[1] and len(alone) == 4
    assert [run.measures["mask"] for run in alone] == [run.measures["mask"] for run in beside]
    assert [line.split()[1] for line in told if line.startswith("Run")] == [*"12341234"]
    assert sorted(line.split(":")[0] for line in told if line.startswith("  Run")) == [
        f"  Run {i}" for i in (1, 2, 3, 4)
    ]


def test_a_process_that_dies_is_one_sentence():
    begun = []
    with pytest.raises(UsageError, match="has ended in the middle of a run, .* lower --at_once"):
        list(do_side_by_side(os._exit, {0: 1, 1: 1}, begun.append, 1, os.getpid))
    assert begun == [0]


def test_a_study_that_is_killed_takes_its_processes_along(repository, tmp_path):
    command = [sys.executable, "scripts/study.py", "--configs=configs/quickstart.py", f"--workdir={tmp_path}"]
    study = subprocess.Popen([*command, "--at_once=2"], cwd=repository, stdout=subprocess.PIPE, text=True)
    while "Run 2" not in study.stdout.readline():
        assert study.poll() is None
    workers = [int(pid) for pid in Path(f"/proc/{study.pid}/task/{study.pid}/children").read_text().split()]
    study.kill()
    study.wait()
    until = time.monotonic() + 60
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert len(workers) >= 2


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

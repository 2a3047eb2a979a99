"""Many hosts: the same numbers as one process, only own scans are read, and all end together."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from subprocess import PIPE

import jax
import numpy as np
import pytest

from fedsparse_jax.core.processes import free_ports
from fedsparse_jax.runs import checkpoint, read_records, run_experiment
from tests.helpers.interrupted import QUIET, Killed, stop_after
from tests.helpers.many_methods import METHODS, SIZES, TESTED, experiment

AT_ONCE = 10  # seconds in which all processes end once one is gone, far below JAX's own heartbeats


@pytest.fixture
def launch(repository):
    """Starts processes with so many devices each, which meet on loopback; what still runs in the end is killed."""
    started = []

    def start(folder, *flags, count=2, devices=2):
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(repository),
        }
        programs = f"--programs={jax.config.jax_compilation_cache_dir}"
        where = f"--coordinator=127.0.0.1:{free_ports(1)[0]}"
        command = [sys.executable, "-m", "tests.helpers.many_methods", f"--workdir={folder}", programs, *flags]
        processes = [
            subprocess.Popen(
                [*command, where, f"--num_processes={count}", f"--process_id={i}"],
                cwd=repository, env=environment, stdout=PIPE, stderr=PIPE, text=True,
            )
            for i in range(count)
        ]  # fmt: skip
        started.extend(processes)
        return processes

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(processes, seconds=900):
    told = [process.communicate(timeout=seconds) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(map("".join, told))
    return told


def final_state(folder, method):
    like = jax.eval_shape(experiment(method, 1).algorithm.init, jax.random.key(0))
    with checkpoint.open_manager(folder / method) as manager:
        return checkpoint.restore_checkpoint(manager, like)


def numbers(state):
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(state)]


def assert_close(ours, theirs):
    for a, b in zip(numbers(ours), numbers(theirs), strict=True):
        np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_give_what_one_gives_and_each_reads_its_own_scans(launch, tmp_path, method):
    one, two = tmp_path / "one", tmp_path / "two"
    if method == "int8":  # two hosts go on with what one process has begun
        with pytest.raises(Killed):
            run_experiment(experiment(method, 3), two / method, stop_after(1))
    processes = launch(two, f"--methods={method}", devices=4 if method == "few" else 2)  # several devices a client
    run_experiment(experiment(method, 3), one / method, QUIET)
    (said, _), (of_other, _) = finish(processes)
    assert [line for line in of_other.splitlines() if "Gloo" not in line] == []
    assert ("int8 holds 1 of 3 rounds" in said) == (method == "int8")
    assert_close(final_state(two, method), final_state(one, method))
    ours, theirs = read_records(two / method), read_records(one / method)
    for field in ("cohort", "bytes_up", "bytes_down", "params_up", "sparsity", "left_out"):
        assert [getattr(record, field) for record in ours] == [getattr(record, field) for record in theirs], field
    losses = [[record.train_loss for record in records] for records in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    ends = np.cumsum(SIZES)
    own = [list(range(ends[2])), list(range(ends[2], ends[4]))]
    tested = list(range(ends[4], ends[4] + TESTED))
    for index, rows in enumerate(([*own[0], *tested], own[1])):
        assert json.loads((two / f"read.{index}.json").read_text()) == {method: rows}, index


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_is_said_there_and_ends_the_other(launch, tmp_path):
    (tmp_path / "global").write_text("a file where the folder should be")
    processes = launch(tmp_path, "--methods=global")
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 3]
    assert str(tmp_path / "global") in told[0] and told[1].startswith("Process 0 of 2 has ended")
    assert all("Traceback" not in one and len(one.splitlines()) == 1 for one in told)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_with_one_sentence_and_one_or_two_go_on(launch, tmp_path, victim):
    processes = launch(tmp_path, "--methods=local", "--rounds=2000")
    while not re.match(r"round +3/", processes[0].stdout.readline()):
        assert processes[0].poll() is None, processes[0].stderr.read()
    processes[victim].send_signal(signal.SIGKILL)
    began, survivor = time.monotonic(), processes[1 - victim]
    _, said = survivor.communicate(timeout=120)
    assert time.monotonic() - began < AT_ONCE
    assert survivor.returncode == 3, said
    *of_jax, told = [line for line in said.splitlines() if line]
    assert told == (
        f"Process {victim} of 2 has ended, and so this one ends, too. Finished rounds are safe, and the same commands go "
        "on from there."
    )
    assert not of_jax or (victim == 0 and "coordination" in of_jax[0])  # JAX may notice it first
    assert "Traceback" not in said
    done = len(read_records(tmp_path / "local"))
    assert done >= 3
    more = done + 2
    if victim:
        run_experiment(experiment("local", more), tmp_path / "local", QUIET)
    else:
        (said, _), _ = finish(launch(tmp_path, "--methods=local", f"--rounds={more}"))
        assert "local holds " in said
    run_experiment(experiment("local", more), tmp_path / "alone/local", QUIET)
    assert_close(final_state(tmp_path, "local"), final_state(tmp_path / "alone", "local"))

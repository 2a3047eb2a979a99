"""Whole runs, as the host folds them: what a round costs beyond its local steps, where its data come from, and how
long a start takes."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from benchmarks.timing import Alternatives, Timing, measured, peak, temporary_folder
from benchmarks.workloads import WORKLOADS, Workload, chunk, jitted_round, workload_algorithm
from fedsparse_jax.communication import MessageSettings
from fedsparse_jax.core import tasks
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.processes import free_ports
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.runs import Batching, Cohorts, Execution, Experiment, Output, read_records, run_experiment

SCAN = (91, 109, 91)  # voxels of a scan at 2 mm
REPOSITORY = Path(__file__).parents[2]


def _experiment(workload: Workload, inputs, rounds: int, **changes) -> Experiment:
    """A run of the workload with four test examples: their evaluation is handed over, and hardly costs."""
    each, network = workload.steps * workload.batch, workload.network()
    targets = np.random.default_rng(1).integers(0, 10, len(inputs)).astype(np.float32)
    members = [np.arange(i * each, (i + 1) * each) for i in range(workload.clients)]
    people = [{"participant_id": f"sub-{i}", "session": "", "site": "n/a"} for i in range(len(inputs))]
    classes = 10 if workload.model == "mlp" else 0
    experiment = Experiment(
        config={"method": "benchmark", "task": "-"},
        task=tasks.CLASSIFICATION if classes else tasks.REGRESSION,
        seed=0,
        rounds=rounds,
        model=network,
        algorithm=workload_algorithm(workload),
        federation=Federation(inputs, targets, members, np.arange(4), people, classes),
        cohorts=Cohorts(workload.clients),
        batching=Batching(workload.batch),
        execution=Execution(workload.steps),
        output=Output(checkpoint_every=rounds + 1, checkpoints_kept=2),
    )
    return experiment._replace(**changes)


def _examples(workload: Workload) -> np.ndarray:
    count = workload.clients * workload.steps * workload.batch
    return np.random.default_rng(0).normal(size=(count, *workload.shape, 1)).astype(np.float32)


def _per_round(experiment: Experiment) -> Timing:
    """Median seconds of the rounds of a whole run, from the third on: two compile."""
    with tempfile.TemporaryDirectory() as home:
        records = run_experiment(experiment, Path(home) / "run", print_fn=lambda _: None)
    return Timing(float(np.median([record.seconds for record in records[2:-1]])), {})


def overhead(workload: Workload) -> Alternatives:
    """The local steps alone, rounds of a run (sampling, aggregation, pruning, evaluation, log), and the parts."""
    one, rounds = jitted_round(workload), 6 if workload.model == "brain_age_cnn" else 30
    server, batches, inputs = one.algorithm.init(jax.random.key(0)), chunk(workload), _examples(workload)
    fresh = lambda: one.start(server)
    clients = fresh()
    run = lambda **changes: lambda: _per_round(_experiment(workload, inputs, rounds, **changes))
    update_server = lambda: one.algorithm.update_server(server, clients, one.weights)
    return {
        "local steps alone": measured(one.algorithm.local_steps, before=lambda: (fresh(), batches)),
        "round of a run": run(),
        "round of a run, with checkpoint": run(output=Output(checkpoint_every=1, checkpoints_kept=2)),
        "round of a run, messages measured": run(messages=MessageSettings("measure")),
        "round of a run, through messages": run(messages=MessageSettings("transmit")),
        "start of the clients": fresh,
        "server (aggregation, pruning, analytics)": update_server,
    }


# --- where data come from -----------------------------------------------------------------------


def streaming(workload: Workload) -> Alternatives:
    """The same rounds with data on the device, and read from a memory-mapped file while the device works."""
    inputs, file = _examples(workload), temporary_folder() / "inputs.npy"
    np.save(file, inputs)
    mapped = np.load(file, mmap_mode="r")
    return {
        "resident": lambda: _per_round(_experiment(workload, inputs, 5, execution=Execution(1))),
        "streamed": lambda: _per_round(_experiment(workload, mapped, 5, execution=Execution(1, resident=False))),
    }


def large(gigabytes: int) -> Alternatives:
    """A round over scans of 2 mm in a sparse file of so many GB, by a small network: 64 clients, four a round."""
    count = int(gigabytes * 1e9 / (4 * np.prod(SCAN))) // 64 * 64
    mapped = np.memmap(temporary_folder() / "inputs", np.float32, "w+", shape=(max(count, 64), *SCAN, 1))
    workload = Workload("flat_cnn", {"widths": (2,), "poolings": 1}, SCAN, clients=64, steps=len(mapped) // 64, batch=1)

    def play() -> Timing:
        _forget_peak()
        streamed = dict(cohorts=Cohorts(4), execution=Execution(4, resident=False))
        seconds = _per_round(_experiment(workload, mapped, 4, **streamed)).seconds
        read = 4 * 4 * workload.steps * np.prod(SCAN) * 4 / 1e9
        return Timing(seconds, {"file GB": mapped.nbytes / 1e9, "read GB": float(read), "peak GB": peak() / 1e9})

    return {"streamed from a sparse file": play}


def cohort(count: int) -> Alternatives:
    """Rounds of a hundred clients out of ever more, up to ``count``, with eight samples each in a sparse file."""
    sampled = lambda clients: dict(cohorts=Cohorts(min(100, clients)), execution=Execution(1, resident=False))
    return {
        f"100 of {clients:,} clients": partial(_play_small_clients, clients, 20, sampled(clients))
        for clients in _powers_up_to(count)
    }


def held(count: int) -> Alternatives:
    """Rounds in which ever more clients train, up to ``count``, with a hundred models held, or those of up to 1,000."""
    all_train = lambda clients, at_once: dict(
        cohorts=Cohorts(clients),
        execution=Execution(1, resident=False, clients_held=at_once),
        algorithm=workload_algorithm(_small_clients(clients), merges=at_once > 0),
    )
    works: dict[str, Callable[[], object]] = {}
    for clients in _powers_up_to(count):
        for told, at_once in (("all held", 0), ("100 held", 100)):
            if at_once or clients <= 1000:
                how = all_train(clients, at_once)
                works[f"{clients:,} clients, {told}"] = partial(_play_small_clients, clients, 5, how)
    return works


def _powers_up_to(count: int) -> list[int]:
    return sorted({min(100 * 10**i, count) for i in range(6)})


def _small_clients(clients: int) -> Workload:
    return WORKLOADS["W2"]._replace(clients=clients, steps=1, batch=8)


def _play_small_clients(clients: int, rounds: int, how: dict) -> Timing:
    """Rounds of an experiment with small clients, whose samples lie in a sparse file."""
    _forget_peak()
    workload = _small_clients(clients)
    shape = (clients * workload.batch, *workload.shape, 1)
    mapped = np.memmap(temporary_folder() / "inputs", np.float32, "w+", shape=shape)
    seconds = _per_round(_experiment(workload, mapped, rounds, **how)).seconds
    return Timing(seconds, {"rounds/h": 3600 / seconds, "data MB": mapped.nbytes / 1e6, "peak MB": peak() / 1e6})


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# --- several processes --------------------------------------------------------------------------

ROUNDS = 8  # of a run that is timed; the first two compile
PROCESSES = (1, 2, 4)


def hosts(config: str) -> Alternatives:
    """Rounds of a run in one process, and of the same run shared by several processes of this host."""

    def play(processes: int) -> Timing:
        run = temporary_folder() / "run"
        command = [sys.executable, "scripts/train.py", f"--config={config}", f"--workdir={run}"]
        command += [f"--config.rounds={ROUNDS}", "--config.log.report=False", "--config.log.tensorboard=False"]
        address = f"--coordinator=127.0.0.1:{free_ports(1)[0]}"
        shares = [[address, f"--num_processes={processes}", f"--process_id={i}"] for i in range(processes)]
        _run_together([[*command, *share] for share in shares])
        seconds = float(np.median([record.seconds for record in read_records(run)[2:]]))
        return Timing(seconds, {"rounds/h": lambda median: 3600 / median})

    return {f"{count} process{'es' * (count > 1)}": partial(play, count) for count in PROCESSES}


def _run_together(commands: list[list[str]]) -> None:
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY)
    started = [subprocess.Popen(command, **options) for command in commands]  # type: ignore[call-overload]
    told = [process.communicate()[0] for process in started]
    for process, said in zip(started, told, strict=True):
        if process.returncode:
            raise UsageError(f"A process failed: {said.strip().splitlines()[-1]}")


SEEDS = (1, 2, 3, 4)


def study(config: str) -> Alternatives:
    """A study of some seeds of a config, with one and with two runs at a time; compiled programs are shared."""

    def play(at_once: int) -> Timing:
        command = [sys.executable, "scripts/study.py", f"--configs={config}", f"--workdir={temporary_folder()}"]
        command += [f"--seeds={','.join(map(str, SEEDS))}", f"--set=rounds={ROUNDS}", f"--at_once={at_once}"]
        began = time.perf_counter()
        _run_together([command])
        return Timing(time.perf_counter() - began, {"runs/h": lambda median: len(SEEDS) * 3600 / median})

    return {f"{many} at a time": partial(play, count) for count, many in ((1, "one"), (2, "two"))}


# --- starting -----------------------------------------------------------------------------------


def starts(config: str) -> Alternatives:
    """From the command to the line of round 1, with an empty cache of compiled programs and with a full one."""
    home = temporary_folder()

    def start(empty: bool) -> Timing:
        if empty:
            shutil.rmtree(home / "fedsparse_jax" / "xla", ignore_errors=True)
        run = home / "run"
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "scripts/train.py", f"--config={config}", f"--workdir={run}"]
        began = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY,
            env={**os.environ, "XDG_CACHE_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        ) as process:  # fmt: skip
            assert process.stdout
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("round"):
                    break
            seconds = time.perf_counter() - began
            process.kill()
        if not said or not said[-1].startswith("round"):
            raise UsageError(f"{config} did not reach round 1: {''.join(said[-1:]).strip() or 'no output'}")
        return Timing(seconds, {})

    return {"first start": lambda: start(True), "second start": lambda: start(False)}

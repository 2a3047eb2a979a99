"""Speed as ratios: alternatives timed in turn, in one run, on the same synthetic work.

Each benchmark is a dict of named alternatives, functions that do the whole work and wait for it; `timing.compare` plays
them in turn and compares medians. scripts/benchmark.py prints the numbers in docs/results/performance.md from here.
"""

import functools
from collections.abc import Callable

from benchmarks import encryption, exports, message_speed, peers, rounds, runs, selection
from benchmarks.timing import Alternatives, compare, timings_table
from benchmarks.workloads import WORKLOADS, Workload
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.runs.run_dir import environment

__all__ = ["BENCHMARKS", "compare", "run_benchmark", "timings_table"]


def run_benchmark(what: str, work: str, repeats: int) -> dict:
    """Measures one benchmark: ``what``, ``work``, ``rows`` of `timing.compare`, and the machine."""
    if what not in BENCHMARKS:
        raise UsageError(f"There is no benchmark {what!r}; give one of {', '.join(BENCHMARKS)}.")
    if repeats < 1:
        raise UsageError(f"--repeats is {repeats}: it must be at least 1.")
    benchmark, default = BENCHMARKS[what]
    work = work or default
    return {"what": what, "work": work, "rows": compare(benchmark(work), repeats), "machine": environment(seed=0)}


def _on_workload(benchmark: Callable[[Workload], Alternatives], name: str) -> Alternatives:
    if name not in WORKLOADS:
        raise UsageError(f"--work is {name!r}: it must be one of {', '.join(WORKLOADS)}.")
    return benchmark(WORKLOADS[name])


def _on_count(benchmark: Callable[[int], Alternatives], count: str) -> Alternatives:
    if not count.isdigit():
        raise UsageError(f"--work is {count!r}: it is a whole number here.")
    return benchmark(int(count))


def _on_density(benchmark: Callable[[float], Alternatives], density: str) -> Alternatives:
    try:
        share = float(density)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise UsageError(f"--work is {density!r}: it is the share of the weights that are kept, between 0 and 1.")
    return benchmark(share)


BENCHMARKS: dict[str, tuple[Callable[[str], Alternatives], str]] = {  # and the default of --work
    "round": (functools.partial(_on_workload, rounds.executions), "W"),
    "peers": (functools.partial(_on_workload, peers.peers), "W"),
    "scaling": (functools.partial(_on_workload, rounds.scaling), "W2"),
    "skewed": (functools.partial(_on_workload, rounds.skewed), "W2"),
    "precision": (functools.partial(_on_workload, rounds.precision), "W"),
    "overhead": (functools.partial(_on_workload, runs.overhead), "W"),
    "input": (functools.partial(_on_workload, runs.streaming), "W3"),
    "large": (functools.partial(_on_count, runs.large), "30"),
    "cohort": (functools.partial(_on_count, runs.cohort), "10000"),
    "held": (functools.partial(_on_count, runs.held), "10000"),
    "hosts": (runs.hosts, "configs/methods/fedavg.py:coarse"),
    "study": (runs.study, "configs/methods/fedavg.py:coarse"),
    "messages": (functools.partial(_on_density, message_speed.speed), "0.05"),
    "encryption": (encryption.encryption, "paper,quickstart"),
    "export": (exports.exports, "runs/export_models"),
    "start": (runs.starts, "configs/quickstart.py"),
    "merge": (functools.partial(_on_workload, rounds.merge), "W"),
    "select": (functools.partial(_on_count, selection.select), "2948801"),
}

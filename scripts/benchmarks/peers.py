"""The same rounds in other frameworks: each peer is a process of its own that plays a round when it is asked to.

All start from the same weights and the same batches, read from one file, and report the loss of the new model on the
first batch, so that a table shows that they did the same work. The peers are the programs in scripts/peers.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.timing import Alternatives, Timing, peak, temporary_folder
from benchmarks.workloads import Workload, chunk
from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import UsageError

SCRIPTS = Path(__file__).parents[1]
PEERS = {  # name: needed package, program and how
    "ours, FedAvg": ("jax", "ours.py", "fedavg"),
    "ours, with pruning": ("jax", "ours.py", "fedsparsify"),
    "PyTorch loop, eager": ("torch", "torch_loop.py", "eager"),
    "PyTorch loop, compiled": ("torch", "torch_loop.py", "compiled"),
    "PyTorch loop, channels last": ("torch", "torch_loop.py", "channels_last"),
    "Flower simulation": ("flwr", "flower.py", "eager"),
}


def peers(workload: Workload) -> Alternatives:
    """Ours and every peer that is installed; an MLP has no channels to put last."""
    if not importlib.util.find_spec("torch"):
        raise UsageError("peers needs PyTorch: pip install 'fedsparse_jax[peers]' (Flower is in it, too).")
    home = temporary_folder()
    files = _write(workload, home)
    chosen = {
        name: (program, how)
        for name, (package, program, how) in PEERS.items()
        if importlib.util.find_spec(package) and not (workload.model == "mlp" and how == "channels_last")
    }
    processes = {name: start_peer(*what, files, home) for name, what in chosen.items()}
    return {name: functools.partial(play_peer, name, process, home) for name, process in processes.items()}


def _write(workload: Workload, home: Path) -> list[str]:
    """What all peers read: the workload as JSON, weights and batches as one NPZ."""
    params, batches = workload.network().init(jax.random.key(0)), chunk(workload)
    weights: dict[str, Any] = dict(zip(tree.leaf_names(params), map(np.asarray, jax.tree.leaves(params)), strict=True))
    work, arrays = home / "work.json", home / "work.npz"
    work.write_text(json.dumps(workload._asdict()))
    np.savez(arrays, inputs=np.asarray(batches.inputs), targets=np.asarray(batches.targets), **weights)
    return [str(work), str(arrays)]


def start_peer(program: str, how: str, files: list[str], home: Path) -> subprocess.Popen:
    """A program of scripts/peers as a process, which waits to be asked; its log goes into ``home``."""
    paths = [str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    with open(home / f"{program}-{how}.log", "w") as log:
        command = [sys.executable, str(SCRIPTS / "peers" / program), *files, how]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=home,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip


def play_peer(name: str, process: subprocess.Popen, home: Path) -> Timing:
    """One piece of work. The peer's own clock counts; what else it reports stands beside its peak memory."""
    assert process.stdin and process.stdout
    try:
        process.stdin.write("\n")
        process.stdin.flush()
        answer = next(line for line in process.stdout if line.startswith('{"seconds"'))
    except (StopIteration, BrokenPipeError) as error:
        logs = sorted(home.glob("*.log"), key=lambda path: path.stat().st_mtime)
        last = (logs[-1].read_text().strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"The peer {name!r} stopped: {last}") from error
    told = json.loads(answer)
    return Timing(told.pop("seconds"), {"peak MB": _peak(process.pid), **told})


def _peak(pid: int) -> float | str:
    """Peak resident memory of a process and its children, one by one, in MB; where the system tells (Linux)."""
    total = sum(map(peak, _family(pid)))
    return round(total / 2**20, 0) if total else "unknown"


def _family(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [pid]
    for one in found:
        found += [child for child, parent in parents if parent == one]
    return found

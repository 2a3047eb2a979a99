"""Our own round, played like the peers beside this file. See scripts/benchmark.py peers.

python scripts/peers/ours.py WORK.json WORK.npz fedavg|fedsparsify

Reads a line for each round to play; answers with a line of JSON: ``seconds`` and ``loss`` of the new model on the first
batch.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks import workloads

from fedsparse_jax import cli
from fedsparse_jax.core import losses, tree
from fedsparse_jax.core.types import Chunk

WORK, FILE, HOW = json.loads(Path(sys.argv[1]).read_text()), np.load(sys.argv[2]), sys.argv[3]


def main():
    cli.keep_freed_memory()
    cli.cache_compilations()
    workload = workloads.Workload(**{**WORK, "shape": tuple(WORK["shape"])})
    one, apply = (workloads.jitted_round(workload, prunes=HOW == "fedsparsify"), jax.jit(workload.network().apply))
    server = one.algorithm.init(jax.random.key(0))
    leaves = [jnp.asarray(FILE[name]) for name in tree.leaf_names(server.params)]
    server = server._replace(params=jax.tree.unflatten(jax.tree.structure(server.params), leaves))
    batches = Chunk(jnp.asarray(FILE["inputs"]), jnp.asarray(FILE["targets"]), jnp.ones(FILE["targets"].shape, bool))
    loss = losses.cross_entropy if workload.model == "mlp" else losses.squared

    for _ in sys.stdin:
        began = time.perf_counter()
        server, _ = jax.block_until_ready(one.play(server, batches))
        seconds = time.perf_counter() - began
        after = loss(apply(server.params, batches.inputs[0, 0]), batches.targets[0, 0]).mean()
        print(json.dumps({"seconds": seconds, "loss": float(after)}), flush=True)


if __name__ == "__main__":
    main()

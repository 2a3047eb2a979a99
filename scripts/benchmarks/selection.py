"""Threshold selection: which of many scores are among the largest."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Alternatives, measured, working_megabytes
from fedsparse_jax.sparsity.selection import keep_largest


def select(count: int) -> Alternatives:
    """The mask of the largest 5 % of ``count`` scores, half of them pruned before.

    A sort finds a threshold only; the exact count among ties is our own.
    """
    rng = np.random.default_rng(0)
    scores = jnp.asarray(np.abs(rng.normal(size=count)), jnp.float32)
    alive = jnp.asarray(rng.random(count) < 0.5)
    gone = jnp.int32(round(0.95 * count))
    keep = jax.jit(keep_largest)
    compiled = keep.lower(scores, alive, gone).compile()
    working = {"working MB": working_megabytes(compiled), "scores MB": round(scores.nbytes / 1e6, 1)}
    ordered = jax.jit(lambda s, a, k: jnp.sort(jnp.where(a, s, -1))[k])
    on_host = np.asarray(scores)
    return {
        "jnp.sort": lambda: ordered(scores, alive, gone),
        "radix select (ours)": measured(lambda: keep(scores, alive, gone), working),
        "np.partition on the host": lambda: np.partition(on_host, int(gone)),
    }

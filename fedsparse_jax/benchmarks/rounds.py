"""A round, its parts, and how its cost grows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedsparse_jax import masks, tree
from fedsparse_jax.aggregation import mean
from fedsparse_jax.benchmarks.timing import Alternatives
from fedsparse_jax.benchmarks.workloads import Workload, algorithm, chunk


def round_of(workload: Workload, client_map: str | int = "scan", **model_options) -> Callable[[], object]:
    """A function that plays one whole round: begin, steps, finish with server pruning."""
    parts = algorithm(workload, client_map, workload.network(**model_options))
    server = jax.jit(parts.init)(jax.random.key(0))
    batches, ids, weights = chunk(workload), jnp.arange(workload.clients), jnp.ones(workload.clients)
    begin, finish = jax.jit(parts.begin), jax.jit(parts.finish)
    steps = jax.jit(parts.steps, donate_argnums=0)

    def work():
        clients, _ = steps(begin(server, ids), batches)
        return finish(server, clients, weights)

    return work


def round_(workload: Workload) -> Alternatives:
    """How clients are executed, and how convolution is formulated."""
    found = {
        "clients one after another": round_of(workload, "scan"),
        "clients all at once (vmap)": round_of(workload, "vmap"),
    }
    if workload.model == "brain_age_cnn":
        for how in ("columns", "winograd"):
            found[f"one after another, {how}"] = round_of(workload, "scan", convolution=how)
    else:
        found["two clients at a time"] = round_of(workload, 2)
    return found


def scaling(workload: Workload) -> Alternatives:
    """The same round with 8, 16, 32 and 64 clients."""
    return {f"{clients} clients": round_of(workload._replace(clients=clients)) for clients in (8, 16, 32, 64)}


def overhead(workload: Workload) -> Alternatives:
    """A round, and its parts outside the local steps."""
    parts = algorithm(workload)
    server = jax.jit(parts.init)(jax.random.key(0))
    ids, weights = jnp.arange(workload.clients), jnp.ones(workload.clients)
    begin, finish = jax.jit(parts.begin), jax.jit(parts.finish)
    clients = begin(server, ids)
    return {
        "round": round_of(workload),
        "begin": lambda: begin(server, ids),
        "finish (aggregation, pruning, analytics)": lambda: finish(server, clients, weights),
    }


def merge(workload: Workload) -> Alternatives:
    """Aggregation of the clients' models, against a copy of them."""
    params = workload.network().init(jax.random.key(0))
    stacked = tree.broadcast(params, workload.clients)
    kept = tree.broadcast(masks.ones(params), workload.clients)
    weights = jnp.ones(workload.clients)
    copy = jax.jit(lambda leaves: jax.tree.map(lambda leaf: leaf + 1, leaves))
    rule = jax.jit(mean)
    return {"copy": lambda: copy(stacked), "weighted mean": lambda: rule(stacked, kept, weights)}

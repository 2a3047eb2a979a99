"""A round, its parts, and how its cost grows."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Alternatives, Timing, measured, working_megabytes
from benchmarks.workloads import Workload, chunk, jitted_round
from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.types import Model
from fedsparse_jax.data import batching
from fedsparse_jax.federated.aggregation import mean
from fedsparse_jax.federated.client_map import ClientMap, num_parallel_clients
from fedsparse_jax.models.from_nnx import in_precision

half = functools.partial(in_precision, name="bfloat16")


def whole_round(workload: Workload, client_map: ClientMap = "scan", **model_options) -> Callable[[], object]:
    """A function that plays one whole round, with server pruning."""
    one = jitted_round(workload, client_map, workload.network(**model_options))
    server, batches = one.algorithm.init(jax.random.key(0)), chunk(workload)
    return lambda: one.play(server, batches)


def _with_memory(
    workload: Workload,
    client_map: ClientMap = "scan",
    network: Model | None = None,
    valid=None,
    columns: Mapping[str, float] | None = None,
) -> Callable[[], Timing]:
    """A round, with the working memory that XLA plans for the local steps beside it, and more columns.

    Args:
        valid: which of the examples there are; None for all.
    """
    one, batches = jitted_round(workload, client_map, network), chunk(workload)
    batches = batches if valid is None else batches._replace(valid=batches.valid & valid)
    server = one.algorithm.init(jax.random.key(0))
    clients, steps = jax.eval_shape(one.start, server), one.algorithm.local_steps
    megabytes = working_megabytes(steps.lower(clients, batches).compile())  # type: ignore[attr-defined]
    return measured(lambda: one.play(server, batches), {"working MB": megabytes, **(columns or {})})


def executions(workload: Workload) -> Alternatives:
    """How clients are executed, and how convolution is formulated."""
    alternatives = {
        "clients one after another": whole_round(workload, "scan"),
        "clients all at once (vmap)": whole_round(workload, "vmap"),
    }
    if workload.model == "brain_age_cnn":
        for how in ("columns", "winograd"):
            alternatives[f"one after another, {how}"] = whole_round(workload, "scan", convolution=how)
    else:
        alternatives |= {f"{n} clients at a time": whole_round(workload, n) for n in (2, 4, 8)}
    return alternatives


def scaling(workload: Workload) -> Alternatives:
    """Clients one after another, 1 to 64; in groups of eight; then wider networks, and larger volumes."""
    grown = lambda clients: workload._replace(clients=clients)
    alternatives: Alternatives = {f"{n} clients": _with_memory(grown(n)) for n in (8, 1, 2, 4, 16, 32, 64)}
    alternatives |= {f"{n} clients, eight at a time": _with_memory(grown(n), 8) for n in (8, 64)}
    alternatives |= {
        f"8 clients, {name}": _with_memory(each._replace(clients=8)) for name, each in _larger(workload).items()
    }
    return alternatives


def _larger(workload: Workload) -> dict[str, Workload]:
    if workload.model != "brain_age_cnn":
        wide = lambda times: workload._replace(options={"hidden": (128 * times, 128 * times)})
        return {"twice as wide": wide(2), "four times as wide": wide(4)}
    x, y, z = workload.shape
    return {
        "half as wide": workload._replace(options={"widths": (16, 32, 64, 128, 128, 32)}),
        "twice as wide": workload._replace(options={"widths": (64, 128, 256, 512, 512, 128)}),
        "twice the volume": workload._replace(shape=(2 * x, y, z)),
        "four times the volume": workload._replace(shape=(2 * x, 2 * y, z)),
    }


def skewed(workload: Workload) -> Alternatives:
    """Eight clients of 1 : 1.35 : ... : 1.35^7 steps, largest first: what padding costs, however they are executed."""
    counts = np.round(workload.steps * 1.35 ** np.arange(7, -1, -1)).astype(int)
    grown = workload._replace(clients=8, steps=int(counts[0]))
    valid = (np.arange(counts[0]) < counts[:, None])[..., None]
    ways: dict[str, ClientMap] = {
        "one after another": "scan",
        "two at a time": 2,
        "four at a time": 4,
        "all at once (vmap)": "vmap",
    }
    alternatives: Alternatives = {}
    for name, way in ways.items():
        share = batching.padding_share(valid[..., 0], num_parallel_clients(way, 8))
        alternatives[name] = _with_memory(grown, way, valid=valid, columns={"padding": float(share)})
    return alternatives


def precision(workload: Workload) -> Alternatives:
    """float32, bfloat16 products, rematerialization, and both."""
    network = workload.network()
    alternatives: Alternatives = {
        "float32": _with_memory(workload),
        "bfloat16": _with_memory(workload, network=half(network)),
    }
    if workload.model == "brain_age_cnn":
        again = workload.network(remat=True)
        alternatives["float32, remat"] = _with_memory(workload, network=again)
        alternatives["bfloat16, remat"] = _with_memory(workload, network=half(again))
    return alternatives


def merge(workload: Workload) -> Alternatives:
    """Aggregation of the clients' models, against a copy of them."""
    params = workload.network().init(jax.random.key(0))
    stacked = tree.broadcast(params, workload.clients)
    kept = tree.broadcast(masks.ones(params), workload.clients)
    weights = jnp.ones(workload.clients)
    copy = jax.jit(lambda leaves: jax.tree.map(lambda leaf: leaf + 1, leaves))
    rule = jax.jit(mean)
    return {"copy": lambda: copy(stacked), "weighted mean": lambda: rule(stacked, kept, weights)}

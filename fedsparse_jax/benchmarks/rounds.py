"""A round, its parts, and how its cost grows."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax import local, masks, tree
from fedsparse_jax.aggregation import mean
from fedsparse_jax.benchmarks.timing import Alternatives, Played, working_megabytes
from fedsparse_jax.benchmarks.workloads import Workload, algorithm, chunk
from fedsparse_jax.data import cohort
from fedsparse_jax.models.functional import in_precision
from fedsparse_jax.types import Model

half = functools.partial(in_precision, name="bfloat16")


def round_of(workload: Workload, client_map: str | int = "scan", **model_options) -> Callable[[], object]:
    """A function that plays one whole round: begin, steps, finish with server pruning."""
    return _rounds(workload, client_map, workload.network(**model_options))


def _rounds(workload: Workload, client_map: str | int, network: Model, valid=None) -> Callable[[], object]:
    parts = algorithm(workload, client_map, network)
    server = jax.jit(parts.init)(jax.random.key(0))
    batches, ids, weights = chunk(workload), jnp.arange(workload.clients), jnp.ones(workload.clients)
    batches = batches if valid is None else batches._replace(valid=batches.valid & valid)
    begin, finish = jax.jit(parts.begin), jax.jit(parts.finish)
    steps = jax.jit(parts.steps, donate_argnums=0)

    def work():
        clients, _ = steps(begin(server, ids), batches)
        return finish(server, clients, weights)

    return work


def _with_memory(
    workload: Workload, client_map: str | int = "scan", network: Model | None = None, valid=None
):
    """A round that measures itself, with the working memory that XLA plans for the local steps beside it."""
    network = network or workload.network()
    work, parts = _rounds(workload, client_map, network, valid), algorithm(workload, client_map, network)
    server = jax.eval_shape(parts.init, jax.random.key(0))
    clients = jax.eval_shape(parts.begin, server, jnp.arange(workload.clients))
    compiled = jax.jit(parts.steps, donate_argnums=0).lower(clients, chunk(workload)).compile()
    megabytes = working_megabytes(compiled)

    def timed() -> Played:
        began = time.perf_counter()
        jax.block_until_ready(work())
        return Played(time.perf_counter() - began, {"working MB": megabytes})

    return timed


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
    """Clients one after another, 1 to 64; in groups of eight; then wider networks, and larger volumes."""
    grown = lambda clients: workload._replace(clients=clients)
    found: Alternatives = {f"{n} clients": _with_memory(grown(n)) for n in (8, 1, 2, 4, 16, 32, 64)}
    found |= {f"{n} clients, eight at a time": _with_memory(grown(n), 8) for n in (8, 64)}
    found |= {
        f"8 clients, {name}": _with_memory(each._replace(clients=8))
        for name, each in _larger(workload).items()
    }
    return found


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
    ways: dict[str, local.ClientMap] = {
        "one after another": "scan",
        "two at a time": 2,
        "four at a time": 4,
        "all at once (vmap)": "vmap",
    }
    found: Alternatives = {}
    for name, way in ways.items():
        share = cohort.padding(valid[..., 0], local.together(way, 8))
        play = _with_memory(grown, way, valid=valid)
        found[name] = functools.partial(_and, play, {"padding": float(share)})
    return found


def _and(play: Callable[[], Played], columns: dict) -> Played:
    played = play()
    return played._replace(columns={**played.columns, **columns})


def precision(workload: Workload) -> Alternatives:
    """float32, bfloat16 products, rematerialization, and both."""
    network = workload.network()
    found: Alternatives = {
        "float32": _with_memory(workload),
        "bfloat16": _with_memory(workload, network=half(network)),
    }
    if workload.model == "brain_age_cnn":
        again = workload.network(remat=True)
        found["float32, remat"] = _with_memory(workload, network=again)
        found["bfloat16, remat"] = _with_memory(workload, network=half(again))
    return found


def merge(workload: Workload) -> Alternatives:
    """Aggregation of the clients' models, against a copy of them."""
    params = workload.network().init(jax.random.key(0))
    stacked = tree.broadcast(params, workload.clients)
    kept = tree.broadcast(masks.ones(params), workload.clients)
    weights = jnp.ones(workload.clients)
    copy = jax.jit(lambda leaves: jax.tree.map(lambda leaf: leaf + 1, leaves))
    rule = jax.jit(mean)
    return {"copy": lambda: copy(stacked), "weighted mean": lambda: rule(stacked, kept, weights)}

"""Speed as ratios: alternatives timed in turn, in one process, on the same synthetic work.

Each benchmark is a dict of named alternatives, functions that do the whole work and wait for it. `compare` runs them
once to compile and then in turn, so that a machine that slows down slows all of them; medians are compared. The
numbers in docs/performance.md are printed by scripts/benchmark.py from here.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedsparse_jax import criteria, federated, losses, masks, pruning, schedules, tree
from fedsparse_jax.aggregation import mean
from fedsparse_jax.experiment import environment
from fedsparse_jax.models import MODELS
from fedsparse_jax.types import Chunk, Model, UsageError

Alternatives = dict[str, Callable[[], object]]


class Workload(NamedTuple):
    """One round of FedAvg with FedSparsify-Global's pruning: a network, and what each client trains on."""

    model: str
    options: dict
    shape: tuple[int, ...]
    clients: int
    steps: int  # of each client
    batch: int
    rate: float = 5e-5

    def network(self, **changes) -> Model:
        """The network, with some of its options changed."""
        return MODELS[self.model](self.shape, **{**self.options, **changes})


WORKLOADS = {
    "W": Workload("brain_age_cnn", {}, (32, 40, 32), clients=8, steps=4, batch=4),
    "W2": Workload("mlp", {"hidden": (128, 128)}, (28, 28), clients=100, steps=2, batch=32, rate=0.1),
    "W3": Workload("brain_age_cnn", {}, (91, 109, 91), clients=2, steps=2, batch=1),
    "tiny": Workload("mlp", {}, (4, 4), clients=4, steps=2, batch=2),  # for the tests
}


def compare(alternatives: Alternatives, repeats: int) -> list[dict]:
    """Times the alternatives in turn.

    Returns:
        One row each: ``name``, ``seconds`` (median), ``low`` and ``high``, ``first`` (with compilation) and ``ratio``,
        the first alternative's median over this one's: above 1 is faster than the first.
    """
    first = {name: _timed(work) for name, work in alternatives.items()}
    rounds = [{name: _timed(work) for name, work in alternatives.items()} for _ in range(repeats)]
    medians = {name: float(np.median([one[name] for one in rounds])) for name in alternatives}
    reference = next(iter(medians.values()))
    return [
        {
            "name": name,
            "seconds": medians[name],
            "low": min(one[name] for one in rounds),
            "high": max(one[name] for one in rounds),
            "first": first[name],
            "ratio": reference / medians[name],
        }
        for name in alternatives
    ]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - began


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    lines = ["| alternative | seconds | range | first call | ratio |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        spread = f"{row['low']:.4g} to {row['high']:.4g}"
        lines.append(
            f"| {row['name']} | {row['seconds']:.4g} | {spread} | {row['first']:.3g} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


# --- a round ------------------------------------------------------------------------------------


def round_of(workload: Workload, client_map: str | int = "scan", **model_options) -> Callable[[], object]:
    """A function that plays one whole round: begin, steps, finish with server pruning."""
    algorithm = _algorithm(workload, client_map, workload.network(**model_options))
    server = jax.jit(algorithm.init)(jax.random.key(0))
    chunk, ids, weights = _chunk(workload), jnp.arange(workload.clients), jnp.ones(workload.clients)
    begin, finish = jax.jit(algorithm.begin), jax.jit(algorithm.finish)
    steps = jax.jit(algorithm.steps, donate_argnums=0)

    def work():
        clients, _ = steps(begin(server, ids), chunk)
        return finish(server, clients, weights)

    return work


def _algorithm(workload: Workload, client_map: str | int, network: Model):
    classes = workload.model in ("mlp", "image_cnn")
    rule = pruning.Pruning(
        criteria.magnitude, pruning.global_, schedules.gradual(), pruning.everything, ("server",)
    )
    recipe = federated.Recipe(
        network,
        loss=losses.cross_entropy if classes else losses.squared,
        client_tx=optax.sgd(workload.rate),
        server_tx=optax.sgd(1.0),
        aggregate=mean,
        pruning=rule,
        client_map=client_map,
    )
    return federated.build(recipe)


def _chunk(workload: Workload) -> Chunk:
    rng = np.random.default_rng(0)
    lead = (workload.clients, workload.steps, workload.batch)
    inputs = jnp.asarray(rng.normal(size=(*lead, *workload.shape, 1)), jnp.float32)
    return Chunk(inputs, jnp.asarray(rng.integers(0, 10, lead), jnp.float32), jnp.ones(lead, bool))


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
    algorithm = _algorithm(workload, "scan", workload.network())
    server = jax.jit(algorithm.init)(jax.random.key(0))
    ids, weights = jnp.arange(workload.clients), jnp.ones(workload.clients)
    begin, finish = jax.jit(algorithm.begin), jax.jit(algorithm.finish)
    clients = begin(server, ids)
    return {
        "round": round_of(workload),
        "begin": lambda: begin(server, ids),
        "finish (aggregation, pruning, analytics)": lambda: finish(server, clients, weights),
    }


# --- selection ----------------------------------------------------------------------------------


def select(count: int) -> Alternatives:
    """The mask of the largest 5 % of ``count`` scores, half of them pruned before.

    A sort finds a threshold only; the exact count among ties is our own.
    """
    rng = np.random.default_rng(0)
    scores = jnp.asarray(np.abs(rng.normal(size=count)), jnp.float32)
    alive = jnp.asarray(rng.random(count) < 0.5)
    gone = jnp.int32(round(0.95 * count))
    keep = jax.jit(pruning.keep_largest)
    ordered = jax.jit(lambda s, a, k: jnp.sort(jnp.where(a, s, -1))[k])
    on_host = np.asarray(scores)
    return {
        "jnp.sort": lambda: ordered(scores, alive, gone),
        "radix select (ours)": lambda: keep(scores, alive, gone),
        "np.partition on the host": lambda: np.partition(on_host, int(gone)),
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


BENCHMARKS: dict[str, Callable[[str], Alternatives]] = {
    "round": lambda work: round_(workload_of(work)),
    "scaling": lambda work: scaling(workload_of(work)),
    "overhead": lambda work: overhead(workload_of(work)),
    "merge": lambda work: merge(workload_of(work)),
    "select": lambda work: select(int(work)),
}
DEFAULT_WORK = {"round": "W", "scaling": "W2", "overhead": "W", "merge": "W", "select": "2948801"}


def workload_of(name: str) -> Workload:
    """A member of ``WORKLOADS``."""
    if name not in WORKLOADS:
        raise UsageError(f"--work is {name!r}: it must be one of {', '.join(WORKLOADS)}.")
    return WORKLOADS[name]


def run(what: str, work: str, repeats: int) -> dict:
    """Measures one benchmark: ``what``, ``work``, ``rows`` of `compare`, and the machine."""
    if what not in BENCHMARKS:
        raise UsageError(f"There is no benchmark {what!r}; give one of {', '.join(BENCHMARKS)}.")
    if repeats < 1:
        raise UsageError(f"--repeats is {repeats}: it must be at least 1.")
    work = work or DEFAULT_WORK[what]
    if what == "select" and not work.isdigit():
        raise UsageError(f"--work is {work!r}: for select it is a number of weights.")
    return {
        "what": what,
        "work": work,
        "rows": compare(BENCHMARKS[what](work), repeats),
        "machine": environment(seed=0),
    }

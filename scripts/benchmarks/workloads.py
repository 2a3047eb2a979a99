"""The work that is timed: a network, and what each client trains on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedsparse_jax.core import losses
from fedsparse_jax.core.types import Chunk, FedAlgorithm, Model
from fedsparse_jax.federated import algorithm as federated
from fedsparse_jax.federated.aggregation import mean
from fedsparse_jax.models import MODELS
from fedsparse_jax.sparsity import criteria, pruning, schedules


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
    "tiny": Workload("mlp", {"hidden": (8,)}, (4, 4), clients=4, steps=2, batch=2),  # for the tests
}


def algorithm(
    workload: Workload,
    client_map: str | int = "scan",
    network: Model | None = None,
    prunes: bool = True,
) -> FedAlgorithm:
    """FedAvg, one local epoch of SGD, with FedSparsify-Global's pruning unless ``prunes`` is False."""
    classes = workload.model in ("mlp", "image_cnn")
    where = ("server",) if prunes else ()
    rule = pruning.Pruning(
        criteria.magnitude, pruning.global_, schedules.gradual(), pruning.everything, where
    )
    recipe = federated.Recipe(
        network or workload.network(),
        loss=losses.cross_entropy if classes else losses.squared,
        client_tx=optax.sgd(workload.rate),
        server_tx=optax.sgd(1.0),
        aggregate=mean,
        pruning=rule,
        client_map=client_map,
    )
    return federated.build(recipe)


class Round(NamedTuple):
    """The jitted functions of a round, and who takes part."""

    init: Callable
    begin: Callable
    steps: Any  # takes the clients' memory over; has ``lower``
    finish: Callable
    ids: jax.Array  # i32[C]
    weights: jax.Array  # f32[C]

    def play(self, server, batches: Chunk):
        """``(ServerState, RoundInfo)`` after the round."""
        clients, _ = self.steps(self.begin(server, self.ids), batches)
        return self.finish(server, clients, self.weights)


def compiled(workload: Workload, *args, **options) -> Round:
    """A round of the `algorithm` with these arguments."""
    parts = algorithm(workload, *args, **options)
    steps = jax.jit(parts.steps, donate_argnums=0)
    ids, weights = jnp.arange(workload.clients), jnp.ones(workload.clients)
    return Round(jax.jit(parts.init), jax.jit(parts.begin), steps, jax.jit(parts.finish), ids, weights)


def chunk(workload: Workload) -> Chunk:
    """A round's batches of all clients: noise, and whole numbers as targets."""
    rng = np.random.default_rng(0)
    lead = (workload.clients, workload.steps, workload.batch)
    inputs = jnp.asarray(rng.normal(size=(*lead, *workload.shape, 1)), jnp.float32)
    return Chunk(inputs, jnp.asarray(rng.integers(0, 10, lead), jnp.float32), jnp.ones(lead, bool))

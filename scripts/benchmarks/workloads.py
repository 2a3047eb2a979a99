"""The work that is timed: a network, and what each client trains on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedsparse_jax.core import losses
from fedsparse_jax.core.types import Chunk, FedAlgorithm, Model
from fedsparse_jax.federated import Recipe, build_algorithm, mean, prune_on_server
from fedsparse_jax.federated.client_map import ClientMap
from fedsparse_jax.federated.sums import SUM_RULES
from fedsparse_jax.models import MODELS
from fedsparse_jax.runs.round import jit_algorithm
from fedsparse_jax.sparsity import CRITERIA, Pruning, global_, gradual


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


def workload_algorithm(
    workload: Workload,
    client_map: ClientMap = "scan",
    network: Model | None = None,
    prunes: bool = True,
    merges: bool = False,
) -> FedAlgorithm:
    """FedAvg, one local epoch of SGD, with FedSparsify-Global's pruning unless ``prunes`` is False; with ``merges``
    clients are merged as they come.
    """
    classes = workload.model in ("mlp", "image_cnn")
    rule = Pruning(CRITERIA["magnitude"], global_, gradual())
    recipe = Recipe(
        network or workload.network(),
        loss=losses.cross_entropy if classes else losses.squared,
        client_tx=optax.sgd(workload.rate),
        server_tx=optax.sgd(1.0),
        aggregate=mean,
        hooks=(prune_on_server(rule),) if prunes else (),
        client_map=client_map,
        of_sums=SUM_RULES["mean"] if merges else None,
    )
    return build_algorithm(recipe)


class JittedRound(NamedTuple):
    """The jitted functions of a round, and who takes part."""

    algorithm: FedAlgorithm
    ids: jax.Array  # i32[C]
    weights: jax.Array  # f32[C]

    def start(self, server):
        """The clients before their local steps."""
        return self.algorithm.start_clients(server, self.ids)

    def play(self, server, batches: Chunk):
        """``(ServerState, RoundInfo)`` after the round."""
        clients, _ = self.algorithm.local_steps(self.start(server), batches)
        return self.algorithm.update_server(server, clients, self.weights)


def jitted_round(workload: Workload, *args, **options) -> JittedRound:
    """A round of the `workload_algorithm` with these arguments."""
    algorithm = jit_algorithm(workload_algorithm(workload, *args, **options))
    return JittedRound(algorithm, jnp.arange(workload.clients), jnp.ones(workload.clients))


def chunk(workload: Workload) -> Chunk:
    """A round's batches of all clients: noise, and whole numbers as targets."""
    rng = np.random.default_rng(0)
    lead = (workload.clients, workload.steps, workload.batch)
    inputs = jnp.asarray(rng.normal(size=(*lead, *workload.shape, 1)), jnp.float32)
    return Chunk(inputs, jnp.asarray(rng.integers(0, 10, lead), jnp.float32), jnp.ones(lead, bool))

"""An algorithm with clients who lie: a run with them is the same fold as one without."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.core import tree
from fedsparse_jax.core.types import Array, Chunk, ClientState, FedAlgorithm, Payload, Poison, ServerState, StepInfo
from fedsparse_jax.federated.client_map import ClientMap, map_over_clients


def poisoned(
    algorithm: FedAlgorithm, poison: Poison, malicious: Collection[int], client_map: ClientMap = "scan"
) -> FedAlgorithm:
    """The algorithm with some clients who lie.

    Args:
        algorithm: any, not jitted.
        poison: what they do, see `attacks.POISONS`.
        malicious: their numbers in the federation.
        client_map: how clients are executed.
    """
    liars = np.array(sorted(malicious), np.int32)
    lies = lambda ids: (ids[:, jnp.newaxis] == liars[jnp.newaxis]).any(1)
    change_batches = map_over_clients(poison.change_batches, client_map)

    def local_steps(clients: ClientState, chunk: Chunk) -> tuple[ClientState, StepInfo]:
        return algorithm.local_steps(clients, _where(lies(clients.id), change_batches(chunk, clients.key), chunk))

    def upload(server: ServerState, clients: ClientState, data: Chunk | None = None) -> Payload:
        sent = algorithm.upload(server, clients, data)
        is_sent = lambda values: jax.tree.map(lambda leaf, other: None if other is None else leaf, values, sent.params)
        seen = server._replace(params=is_sent(server.params), masks=is_sent(server.masks))
        changed = map_over_clients(lambda own: poison.change_upload(seen, own), client_map)(sent)
        return _where(lies(clients.id), changed, sent)

    def update_server(server, clients, weights, data=None, received=None, reports=None):
        received = upload(server, clients, data) if received is None else received
        return algorithm.update_server(server, clients, weights, data, received, reports)

    return algorithm._replace(local_steps=local_steps, upload=upload, update_server=update_server)


def _where(rows: Array, chosen, other):
    """``chosen`` in some rows of the leading axis, else ``other``."""
    return jax.tree.map(lambda a, b: jnp.where(tree.per_row(rows, a), a, b), chosen, other)

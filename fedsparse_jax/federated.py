"""The builder: small functions plugged into one round, `begin`, `steps`, `finish`.

    server, clients = algorithm.init(key), algorithm.begin(server, client_ids)
    for chunk in chunks:
        clients, step_info = algorithm.steps(clients, chunk)
    server, round_info = algorithm.finish(server, clients, weights)

FedAvg, FedSparsify-Global, FedSparsify-Local and their centralized kin are arguments of `build`, not loops of
their own. Nothing here is jitted: the caller jits each function once, at the edge.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax import local, masks, tree
from fedsparse_jax.types import (
    Aggregator,
    Array,
    ClientState,
    FedAlgorithm,
    Model,
    RoundInfo,
    Schedule,
    ServerState,
    UsageError,
)

PLACEMENTS = ("none", "init", "client", "server")
_INIT, _PRUNE, _ROUNDS = 0, 1, 2  # independent streams of the seed's key


def build(
    model: Model,
    *,
    loss: Callable,
    client_tx: optax.GradientTransformation,
    server_tx: optax.GradientTransformation,
    aggregate: Aggregator,
    prune: Callable,
    schedule: Schedule,
    placement: str,
    client_map: local.ClientMap,
    devices: int = 1,
) -> FedAlgorithm:
    """A federated algorithm from its parts.

    Args:
        model: the network.
        loss: ``(predictions [B], targets [B]) -> f32[B]``.
        client_tx: optimizer of the local steps; its state is fresh every round.
        server_tx: optimizer on the pseudo-gradient, global model minus aggregate; ``sgd(1.0)`` is FedAvg.
        aggregate: reduces the client axis of params and masks.
        prune: ``(params, masks, round, key) -> masks``, from `pruning.pruner`.
        schedule: the same one that ``prune`` follows; here it is only reported.
        placement: who prunes: ``"none"``, ``"init"`` (once, before round 1), ``"client"`` (each after its
            local training: FedSparsify-Local) or ``"server"`` (after aggregation: FedSparsify-Global).
        client_map: see `local.over_clients`.
        devices: same.

    Raises:
        UsageError: ``placement`` or ``client_map`` is unknown.
    """
    if placement not in PLACEMENTS:
        raise UsageError(f"pruning.placement is {placement!r}: it must be one of {', '.join(PLACEMENTS)}.")
    steps = local.make_steps(local.make_step(model.apply, loss, client_tx), client_map, devices)

    def asked(t):
        return {"none": 0.0, "init": schedule(0)}.get(placement, schedule(t))

    def init(key):
        params = model.init(jax.random.fold_in(key, _INIT))
        kept = masks.ones(params)
        if placement == "init":
            kept = prune(params, kept, 0, jax.random.fold_in(key, _PRUNE))
            params = masks.apply(kept, params)
        return ServerState(jnp.zeros((), jnp.int32), params, kept, server_tx.init(params), key)

    def begin(server, client_ids):
        round_key = jax.random.fold_in(jax.random.fold_in(server.key, _ROUNDS), server.round + 1)
        client_keys = local.client_keys(round_key, client_ids)
        shared = (server.params, server.masks, client_tx.init(server.params))
        params, kept, opt_state = tree.broadcast(shared, client_ids.shape[0])
        return ClientState(params, kept, opt_state, client_keys)

    def client_prune(server, clients):
        if placement != "client":
            return clients.masks, clients.params
        t, key = server.round + 1, jax.random.fold_in(server.key, _PRUNE)
        over_clients = local.over_clients(lambda p, m: prune(p, m, t, key), client_map, devices)
        pruned = over_clients(clients.params, clients.masks)
        return pruned, masks.apply(pruned, clients.params)

    def finish(server, clients, weights):
        client_masks, client_params = client_prune(server, clients)
        target, agreed = aggregate(client_params, client_masks, weights)
        pseudo_gradient = jax.tree.map(jnp.subtract, server.params, target)
        updates, opt_state = server_tx.update(pseudo_gradient, server.opt_state, server.params)
        params, kept = optax.apply_updates(server.params, updates), agreed
        if placement == "server":
            key = jax.random.fold_in(server.key, _PRUNE)
            kept = prune(masks.apply(kept, params), kept, server.round + 1, key)
        new = ServerState(server.round + 1, masks.apply(kept, params), kept, opt_state, server.key)
        size_and_overlap = lambda m: (masks.kept(m).sum(), masks.jaccard(m, agreed))
        measure = local.over_clients(size_and_overlap, client_map, devices)
        kept_up, overlap = measure(client_masks)
        return new, round_info(server, new, kept_up, overlap, weights, asked(new.round))

    return FedAlgorithm(init, begin, steps, finish)


def round_info(
    server: ServerState, new: ServerState, kept_up: Array, overlap: Array, weights: Array, target_sparsity
) -> RoundInfo:
    """What a round from ``server`` to ``new`` reports; clients of weight 0 do not count.

    Args:
        server: the state before the round.
        new: the state after it.
        kept_up: ``i32[C]``, weights that each client kept.
        overlap: ``f32[C]``, Jaccard overlap of each client's mask with the one they were merged to.
        weights: ``f32[C]``.
        target_sparsity: what the schedule asked for.
    """
    present = weights > 0
    return RoundInfo(
        round=new.round,
        target_sparsity=jnp.asarray(target_sparsity, jnp.float32),
        kept=masks.kept(new.masks),
        kept_down=masks.kept(server.masks).sum(),
        kept_up=jnp.where(present, kept_up, 0),
        agreement=jnp.where(present, overlap, 0).sum() / present.sum(),
        finite=tree.all_finite(new.params),
    )

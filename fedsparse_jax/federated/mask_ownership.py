"""Whose mask outlives a round: the server's, one for all clients, or each client's own.

In most methods the global mask is the only one that is kept; what a client changes, it changes until the merge. Where
clients take parts of it (FLASH with budgets), their parts end with the round, and the global mask stays as it is.
In LotteryFL every client keeps a mask of its own, is sent the global model within it, and the global model stays dense.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.types import Array, ClientState, Masks, Params, Payload, ServerState
from fedsparse_jax.federated.client_map import ClientMap, map_over_clients


class Merged(NamedTuple):
    """What the server steps towards."""

    params: Params
    masks: Masks
    updated: Masks | None = None  # weights that may change; None for all that the mask keeps


class MaskChange(NamedTuple):
    """A new mask beside the one before it, for the report."""

    kept: Array  # i32[L]
    dead_channels: Array  # i32[L]
    drift: Array  # i32[]


class MaskOwnership(NamedTuple):
    """The parts of a round that depend on whose masks outlive it."""

    clients_keep: bool  # whether masks are kept by client, in `ClientMemory.masks`
    download: Callable[[ServerState, Array], Payload]  # (server, client_ids [C])
    merge: Callable[..., Merged]  # (server, params, masks, votes), of the aggregate
    changed: Callable[..., MaskChange]  # (server, new, clients, present, client_map)
    params_down: Callable[..., Any]  # (server, clients, client_map) -> weights sent to each client


def mask_change(before: Masks, after: Masks) -> MaskChange:
    """What became of one mask."""
    return MaskChange(masks.count_kept(after), masks.dead_channels(after), masks.hamming(before, after))


def where_held_by_someone(held: Masks, new: Params, old: Params) -> Params:
    """``new`` where ``held``, else ``old``."""
    return jax.tree.map(jnp.where, held, new, old)


def _download_shared(server: ServerState, client_ids: Array) -> Payload:
    return Payload(*tree.broadcast((server.params, server.masks), client_ids.shape[0]))


def _merge_shared(server: ServerState, params: Params, mask: Masks, votes) -> Merged:
    return Merged(params, mask)


def _shared_change(server, new, clients, present, client_map) -> MaskChange:
    return mask_change(server.masks, new.masks)


def _shared_params_down(server: ServerState, clients: ClientState, client_map: ClientMap) -> Array:
    return masks.count_kept(server.masks).sum()


def _download_own(server: ServerState, client_ids: Array) -> Payload:
    """The global model within each client's own mask."""
    params = tree.broadcast(server.params, client_ids.shape[0])
    own = tree.gather(server.memory.masks, client_ids)
    return Payload(masks.apply(own, params), own)


def _merge_own(server: ServerState, params: Params, mask: Masks, votes) -> Merged:
    """The aggregate where somebody holds a weight; what nobody holds keeps its old value, and nothing is pruned."""
    held = jax.tree.map(lambda kept, count: kept & (count > 0), mask, votes)
    return Merged(where_held_by_someone(held, params, server.params), server.masks, held)


def _own_change(server, new, clients, present, client_map) -> MaskChange:
    """The mean over the present clients, rounded; over the whole cohort where none is present."""
    before, after = (tree.gather(state.memory.masks, clients.id) for state in (server, new))
    each = map_over_clients(mask_change, client_map)(before, after)
    weights = (present | ~present.any()).astype(jnp.float32)
    mean = lambda leaf: jnp.round(tree.weighted_mean(leaf.astype(jnp.float32), weights)).astype(jnp.int32)
    return jax.tree.map(mean, each)


def _own_params_down(server: ServerState, clients: ClientState, client_map: ClientMap) -> Array:
    received = tree.gather(server.memory.masks, clients.id)
    return map_over_clients(lambda mask: masks.count_kept(mask).sum(), client_map)(received)


SERVER_OWNS = MaskOwnership(False, _download_shared, _merge_shared, _shared_change, _shared_params_down)
CLIENTS_TAKE_PARTS = SERVER_OWNS._replace(merge=_merge_own)
CLIENTS_OWN = MaskOwnership(True, _download_own, _merge_own, _own_change, _own_params_down)

"""Leaves that stay with their client, such as a head or an affine layer of its own: never sent, merged or pruned.

A client keeps them in `ClientMemory.params`, ``[N, ...]`` by client id (FedPer, Arivazhagan et al., 2019, arXiv
1912.00818; with norms, FedBN, Li et al., 2021, arXiv 2102.07623). In what crosses the network None stands in their
place, which is a tree without leaves. In the server's params they stay as they were before round 1, so that nobody
should predict with these: each client has a model of its own.
"""

import fnmatch
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.types import Array, Masks, Params, Payload, ServerState

Personal = Callable[[Params], object]  # which leaves stay with their client, as a tree of bool


def leaves_named(patterns: Sequence[str]) -> Personal:
    """Leaves whose names match one of some patterns, such as ``head/*`` or ``*/bias``.

    >>> leaves_named(["head/*"])({"conv": {"kernel": 1}, "head": {"bias": 2}})
    {'conv': {'kernel': False}, 'head': {'bias': True}}
    """

    def flags(params: Params):
        found = [any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) for name in tree.leaf_names(params)]
        return jax.tree.unflatten(jax.tree.structure(params), found)

    return flags


def own_part(flags, values):
    """A tree with None in place of the leaves that are shared."""
    return jax.tree.map(lambda own, leaf: leaf if own else None, flags, values)


def shared_part(flags, values):
    """A tree with None in place of the leaves that stay with their client."""
    return jax.tree.map(lambda own, leaf: None if own else leaf, flags, values)


def joined(flags, shared, own):
    """The whole tree of a shared part and an own part, or of two trees."""
    return jax.tree.map(lambda is_own, a, b: b if is_own else a, flags, shared, own)


def without_own(flags, sent: Payload) -> Payload:
    """What is sent of a payload; all of it for flags of None."""
    if flags is None:
        return sent
    params, masks, scores = sent
    return Payload(shared_part(flags, params), shared_part(flags, masks), tuple(shared_part(flags, t) for t in scores))


def with_own(flags, received: Payload, own: Params, own_masks: Masks) -> Payload:
    """A payload with the leaves that are not sent, from ``own [C, ...]`` and ``own_masks [C, ...]``; scores of 0."""
    if flags is None:
        return received
    params = joined(flags, received.params, own)
    scores = tuple(joined(flags, scored, jax.tree.map(jnp.zeros_like, params)) for scored in received.scores)
    return Payload(params, joined(flags, received.masks, own_masks), scores)


def has_own_models(server: ServerState) -> bool:
    """Whether every client predicts with a model of its own: within its own mask, or with leaves of its own."""
    return server.memory.masks is not None or server.memory.params is not None


def model_of_client(server: ServerState, client: int | Array) -> Params:
    """The params that a client would predict with between two rounds."""
    own_masks, own = server.memory.masks, server.memory.params
    params = server.params if own_masks is None else masks.apply(tree.gather(own_masks, client), server.params)
    if own is None:
        return params
    return jax.tree.map(lambda leaf, mine: leaf if mine is None else mine[client], params, own)

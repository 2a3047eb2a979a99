"""The server's step: from what a round's clients come to, however they were added up, to its next state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.optimizers import mask_optimizer_state, optimizer_step, rate_factor_of_round
from fedsparse_jax.core.types import Array, Masks, Params, ServerState
from fedsparse_jax.federated.client_step import make_objective
from fedsparse_jax.federated.hooks import HookContext
from fedsparse_jax.federated.mask_ownership import where_held_by_someone
from fedsparse_jax.federated.personal import joined
from fedsparse_jax.federated.recipe import Recipe

_PRUNE = 1  # the stream of the seed's key


class Gathered(NamedTuple):
    """What a round's clients come to; who was left out does not count."""

    params: Params  # the aggregate
    masks: Masks
    votes: Any  # leaves i32[...], how many clients keep each weight
    scores: tuple  # of each hook the clients' weighted mean, or None where it has asked for none
    hook_state: Params | None  # what a hook keeps at the server


def step_server(recipe: Recipe, server: ServerState, gathered: Gathered) -> ServerState:
    """The state after the round, whose clients' memory is still that of before."""
    votes, t = gathered.votes, server.round + 1
    merged = recipe.mask_ownership.merge(server, gathered.params, gathered.masks, votes)
    pseudo_gradient = jax.tree.map(jnp.subtract, server.params, merged.params)
    factor = rate_factor_of_round(recipe.server_rate, t) if recipe.server_rate else None
    params, opt_state = optimizer_step(recipe.server_tx, pseudo_gradient, server.opt_state, server.params, factor)
    params = masks.apply(merged.masks, params)
    if merged.updated is not None:  # what nobody holds keeps its old value: the global model stays dense
        params = where_held_by_someone(merged.updated, params, server.params)
    params, mask = _hooks_after_aggregation(recipe, server, params, merged.masks, gathered)
    flags, state = recipe.personal_flags(params), gathered.hook_state
    return server._replace(
        round=t,
        params=joined(flags, params, server.params) if flags else params,
        masks=mask,
        opt_state=mask_optimizer_state(recipe.server_tx, opt_state, mask),
        hook_state=None if state is None else masks.apply(mask, state),
    )


def _hooks_after_aggregation(recipe: Recipe, server, params, mask, gathered: Gathered):
    """The new global model and mask.

    Each hook sees what the one before it has left: a weight that one prunes and another lets grow starts from 0.
    """
    context = hook_context(recipe, server, server.round + 1)
    for hook, scores in zip(recipe.hooks, gathered.scores, strict=True):
        if hook.after_aggregation:
            mask = hook.after_aggregation(context, params, mask, gathered.votes, scores)
            params = masks.apply(mask, params)
    return masks.apply(mask, params), mask


def end_round(recipe: Recipe, server: ServerState, changed: ServerState, loss: Array, enough: Array) -> ServerState:
    """The state of a round with ``enough bool[]`` clients; else it changes nothing but its number.

    Args:
        recipe, server: of the round.
        changed: the state after it.
        loss: ``f32[]``, the clients' weighted mean, of which a schedule may make something; NaN where nobody told one.
        enough: whether it counts.
    """
    if recipe.paced:
        changed = changed._replace(pace=recipe.paced.update(server.pace, changed.round, loss))
    kept = server._replace(round=changed.round)
    keys_apart = lambda state: state._replace(key=None)  # `where` is for numbers
    return tree.where(enough, keys_apart(changed), keys_apart(kept))._replace(key=server.key)


def hook_context(recipe: Recipe, server: ServerState, t: Array | int) -> HookContext:
    """What the hooks are told in round ``t``."""
    return HookContext(
        t=t,
        key=jax.random.fold_in(server.key, _PRUNE),
        apply=recipe.model.apply,
        objective=make_objective(recipe.model.apply, recipe.loss),
        client_tx=recipe.client_tx,
        client_map=recipe.client_map,
        num_clients=recipe.num_clients,
        pace=server.pace,
    )

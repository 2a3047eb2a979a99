"""What a round reports: sparsity asked for and reached, what was sent, and how the clients' masks agree."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.optimizers import rate_factor_of_round
from fedsparse_jax.core.types import Absence, Array, ClientState, RoundInfo, ServerState
from fedsparse_jax.federated.client_map import map_over_clients
from fedsparse_jax.federated.personal import own_part
from fedsparse_jax.federated.recipe import Recipe
from fedsparse_jax.federated.sound_clients import has_arrived


class SentMasks(NamedTuple):
    """What a round reports of the masks that clients have changed and sent."""

    kept: Array  # i32[C], weights of each
    agreement: Array  # f32[], see `core.masks.agreement`
    margin: Array  # f32[], see `core.masks.vote_margin`


def sent_masks(recipe: Recipe, client_masks, present: Array) -> SentMasks | None:
    """Of masks ``bool[C, ...]`` and who is ``present``; None where clients change no masks."""
    if not recipe.clients_change_masks:
        return None
    return sent_by_votes(kept_by_client(recipe, client_masks), masks.votes(client_masks, present), present.sum())


def sent_by_votes(kept: Array, votes, count: Array) -> SentMasks:
    """Of ``kept i32[C]``, and of the ``votes i32[...]`` of ``count`` clients."""
    return SentMasks(kept, masks.agreement(votes, count), masks.vote_margin(votes, count))


def kept_by_client(recipe: Recipe, client_masks) -> Array:
    """How many weights each client keeps, ``i32[C]``; of masks ``bool[C, ...]``."""
    return map_over_clients(lambda mask: masks.count_kept(mask).sum(), recipe.client_map)(client_masks)


def describe_round(
    recipe: Recipe,
    server: ServerState,
    new: ServerState,
    clients: ClientState | None,
    sent: SentMasks | None,
    left_out: Array,
    void: Array,
) -> RoundInfo:
    """The report of a round from ``server`` to ``new``; who was left out does not count.

    Args:
        recipe: the method.
        server, new: the states before and after the round.
        clients: the cohort after its training; None where clients keep nothing between rounds.
        sent: of the masks that the clients sent; None where they have changed none.
        left_out, void: see `RoundInfo`.
    """
    present, owner = left_out == Absence.NONE, recipe.mask_ownership
    asked = left_out != Absence.NO_DATA
    flags = recipe.personal_flags(server.params)
    unsent = masks.count_kept(own_part(flags, server.masks)).sum() if flags else 0
    params_up, agreement, margin = masks.count_kept(server.masks).sum(), jnp.float32(1), None
    if sent:
        params_up, agreement, margin = sent
    change = owner.changed(server, new, clients, present, recipe.client_map)
    trees = 1 if server.hook_state is None else 2  # what a hook keeps at the server has the mask of the model
    params_down = trees * (owner.params_down(server, clients, recipe.client_map) - unsent)
    params_up = trees * (params_up - unsent)
    states = clients.state if clients else None
    target = target_sparsity(recipe, new.round, states, present | ~present.any(), server.pace)
    return RoundInfo(
        round=new.round,
        target_sparsity=jnp.asarray(target * prunable_share(recipe, new.params), jnp.float32),
        kept=change.kept,
        dead_channels=change.dead_channels,
        drift=change.drift,
        params_down=jnp.where(asked, params_down, 0),
        params_up=jnp.where(has_arrived(left_out), params_up + _num_scores(recipe, new), 0),
        agreement=agreement,
        vote_margin=margin,
        finite=tree.all_finite(new.params),
        left_out=left_out,
        void=void,
        client_rate_factor=rate_factor_of_round(recipe.client_rate, new.round) if recipe.client_rate else None,
        server_rate_factor=rate_factor_of_round(recipe.server_rate, new.round) if recipe.server_rate else None,
    )


def target_sparsity(recipe: Recipe, t: Array, states, present: Array, pace=None) -> Array:
    """The share of the prunable weights that the method asks to be zero in round ``t``; 0 for a dense method.

    The last hook that asks for a sparsity decides. Where a hook keeps a state for each client, it decides, by the mean
    over the present clients. For `sparsity.regrowth.greedy` it is a bound that is approached from a dense start.
    """
    asking = [(hook.target_sparsity, hook.init_state) for hook in recipe.hooks if hook.target_sparsity]
    if not asking:
        return jnp.float32(0)
    by_client = [ask for ask, init_state in asking if init_state]
    if not by_client:
        return asking[-1][0](t, None, pace)
    each = map_over_clients(lambda state: by_client[0](t, state, pace), recipe.client_map)(states)
    return tree.weighted_mean(each, present.astype(jnp.float32))


def _num_scores(recipe: Recipe, new: ServerState) -> Array:
    """How many scores each client sends the server in this round, one for each prunable weight."""
    size = round(prunable_share(recipe, new.params) * tree.size(new.params))
    asking = [hook for hook in recipe.hooks if hook.upload_scores and not hook.update_server_state]
    due = [hook.scores_due(new.round) for hook in asking]
    return sum((size * jnp.asarray(flag, jnp.int32) for flag in due), start=jnp.int32(0))


def prunable_share(recipe: Recipe, params) -> float:
    """Share of the weights that may be pruned at all."""
    flags = jax.tree.leaves(recipe.prunable(params))
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    return sum(size for size, flag in zip(sizes, flags, strict=True) if flag) / sum(sizes)

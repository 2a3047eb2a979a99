"""A round whose clients are merged as they come: what some of them add up to, in the memory of one model.

The memory of a round then does not grow with its cohort. That needs a rule of aggregation that only sums enter: a
weighted mean, or votes. ``SUM_RULES`` has those of `aggregation.AGGREGATORS` that are such rules, by the same names.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedsparse_jax.core import masks as mask_algebra
from fedsparse_jax.core import tree
from fedsparse_jax.core.types import Absence, Array, Masks, Params, Payload, Reports, RoundInfo, ServerState, SumRule
from fedsparse_jax.federated.aggregation import Quorum, elect_by_votes, weighted_votes
from fedsparse_jax.federated.recipe import Recipe
from fedsparse_jax.federated.robust import within_sent_mask
from fedsparse_jax.federated.round_info import describe_round, kept_by_client, sent_by_votes
from fedsparse_jax.federated.server_step import Gathered, end_round, step_server
from fedsparse_jax.federated.sound_clients import why_absent


class Sums(NamedTuple):
    r"""What clients add up to; p_k is the weight, m_k the mask and theta_k the params of client k."""

    weight: Array  # f32[], the sum of p_k
    clients: Array  # i32[], how many
    params: Params  # the sum of p_k theta_k
    kept: Any  # leaves f32[...], the sum of p_k m_k
    votes: Any  # leaves i32[...], the sum of m_k
    scores: tuple  # of each hook that asks for some, the sum of p_k times the scores
    loss: Array  # f32[], the sum of p_k times the mean loss of the local training


class Added(NamedTuple):
    """What is to be reported of clients who were added."""

    left_out: Array  # i32[C], see `RoundInfo`
    kept: Array | None  # i32[C], weights that each keeps; None where clients change no masks


def _mean(sums: Sums) -> tuple[Params, Masks]:
    """`aggregation.mean`."""
    return jax.tree.map(lambda total: total / sums.weight, sums.params), _union(sums)


def _keepers_mean(sums: Sums) -> tuple[Params, Masks]:
    """`aggregation.keepers_mean`, weighted by examples."""
    share = lambda total, kept: jnp.where(kept > 0, total / jnp.where(kept > 0, kept, 1), 0)
    return jax.tree.map(share, sums.params, sums.kept), _union(sums)


def _majority_vote(sums: Sums, *, quorum: Quorum = "at_least_half") -> tuple[Params, Masks]:
    """`aggregation.majority_vote`."""
    return _elected(sums, quorum, _mean)


def _vote_keepers(sums: Sums, *, quorum: Quorum = "at_least_half") -> tuple[Params, Masks]:
    """`aggregation.vote_keepers`."""
    return _elected(sums, quorum, _keepers_mean)


def _elected(sums: Sums, quorum: Quorum, rule: SumRule) -> tuple[Params, Masks]:
    elected = elect_by_votes(sums.votes, sums.clients, quorum)
    return mask_algebra.apply(elected, rule(sums)[0]), elected


def _union(sums: Sums) -> Masks:
    return jax.tree.map(lambda votes: votes > 0, sums.votes)


SUM_RULES: dict[str, SumRule] = {
    "mean": _mean,
    "keepers_mean": _keepers_mean,
    "majority_vote": _majority_vote,
    "vote_keepers": _vote_keepers,
}


def of_nobody(recipe: Recipe, server: ServerState) -> Sums:
    """The sums before the first client of a round."""
    zeros = lambda dtype: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), server.params)
    weights, none = zeros(jnp.float32), jnp.float32(0)
    scores = tuple(zeros(jnp.float32) for hook in recipe.hooks if hook.upload_scores)
    return Sums(none, jnp.int32(0), weights, weights, zeros(jnp.int32), scores, none)


def add_clients(
    recipe: Recipe, server: ServerState, sums: Sums, received: Payload, weights: Array, reports: Reports | None = None
) -> tuple[Sums, Added]:
    """The sums with some more clients.

    A client is sound or not by itself: its loss is compared with that of a model that knows nothing, its norm with that
    of the global model (`sound_clients.why_absent` without a cohort).

    Args:
        recipe, server: of the round.
        sums: so far.
        received: of these clients, leaves ``[C, ...]``.
        weights: ``f32[C]``, the examples behind each.
        reports: of the clients.
    """
    left_out = why_absent(recipe.limits, server, received, weights, reports, recipe.client_map, cohort=False)
    counted = jnp.where(left_out == Absence.NONE, weights, 0)
    params, masks, scores = received
    if not recipe.clients_may_regrow:
        params, masks = within_sent_mask(server.masks, params, masks)
    losses = jnp.full_like(counted, jnp.nan) if reports is None else reports.losses
    present = counted > 0
    new = Sums(
        counted.sum(),
        present.sum(dtype=jnp.int32),
        tree.weighted_sum(params, counted),
        jax.tree.map(lambda mask: tree.sum_rows(weighted_votes, mask, counted), masks),
        mask_algebra.votes(masks, present),
        tuple(tree.weighted_sum(scored, counted) for scored in scores),
        jnp.where(present, counted * losses, 0).sum(),
    )
    kept = kept_by_client(recipe, masks) if recipe.clients_change_masks else None
    return jax.tree.map(jnp.add, sums, new), Added(left_out, kept)


def update_by_sums(recipe: Recipe, server: ServerState, sums: Sums, added: Added) -> tuple[ServerState, RoundInfo]:
    """The round of all clients whose sums these are, as `algorithm.update_server` ends it.

    Args:
        recipe, server: of the round.
        sums: of its cohort.
        added: of its cohort.
    """
    means = iter([jax.tree.map(lambda total: total / sums.weight, scored) for scored in sums.scores])
    scores = tuple(next(means) if hook.upload_scores else None for hook in recipe.hooks)
    assert recipe.of_sums
    params, masks = recipe.of_sums(sums)
    changed = step_server(recipe, server, Gathered(params, masks, sums.votes, scores, server.hook_state))
    enough = sums.clients >= recipe.limits.min_clients
    new = end_round(recipe, server, changed, sums.loss / sums.weight, enough)
    sent = None if added.kept is None else sent_by_votes(added.kept, sums.votes, sums.clients)
    return new, describe_round(recipe, server, new, None, sent, added.left_out, ~enough)

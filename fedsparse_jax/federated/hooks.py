"""What a method does to masks, and where in a round: hooks, one for each place where a method may step in::

    at_init            before round 1, on the server         SNIP, GraSP, SynFlow, SalientGrads, FedDST, FLASH
    before_training    a client, with the model it was sent  LotteryFL (`lottery`), SCAFFOLD, FLASH with budgets
    after_training     a client, before it uploads           FedSparsify-Local, FedDST, FedDIP (`error_feedback`)
    upload_scores      a client, what the server asks for    PruneFL, RigL
    after_aggregation  the server, after its step            FedSparsify-Global, PruneFL, FedDST, RigL, SET

A `Hook` is a bundle of such functions, each pure and each optional. A function of a client knows one client; the
builder (`algorithm`) maps it over the cohort, keeps the order of the hooks, and hands over data only where a hook
needs it. The factories below make the hooks of the published methods from a `Pruning` and a `Regrowth`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array, ClientState, DataNeeds, Key, Params, ServerState
from fedsparse_jax.federated.client_map import ClientMap, map_over_clients
from fedsparse_jax.federated.mask_ownership import SERVER_OWNS, MaskOwnership
from fedsparse_jax.sparsity.criteria import Criterion
from fedsparse_jax.sparsity.pacing import Paced
from fedsparse_jax.sparsity.pruning import Pruning, make_scorer
from fedsparse_jax.sparsity.regrowth import Regrowth

SCORED_CLIENTS = ("one", "all")
TINY = 1e-30  # a vote's part in a score: orders what is exactly zero, as weights that have just grown are


class HookContext(NamedTuple):
    """What a hook may know beside the model that it is given."""

    t: Any  # i32[], the round, counted from 1; 0 before round 1
    key: Key  # from the seed, the same in every round, so that random masks nest
    apply: Callable  # the network
    objective: Callable  # (params, batch) -> f32[], the mean loss of the valid examples
    client_tx: optax.GradientTransformation
    client_map: ClientMap
    initial_params: Params | None = None  # the weights before any training; for ``before_training`` only
    num_clients: int = 1  # of the federation
    pace: Any = None  # the server's, before the round

    def scorer(self, criterion: Criterion) -> Callable:
        """``(params, key, chunk) -> scores`` of the method's own network and loss."""
        return make_scorer(criterion, self.objective, self.apply)


class Hook(NamedTuple):
    """One step of a method; see the top of this file for the places, and docs/how-to/extend.md for an example.

    Args (of the functions):
        context: a `HookContext`.
        client: a `ClientState` without the client axis.
        chunk: a few batches ``[T, B, ...]`` of the client, or None where ``needs`` asks for none.
        votes: how many present clients keep each weight, ``i32`` leaves.
        scores: the size-weighted mean of what ``upload_scores`` gave, or None.
        state: what this hook keeps for one client, from ``init_state`` on; in ``update_server_state`` what it keeps
        at the server, a tree like params, and sends to every client (``client.sent``).
        present: ``bool[C]``, who counts in the round; the scores then have the client axis.
    """

    at_init: Callable[..., ServerState] | None = None  # (context, server, data, weights)
    before_training: Callable[..., ClientState] | None = None  # (context, client, chunk)
    after_training: Callable[..., ClientState] | None = None  # (context, client, chunk)
    upload_scores: Callable[..., Any] | None = None  # (context, client, chunk) -> a tree like params
    scores_due: Callable[[Array], Any] = lambda t: True  # whether they are sent in round t
    after_aggregation: Callable[..., Any] | None = None  # (context, params, masks, votes, scores) -> masks
    init_state: Callable[[Params], Any] | None = None  # (params) -> state
    remember: Callable[[ClientState], Any] | None = None  # (client) -> state, after its local training
    init_server_state: Callable[[Params], Params] | None = None  # (params) -> state
    update_server_state: Callable[..., Params] | None = None  # (context, state, scores, present) -> state
    wrap_optimizer: Callable | None = None  # (tx) -> tx, of the clients
    dense_gradient: bool = False  # whether that optimizer is given the gradients of pruned weights, too
    target_sparsity: Callable[..., Array] | None = None  # (t, state, pace) -> share of prunable weights, for the report
    prunable: Callable[[Params], object] | None = None  # which leaves that is a share of
    paced: Paced | None = None  # the schedule, where it looks at the training
    needs: DataNeeds = DataNeeds()
    regrows: bool = False  # whether a weight may come back
    mask_ownership: MaskOwnership = SERVER_OWNS


def prune_at_init(pruning: Pruning, *, iterations: int = 1, scored_clients: str = "all") -> Hook:
    """Prunes once, before round 1, to what the schedule asks for in round 0.

    Args:
        pruning: the rule.
        iterations: score and prune so many times, an equal factor of the density each (SynFlow: 100).
        scored_clients: whose batches are scored, of ``"all"`` clients, averaged by their sizes, or of ``"one"`` that
            the seed chooses.
    """
    if scored_clients not in SCORED_CLIENTS:
        rule = f"it must be one of {', '.join(SCORED_CLIENTS)}"
        raise ArgumentError("scored_clients", scored_clients, rule)

    def at_init(context: HookContext, server: ServerState, data, weights) -> ServerState:
        score, final = context.scorer(pruning.criterion), pruning.schedule(0)

        def scores(params):
            if data is None:
                return score(params, context.key, None)
            of_client = lambda chunk: score(params, context.key, chunk)
            return tree.weighted_mean(map_over_clients(of_client, context.client_map)(data), weights)

        def prune(i, mask):
            share = 1 - (1 - final) ** (i / iterations)
            target = jnp.where(i == iterations, final, share)
            return pruning.select(scores(masks.apply(mask, server.params)), mask, target)

        mask = jax.lax.fori_loop(1, iterations + 1, prune, server.masks)
        return server._replace(params=masks.apply(mask, server.params), masks=mask)

    return Hook(
        at_init=at_init,
        target_sparsity=lambda t, state, pace=None: pruning.schedule(0),
        prunable=pruning.prunable,
        paced=pruning.paced,
        needs=DataNeeds(at_init=scored_clients if pruning.criterion.needs_batch else ""),
    )


def prune_on_clients(pruning: Pruning) -> Hook:
    """Every client prunes its own model after its local training (FedSparsify-Local, arXiv 2208.11669)."""

    def after_training(context: HookContext, client: ClientState, chunk) -> ClientState:
        scores = context.scorer(pruning.criterion)(client.params, context.key, chunk)
        mask = pruning.select(scores, client.masks, pruning.sparsity(context.t, context.pace))
        return client._replace(params=masks.apply(mask, client.params), masks=mask)

    return Hook(
        after_training=after_training,
        target_sparsity=lambda t, state, pace=None: pruning.sparsity(t, pace),
        prunable=pruning.prunable,
        paced=pruning.paced,
        needs=DataNeeds(after_training=pruning.criterion.needs_batch),
    )


def prune_on_server(pruning: Pruning) -> Hook:
    """The server prunes the new global model (FedSparsify-Global, arXiv 2208.11669).

    A criterion on data is scored by the clients, and averaged by their sizes. Among equal scores, as those of weights
    that have just grown and are exactly zero, the votes of the clients decide.
    """
    on_data = pruning.criterion.needs_batch

    def upload_scores(context: HookContext, client: ClientState, chunk):
        return _of_prunable(pruning, context.scorer(pruning.criterion)(client.params, context.key, chunk))

    def after_aggregation(context: HookContext, params, mask, votes, scores):
        if scores is None:
            scores = pruning.criterion.score(params, key=context.key)
        scores = jax.tree.map(lambda score, count: score + TINY * count.astype(score.dtype), scores, votes)
        return pruning.select(scores, mask, pruning.sparsity(context.t, context.pace))

    return Hook(
        upload_scores=upload_scores if on_data else None,
        after_aggregation=after_aggregation,
        target_sparsity=lambda t, state, pace=None: pruning.sparsity(t, pace),
        prunable=pruning.prunable,
        paced=pruning.paced,
        needs=DataNeeds(after_training=on_data),
    )


def regrow_on_clients(pruning: Pruning, regrowth: Regrowth) -> Hook:
    """Every client lets weights come back after its local training (FedDST, arXiv 2112.09824).

    Args:
        pruning: whose schedule bounds the density, and whose prunable leaves may change.
        regrowth: the rule, and in which rounds.
    """

    def after_training(context: HookContext, client: ClientState, chunk) -> ClientState:
        scores = lambda: context.scorer(regrowth.criterion)(client.params, _key_of_round(context), chunk)
        mask = _regrow(pruning, regrowth, context, client.params, client.masks, scores)
        return client._replace(params=masks.apply(mask, client.params), masks=mask)

    return Hook(
        after_training=after_training,
        target_sparsity=lambda t, state, pace=None: pruning.sparsity(t, pace),
        prunable=pruning.prunable,
        paced=pruning.paced,
        needs=DataNeeds(after_training=regrowth.criterion.needs_batch),
        regrows=True,
    )


def regrow_on_server(pruning: Pruning, regrowth: Regrowth) -> Hook:
    """The server lets weights come back, by the mean of the clients' scores (PruneFL, arXiv 1909.12326).

    A criterion without data, as the random one of SET, is scored by the server itself, and nobody sends scores.

    Args:
        pruning, regrowth: see `regrow_on_clients`.
    """
    on_data = regrowth.criterion.needs_batch

    def upload_scores(context: HookContext, client: ClientState, chunk):
        score = lambda: context.scorer(regrowth.criterion)(client.params, _key_of_round(context), chunk)
        scores = jax.lax.cond(regrowth.due(context.t), score, lambda: tree.zeros_like(client.params))
        return _of_prunable(pruning, scores)

    def after_aggregation(context: HookContext, params, mask, votes, scores):
        own = lambda: regrowth.criterion.score(params, key=_key_of_round(context))
        return _regrow(pruning, regrowth, context, params, mask, (lambda: scores) if on_data else own)

    return Hook(
        upload_scores=upload_scores if on_data else None,
        scores_due=regrowth.due,
        after_aggregation=after_aggregation,
        target_sparsity=lambda t, state, pace=None: pruning.sparsity(t, pace),
        prunable=pruning.prunable,
        paced=pruning.paced,
        needs=DataNeeds(after_training=on_data),
        regrows=True,
    )


def _key_of_round(context: HookContext) -> Key:
    """A key of the round's own, so that random scores grow other weights each time."""
    return jax.random.fold_in(context.key, context.t)


def _of_prunable(pruning: Pruning, scores):
    """The scores of leaves that may change, and zeros, which are not sent, for all others."""
    keep = lambda flag, leaf: leaf if flag else jnp.zeros_like(leaf)
    return jax.tree.map(keep, pruning.prunable(scores), scores)


def _regrow(pruning: Pruning, regrowth: Regrowth, context: HookContext, params, mask, scores: Callable):
    """The mask after regrowth, if the round is one of those; ``scores()`` is computed only then."""
    t, flags = context.t, pruning.prunable(params)
    change = lambda: regrowth.rule(params, mask, scores(), t, pruning.sparsity(t, context.pace), flags)
    return jax.lax.cond(regrowth.due(t), change, lambda: mask)

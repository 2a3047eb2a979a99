"""The builder: a `Recipe` as the pure functions of a federated algorithm::

    server = algorithm.prune_at_init(algorithm.init(key), data, weights)
    clients = algorithm.start_clients(server, client_ids, data)
    for chunk in chunks:
        clients, step_info = algorithm.local_steps(clients, chunk)
    server, round_info = algorithm.update_server(server, clients, weights, data)

Every method is a `Recipe`, not a loop of its own. ``data`` are a few batches of each client for those that look at
data when they prune (``algorithm.data_needs`` says where). Nothing here is jitted: the caller jits each function
once, at the edge.
"""

from functools import partial

import jax
import jax.numpy as jnp

from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.optimizers import mask_optimizer_state, rate_factor_of_round
from fedsparse_jax.core.types import (
    Absence,
    Array,
    Chunk,
    ClientMemory,
    ClientState,
    FedAlgorithm,
    Key,
    Masks,
    Merging,
    Payload,
    Reports,
    RoundInfo,
    ServerState,
)
from fedsparse_jax.federated import sums
from fedsparse_jax.federated.client_map import client_keys, map_local_steps, map_over_clients
from fedsparse_jax.federated.client_step import make_local_step, make_objective
from fedsparse_jax.federated.personal import own_part, with_own, without_own
from fedsparse_jax.federated.recipe import Recipe, check_recipe
from fedsparse_jax.federated.robust import bound_updates, within_sent_mask
from fedsparse_jax.federated.round_info import describe_round, sent_masks
from fedsparse_jax.federated.server_step import Gathered, end_round, hook_context, step_server
from fedsparse_jax.federated.sound_clients import why_absent

_INIT, _ROUNDS, _AUGMENTATION = 0, 2, 3  # independent streams of the seed's key, beside that of `server_step`


def build_algorithm(recipe: Recipe) -> FedAlgorithm:
    """A federated algorithm from its parts.

    Raises:
        UsageError: parts that do not go together, an unknown anchor or client map.
    """
    check_recipe(recipe)
    for hook in recipe.hooks:
        if hook.wrap_optimizer:
            recipe = recipe._replace(client_tx=hook.wrap_optimizer(recipe.client_tx))
    objective = make_objective(recipe.model.apply, recipe.loss)
    options = (recipe.proximal, recipe.private, recipe.augment, recipe.dense_gradient)
    step = make_local_step(objective, recipe.client_tx, *options)
    return FedAlgorithm(
        init=partial(init_server, recipe),
        prune_at_init=partial(prune_before_round_1, recipe),
        download=partial(download, recipe),
        start_clients=partial(start_clients, recipe),
        local_steps=map_local_steps(step, recipe.client_map, recipe.devices),
        upload=partial(upload, recipe),
        update_server=partial(update_server, recipe),
        merging=_merging(recipe) if recipe.of_sums else None,
        data_needs=recipe.data_needs,
        num_scores=sum(hook.upload_scores is not None for hook in recipe.hooks),
    )


def _merging(recipe: Recipe) -> Merging:
    return Merging(
        of_nobody=partial(sums.of_nobody, recipe),
        add_clients=partial(sums.add_clients, recipe),
        update_server=partial(sums.update_by_sums, recipe),
    )


def init_server(recipe: Recipe, key: Key) -> ServerState:
    """The state before any training, dense unless the recipe begins with masks."""
    params = _initial_params(recipe, key)
    mask = masks.ones(params) if recipe.initial_masks is None else recipe.initial_masks
    for_every_client = partial(tree.broadcast, count=recipe.num_clients)
    states = [hook.init_state(params) for hook in recipe.hooks if hook.init_state]
    at_server = [hook.init_server_state(params) for hook in recipe.hooks if hook.init_server_state]
    flags = recipe.personal_flags(params)
    memory = ClientMemory(
        masks=for_every_client(mask) if recipe.mask_ownership.clients_keep else None,
        opt_state=for_every_client(recipe.client_tx.init(params)) if recipe.keep_opt_state else None,
        state=for_every_client(states[0]) if states else None,
        params=for_every_client(own_part(flags, params)) if flags else None,
    )
    opt_state, round_ = recipe.server_tx.init(params), jnp.zeros((), jnp.int32)
    hook_state, pace = at_server[0] if at_server else None, recipe.paced.init() if recipe.paced else None
    return ServerState(round_, params, mask, opt_state, key, memory, hook_state, pace)


def prune_before_round_1(
    recipe: Recipe, server: ServerState, data: Chunk | None = None, weights: Array | None = None
) -> ServerState:
    """Lets the hooks prune before round 1; a method without such hooks gets its state back.

    Args:
        recipe: the method.
        server: from `init_server`.
        data: batches ``[C, T, B, ...]`` of the clients whose size-weighted mean score decides.
        weights: ``f32[C]``.
    """
    pruned = server
    for hook in recipe.hooks:
        if hook.at_init:
            pruned = hook.at_init(hook_context(recipe, server, 0), pruned, data, weights)
    if pruned is server or not recipe.mask_ownership.clients_keep:
        return pruned
    own = tree.broadcast(pruned.masks, recipe.num_clients)
    return pruned._replace(memory=pruned.memory._replace(masks=own))


def download(recipe: Recipe, server: ServerState, client_ids: Array) -> Payload:
    """What the server sends the clients ``client_ids [C]``."""
    payload = recipe.mask_ownership.download(server, client_ids)
    if server.hook_state is not None:
        payload = payload._replace(scores=(tree.broadcast(server.hook_state, client_ids.shape[0]),))
    return without_own(recipe.personal_flags(server.params), payload)


def start_clients(
    recipe: Recipe,
    server: ServerState,
    client_ids: Array,
    data: Chunk | None = None,
    received: Payload | None = None,
    noise_key: Key | None = None,
) -> ClientState:
    """The cohort ``client_ids [C]`` as it starts its local training with what it ``received`` from the server.

    Args:
        recipe, server: of the round.
        client_ids: ``[C]``.
        data: batches of the hooks that ask for some.
        received: None for what the server holds.
        noise_key: of the noise of private steps. It must be fresh for every training, as the promise of privacy holds
            for noise that nobody has seen before; None takes the seed's, which is for simulations.
    """
    memory, count, t = server.memory, client_ids.shape[0], server.round + 1
    received = download(recipe, server, client_ids) if received is None else received
    flags = recipe.personal_flags(server.params)
    params, mask, _ = with_own(
        flags, received, tree.gather(memory.params, client_ids), tree.broadcast(server.masks, count)
    )
    anchor = (tree.zeros_like(params) if recipe.proximal_anchor == "zero" else params) if recipe.proximal else None
    if recipe.keep_opt_state:
        remembered = tree.gather(memory.opt_state, client_ids)
        opt_state = _mask_opt_states(recipe, remembered, mask)
    else:
        opt_state = tree.broadcast(recipe.client_tx.init(server.params), count)
    state = tree.gather(memory.state, client_ids)
    key = server.key if noise_key is None else noise_key
    keys_of = lambda source, stream: client_keys(jax.random.fold_in(jax.random.fold_in(source, stream), t), client_ids)
    clients = ClientState(client_ids, params, mask, opt_state, keys_of(key, _ROUNDS), anchor, state)
    clients = clients._replace(sent=received.scores)
    if recipe.client_rate:
        factor = rate_factor_of_round(recipe.client_rate, t)
        clients = clients._replace(rate_factor=jnp.broadcast_to(factor, (count,)))
    if recipe.augment:
        clients = clients._replace(augmentation_key=keys_of(server.key, _AUGMENTATION))
    for hook in recipe.hooks:
        if hook.before_training:
            context = hook_context(recipe, server, t)._replace(initial_params=_initial_params(recipe, server.key))
            act = partial(hook.before_training, context)
            clients = map_over_clients(act, recipe.client_map)(clients, data)
    return clients._replace(sent=())


def upload(recipe: Recipe, server: ServerState, clients: ClientState, data: Chunk | None = None) -> Payload:
    """What the clients send after their local training; hooks may prune, grow or score before."""
    flags = recipe.personal_flags(server.params)
    if not any(hook.after_training or hook.upload_scores for hook in recipe.hooks):
        return without_own(flags, Payload(clients.params, clients.masks))
    context = hook_context(recipe, server, server.round + 1)

    def of_client(client: ClientState, chunk) -> Payload:
        scores = []
        for hook in recipe.hooks:
            if hook.after_training:
                client = hook.after_training(context, client, chunk)
            if hook.upload_scores:
                scores.append(hook.upload_scores(context, client, chunk))
        return Payload(client.params, client.masks, tuple(scores))

    return without_own(flags, map_over_clients(of_client, recipe.client_map, recipe.devices)(clients, data))


def update_server(
    recipe: Recipe,
    server: ServerState,
    clients: ClientState,
    weights: Array,
    data: Chunk | None = None,
    received: Payload | None = None,
    reports: Reports | None = None,
) -> tuple[ServerState, RoundInfo]:
    """Aggregation of what the server ``received`` from the clients, the server's step, and its hooks.

    A client that is not sound (`sound_clients.why_absent`) is left out as if it had been absent. Where fewer sound ones
    are left than the recipe's limits ask for, the round changes nothing but its number.
    """
    if received is None:
        received = upload(recipe, server, clients, data)
    flags = recipe.personal_flags(server.params)
    of_server = tree.broadcast((server.params, server.masks), len(weights))  # leaves that are not sent change nothing
    received = with_own(flags, received, *of_server)
    left_out = why_absent(recipe.limits, server, received, weights, reports, recipe.client_map)
    enough = (left_out == Absence.NONE).sum() >= recipe.limits.min_clients
    counted = jnp.where(left_out == Absence.NONE, weights, 0)
    changed = _aggregate_round(recipe, server, clients, counted, received)
    losses = jnp.full_like(counted, jnp.nan) if reports is None else reports.losses
    new = end_round(recipe, server, changed, tree.weighted_mean(losses, counted), enough)
    sent = sent_masks(recipe, received.masks, left_out == Absence.NONE)
    return new, describe_round(recipe, server, new, clients, sent, left_out, ~enough)


def _aggregate_round(
    recipe: Recipe, server: ServerState, clients: ClientState, weights: Array, received: Payload
) -> ServerState:
    """The state after the round of the clients whose weight is not 0."""
    client_params, client_masks, client_scores = received
    present = weights > 0
    if not recipe.clients_may_regrow:
        client_params, client_masks = within_sent_mask(server.masks, client_params, client_masks)
    if recipe.norm_bound:
        client_params = bound_updates(
            server.params, client_params, client_masks, present, recipe.norm_bound, recipe.client_map
        )
    votes = _count_votes(recipe, server, client_masks, present)
    scores, hook_state = _tell_hooks(recipe, server, client_scores, weights)
    aggregate = recipe.aggregate(client_params, client_masks, weights)
    new = step_server(recipe, server, Gathered(*aggregate, votes, scores, hook_state))
    return new._replace(memory=_update_client_memory(recipe, server.memory, clients, client_masks, new.masks, present))


def _tell_hooks(recipe: Recipe, server: ServerState, client_scores, weights: Array):
    """The means of the scores, by hook, and the new state of a hook; ``client_scores`` are of those that have asked."""
    context, sent_scores = hook_context(recipe, server, server.round + 1), iter(client_scores)
    state, means = server.hook_state, []
    for hook in recipe.hooks:
        scores = next(sent_scores) if hook.upload_scores else None
        if hook.update_server_state:
            state = hook.update_server_state(context, state, scores, weights > 0)
        means.append(tree.weighted_mean(scores, weights) if hook.upload_scores and hook.after_aggregation else None)
    return tuple(means), state


def _update_client_memory(
    recipe: Recipe, memory: ClientMemory, clients: ClientState, client_masks, mask: Masks, present: Array
) -> ClientMemory:
    """What clients keep after a round whose new global mask is ``mask``; absent clients keep what they had."""
    owned, flags = recipe.mask_ownership.clients_keep, recipe.personal_flags(clients.params)
    remember = next((hook.remember for hook in recipe.hooks if hook.remember), None)
    new = ClientMemory(
        masks=client_masks if owned else None,
        opt_state=clients.opt_state if recipe.keep_opt_state else None,
        state=map_over_clients(remember, recipe.client_map)(clients) if remember else clients.state,
        params=own_part(flags, clients.params) if flags else None,
    )
    updated = tree.scatter(memory, clients.id, new, present)
    if recipe.keep_opt_state and not owned and any(hook.regrows for hook in recipe.hooks):
        everybody = partial(mask_optimizer_state, recipe.client_tx, mask=mask)  # also those who were absent
        masked = map_over_clients(everybody, recipe.client_map)(updated.opt_state)
        updated = updated._replace(opt_state=masked)
    return updated


def _initial_params(recipe: Recipe, key: Key):
    params = recipe.model.init(jax.random.fold_in(key, _INIT))
    return params if recipe.initial_masks is None else masks.apply(recipe.initial_masks, params)


def _mask_opt_states(recipe: Recipe, opt_states, client_masks):
    """The optimizer states ``[C, ...]`` within the clients' masks."""
    of_client = partial(mask_optimizer_state, recipe.client_tx)
    return map_over_clients(of_client, recipe.client_map)(opt_states, client_masks)


def _count_votes(recipe: Recipe, server: ServerState, client_masks, present: Array):
    """How many present clients keep each weight, ``i32[...]``; nobody needs to count where all have the same mask."""
    if recipe.clients_change_masks:
        return masks.votes(client_masks, present)
    count = present.sum(dtype=jnp.int32)
    return jax.tree.map(lambda mask: mask.astype(jnp.int32) * count, server.masks)

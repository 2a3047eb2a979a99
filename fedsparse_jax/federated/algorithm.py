"""The builder: small functions plugged into one round, `begin`, `steps`, `finish`.

    server = algorithm.prepare(algorithm.init(key), data, weights)
    clients = algorithm.begin(server, client_ids, data)
    for chunk in chunks:
        clients, step_info = algorithm.steps(clients, chunk)
    server, round_info = algorithm.finish(server, clients, weights, data)

Every method is a `Recipe`, not a loop of its own. ``data`` are a few batches of each client for those that look at
data when they prune (``algorithm.wants`` says where). Nothing here is jitted: the caller jits each function once, at
the edge.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core import losses, masks, tree
from fedsparse_jax.core.types import (
    Aggregator,
    Array,
    Chunk,
    ClientState,
    Criterion,
    FedAlgorithm,
    Key,
    Memory,
    Model,
    RoundInfo,
    Sent,
    ServerState,
    UsageError,
    Wants,
)
from fedsparse_jax.federated import client_step
from fedsparse_jax.sparsity import criteria
from fedsparse_jax.sparsity.pruning import PLACEMENTS, Pruning, scorer
from fedsparse_jax.sparsity.regrowth import Regrowth

_INIT, _PRUNE, _ROUNDS = 0, 1, 2  # independent streams of the seed's key
TINY = 1e-30  # a vote's part in a score: orders what is exactly zero, as weights that have just grown are


class Recipe(NamedTuple):
    """A method: its parts, and how clients are executed."""

    model: Model
    loss: Callable  # (predictions, targets [B]) -> f32[B]
    client_tx: optax.GradientTransformation  # of the local steps, on the masked gradient
    server_tx: (
        optax.GradientTransformation
    )  # on the pseudo-gradient, global model minus aggregate; sgd(1) is FedAvg
    aggregate: Aggregator
    pruning: Pruning
    regrowth: Regrowth | None = None
    proximal: float = 0.0  # mu of FedProx, see `local.make_step`
    towards: str = "global"  # what it pulls towards: the "global" model, or, as in a published code, "zero"
    privacy: client_step.Privacy | None = None  # of the local steps; None for none
    keep_opt_state: bool = False  # a client's optimizer goes on where it stopped in its last round
    num_clients: int = 1  # of the federation; matters where clients keep something between rounds
    client_map: client_step.ClientMap = "scan"
    devices: int = 1

    @property
    def personal(self) -> bool:
        """Whether every client has a mask of its own that outlives the round (LotteryFL)."""
        return "arrival" in self.pruning.placement

    @property
    def changes_masks(self) -> bool:
        """Whether a client's mask, when it leaves, may be another than the global one that it was sent."""
        grows = self.regrowth is not None and self.regrowth.placement == "client"
        return self.personal or grows or "client" in self.pruning.placement


def build(recipe: Recipe) -> FedAlgorithm:
    """A federated algorithm from its parts.

    Raises:
        UsageError: an unknown placement, client map, anchor or share of clients.
    """
    _check(recipe)
    step = client_step.make_step(_objective(recipe), recipe.client_tx, recipe.proximal, recipe.privacy)
    return FedAlgorithm(
        init=partial(init, recipe),
        prepare=partial(prepare, recipe),
        address=partial(address, recipe),
        begin=partial(begin, recipe),
        steps=client_step.make_steps(step, recipe.client_map, recipe.devices),
        leave=partial(leave, recipe),
        finish=partial(finish, recipe),
        wants=wants(recipe),
    )


def wants(recipe: Recipe) -> Wants:
    """Where the method looks at data."""
    pruning, regrowth = recipe.pruning, recipe.regrowth
    on_data = criteria.takes_data(pruning.criterion)
    grows = regrowth is not None and criteria.takes_data(regrowth.criterion)
    return Wants(
        prepare=pruning.over if on_data and "init" in pruning.placement else "",
        begin=recipe.personal and (on_data or pruning.gate > 0),
        finish=grows or (on_data and bool({"client", "server"} & set(pruning.placement))),
    )


# --- before round 1 -----------------------------------------------------------------------------


def init(recipe: Recipe, key: Key) -> ServerState:
    """The dense state before any training."""
    params = _initial_params(recipe, key)
    kept, remember = masks.ones(params), partial(tree.broadcast, count=recipe.num_clients)
    memory = Memory(
        masks=remember(kept) if recipe.personal else None,
        opt_state=remember(recipe.client_tx.init(params)) if recipe.keep_opt_state else None,
        prunings=jnp.zeros(recipe.num_clients, jnp.int32) if recipe.personal else None,
    )
    return ServerState(jnp.zeros((), jnp.int32), params, kept, recipe.server_tx.init(params), key, memory)


def prepare(recipe: Recipe, server: ServerState, data: Chunk | None = None, weights=None) -> ServerState:
    """Prunes before round 1, for methods that do; the others get their state back.

    Args:
        server: from `init`.
        data: batches ``[C, T, B, ...]`` of the clients whose size-weighted mean score decides.
        weights: ``f32[C]``.
    """
    pruning = recipe.pruning
    if "init" not in pruning.placement:
        return server
    key, final = _prune_key(server), pruning.schedule(0)
    score = _score(recipe, pruning.criterion)

    def scores(params):
        if data is None:
            return score(params, key, None)
        each = client_step.over_clients(lambda chunk: score(params, key, chunk), recipe.client_map)(data)
        return _mean(each, weights)

    def prune(i, kept):
        share = 1 - (1 - final) ** (i / pruning.iterations)
        target = jnp.where(i == pruning.iterations, final, share)
        return pruning.select(scores(masks.apply(kept, server.params)), kept, target)

    kept = jax.lax.fori_loop(1, pruning.iterations + 1, prune, server.masks)
    own = tree.broadcast(kept, recipe.num_clients) if recipe.personal else None
    memory = server.memory._replace(masks=own)
    return server._replace(params=masks.apply(kept, server.params), masks=kept, memory=memory)


# --- a round ------------------------------------------------------------------------------------


def address(recipe: Recipe, server: ServerState, client_ids: Array) -> Sent:
    """What the server sends each client: the global model, within the client's own mask where it has one."""
    params, kept = tree.broadcast((server.params, server.masks), client_ids.shape[0])
    if recipe.personal:
        kept = tree.gather(server.memory.masks, client_ids)
        params = masks.apply(kept, params)
    return Sent(params, kept)


def begin(
    recipe: Recipe,
    server: ServerState,
    client_ids: Array,
    data: Chunk | None = None,
    arrived: Sent | None = None,
) -> ClientState:
    """The cohort ``client_ids [C]`` as it starts its local training with what ``arrived`` from the server."""
    memory, count = server.memory, client_ids.shape[0]
    round_key = jax.random.fold_in(jax.random.fold_in(server.key, _ROUNDS), server.round + 1)
    params, kept, _ = address(recipe, server, client_ids) if arrived is None else arrived
    anchor = (tree.zeros_like(params) if recipe.towards == "zero" else params) if recipe.proximal else None
    if recipe.keep_opt_state:
        silence = lambda state, mask: _silenced(recipe.client_tx, state, mask)
        over = client_step.over_clients(silence, recipe.client_map)
        opt_state = over(tree.gather(memory.opt_state, client_ids), kept)
    else:
        opt_state = tree.broadcast(recipe.client_tx.init(server.params), count)
    prunings = memory.prunings[client_ids] if recipe.personal else None
    keys = client_step.client_keys(round_key, client_ids)
    clients = ClientState(client_ids, params, kept, opt_state, keys, anchor, prunings)
    return _arrive(recipe, server, clients, data) if recipe.personal else clients


def leave(recipe: Recipe, server: ServerState, clients: ClientState, data: Chunk | None = None) -> Sent:
    """What the clients send after their local training; some prune or grow before."""
    if not (recipe.changes_masks or wants(recipe).finish):
        return Sent(clients.params, clients.masks)
    each = client_step.over_clients(partial(_leave, recipe, server), recipe.client_map, recipe.devices)
    return each(clients, data)


def finish(
    recipe: Recipe,
    server: ServerState,
    clients: ClientState,
    weights: Array,
    data: Chunk | None = None,
    arrived: Sent | None = None,
) -> tuple[ServerState, RoundInfo]:
    """Aggregation of what ``arrived`` from the clients, the server's step, server pruning and regrowth."""
    pruning, t = recipe.pruning, server.round + 1
    client_params, client_masks, evidence = (
        leave(recipe, server, clients, data) if arrived is None else arrived
    )
    target, agreed = recipe.aggregate(client_params, client_masks, weights)
    votes = _votes(recipe, server, client_masks, weights > 0)
    if recipe.personal:
        held = jax.tree.map(lambda mask, count: mask & (count > 0), agreed, votes)
        target, agreed = _hold(held, target, server.params), server.masks
    pseudo_gradient = jax.tree.map(jnp.subtract, server.params, target)
    updates, opt_state = recipe.server_tx.update(pseudo_gradient, server.opt_state, server.params)
    params = masks.apply(agreed, optax.apply_updates(server.params, updates))
    if recipe.personal:  # what nobody holds keeps its old value: the global model stays dense
        params = _hold(held, params, server.params)
    kept, key = agreed, _prune_key(server)
    prune_scores, grow_scores = _mean(evidence, weights)
    if "server" in pruning.placement:
        scores = pruning.criterion(params, key=key) if prune_scores is None else prune_scores
        scores = jax.tree.map(lambda score, count: score + TINY * count, scores, votes)
        kept = pruning.select(scores, kept, pruning.schedule(t))
    regrowth = recipe.regrowth
    if regrowth is not None and regrowth.placement == "server":
        kept = _readjust(recipe, regrowth, params, kept, t, lambda: grow_scores)
    new = ServerState(
        round=t,
        params=masks.apply(kept, params),
        masks=kept,
        opt_state=_silenced(recipe.server_tx, opt_state, kept),
        key=server.key,
        memory=_remember(recipe, server.memory, clients, client_masks, kept, weights > 0),
    )
    return new, round_info(recipe, server, new, clients, client_masks, weights)


def _arrive(recipe: Recipe, server: ServerState, clients: ClientState, data: Chunk | None) -> ClientState:
    """Clients with a mask of their own prune it before they train, those whose gate is open, and may rewind.

    The schedule is read at a client's own count of rounds with an open gate.
    """
    pruning, key = recipe.pruning, _prune_key(server)
    score = _score(recipe, pruning.criterion)
    initial = _initial_params(recipe, server.key) if pruning.rewind else None

    def arrive(client: ClientState, chunk):
        t = client.prunings + 1
        pruned = pruning.select(score(client.params, key, chunk), client.masks, pruning.schedule(t))
        is_open = jnp.asarray(True)
        if pruning.gate > 0:
            is_open = _share_right(recipe, client.params, chunk) >= pruning.gate
        ready = is_open & (masks.hamming(pruned, client.masks) > 0)
        kept = tree.where(ready, pruned, client.masks)
        params, opt_state = client.params, _silenced(recipe.client_tx, client.opt_state, kept)
        if initial is not None:
            params = tree.where(ready, initial, params)
            opt_state = tree.where(ready, recipe.client_tx.init(initial), opt_state)
        return client._replace(
            params=masks.apply(kept, params),
            masks=kept,
            opt_state=opt_state,
            prunings=jnp.where(is_open, t, client.prunings),
        )

    return client_step.over_clients(arrive, recipe.client_map)(clients, data)


def _leave(recipe: Recipe, server: ServerState, client: ClientState, chunk) -> Sent:
    """What one client sends."""
    pruning, regrowth, t = recipe.pruning, recipe.regrowth, server.round + 1
    params, kept, key = client.params, client.masks, _prune_key(server)
    score = partial(_score(recipe, pruning.criterion), key=key, chunk=chunk)
    prune_scores = grow_scores = None
    if "client" in pruning.placement:
        kept = pruning.select(score(params), kept, pruning.schedule(t))
        params = masks.apply(kept, params)
    if "server" in pruning.placement and criteria.takes_data(pruning.criterion):
        prune_scores = score(params)
    if regrowth is not None:
        grow = partial(_score(recipe, regrowth.criterion), key=key, chunk=chunk)
        if regrowth.placement == "client":
            kept = _readjust(recipe, regrowth, params, kept, t, lambda: grow(params))
            params = masks.apply(kept, params)
        else:
            skipped = lambda: tree.zeros_like(params)
            grow_scores = jax.lax.cond(regrowth.due(t), lambda: grow(params), skipped)
    return Sent(params, kept, (prune_scores, grow_scores))


def _readjust(recipe: Recipe, regrowth: Regrowth, params, kept, t: Array, scores: Callable):
    """The masks after regrowth, if round ``t`` is one of those; ``scores()`` is computed only then."""
    flags = recipe.pruning.prunable(params)
    change = lambda: regrowth.rule(params, kept, scores(), t, asked(recipe, t), flags)
    return jax.lax.cond(regrowth.due(t), change, lambda: kept)


def _remember(
    recipe: Recipe, memory: Memory, clients: ClientState, client_masks, kept, present: Array
) -> Memory:
    """The memory after a round whose new global mask is ``kept``."""
    new = Memory(
        masks=client_masks if recipe.personal else None,
        opt_state=clients.opt_state if recipe.keep_opt_state else None,
        prunings=clients.prunings if recipe.personal else None,
    )
    found = tree.scatter(memory, clients.id, new, present)
    if recipe.keep_opt_state and recipe.regrowth is not None and not recipe.personal:
        silence = lambda state: _silenced(recipe.client_tx, state, kept)  # also of those who were absent
        found = found._replace(
            opt_state=client_step.over_clients(silence, recipe.client_map)(found.opt_state)
        )
    return found


def _votes(recipe: Recipe, server: ServerState, client_masks, present: Array):
    """How many present clients keep each weight, ``i32[...]``; nobody needs to count where all have the same mask."""
    if recipe.changes_masks:
        return masks.votes(client_masks, present)
    return jax.tree.map(lambda mask: mask * present.sum(dtype=jnp.int32), server.masks)


def _hold(held, new, old):
    """``new`` where ``held``, else ``old``."""
    return jax.tree.map(jnp.where, held, new, old)


# --- what is reported ---------------------------------------------------------------------------


def asked(recipe: Recipe, t: Array) -> Array:
    """The sparsity of the prunable weights that the schedule asks for in round ``t``; 0 for a dense method.

    For `regrowth.greedy` it is a bound that is approached from a dense start.
    """
    placement = recipe.pruning.placement
    if not placement and recipe.regrowth is None:
        return jnp.float32(0)
    return recipe.pruning.schedule(0 if placement == ("init",) else t)


def round_info(
    recipe: Recipe, server: ServerState, new: ServerState, clients: ClientState, client_masks, weights: Array
) -> RoundInfo:
    """What a round from ``server`` to ``new`` reports; clients of weight 0 do not count.

    Args:
        server, new: the states before and after it.
        clients: the cohort after its training.
        client_masks: what each client sent, leaves ``bool[C, ...]``.
        weights: ``f32[C]``.
    """
    present, over = weights > 0, partial(client_step.over_clients, client_map=recipe.client_map)
    kept_of, agreement = over(lambda kept: masks.kept(kept).sum()), jnp.float32(1)
    sent = masks.kept(server.masks).sum()
    if recipe.changes_masks:
        sent, agreement = kept_of(client_masks), masks.agreement(client_masks, present)
    if recipe.personal:
        received = tree.gather(server.memory.masks, clients.id)
        each = over(_shape_of)(received, client_masks)
        mean = lambda leaf: jnp.round(_mean(leaf.astype(jnp.float32), present.astype(jnp.float32)))
        kept, dead, drift = jax.tree.map(lambda leaf: mean(leaf).astype(jnp.int32), each)
        target = _mean(over(recipe.pruning.schedule)(clients.prunings), present.astype(jnp.float32))
        kept_down = kept_of(received)
    else:
        kept, dead, drift = _shape_of(server.masks, new.masks)
        target = asked(recipe, new.round)
        kept_down = masks.kept(server.masks).sum()
    return RoundInfo(
        round=new.round,
        target_sparsity=jnp.asarray(target * _prunable_share(recipe, new.params), jnp.float32),
        kept=kept,
        dead=dead,
        drift=drift,
        kept_down=jnp.where(present, kept_down, 0),
        kept_up=jnp.where(present, sent + _scores_up(recipe, new), 0),
        agreement=agreement,
        finite=tree.all_finite(new.params),
    )


def _scores_up(recipe: Recipe, new: ServerState) -> Array:
    """How many scores each client sends the server in this round, one for each prunable weight."""
    pruning, regrowth = recipe.pruning, recipe.regrowth
    size = round(_prunable_share(recipe, new.params) * tree.size(new.params))
    count = jnp.int32(size if "server" in pruning.placement and criteria.takes_data(pruning.criterion) else 0)
    if regrowth is not None and regrowth.placement == "server":
        count += size * regrowth.due(new.round)
    return count


def _shape_of(before, after):
    """``(kept [L], dead channels [L], drift [])`` of a mask and the one before it."""
    return masks.kept(after), masks.dead_channels(after), masks.hamming(before, after)


# --- small parts --------------------------------------------------------------------------------


def _objective(recipe: Recipe) -> Callable:
    return client_step.make_objective(recipe.model.apply, recipe.loss)


def _score(recipe: Recipe, criterion: Criterion) -> Callable:
    """``(params, key, chunk) -> scores`` of the recipe's own network and loss."""
    return scorer(criterion, _objective(recipe), recipe.model.apply)


def _prune_key(server: ServerState) -> Key:
    """The same in every round, so that random masks nest."""
    return jax.random.fold_in(server.key, _PRUNE)


def _prunable_share(recipe: Recipe, params) -> float:
    """Share of the weights that may be pruned at all."""
    flags = jax.tree.leaves(recipe.pruning.prunable(params))
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    return sum(size for size, flag in zip(sizes, flags, strict=True) if flag) / sum(sizes)


def _initial_params(recipe: Recipe, key: Key):
    return recipe.model.init(jax.random.fold_in(key, _INIT))


def _mean(each, weights: Array):
    """Weighted mean over the client axis."""
    return tree.weighted_sum(each, weights / weights.sum())


def _silenced(tx: optax.GradientTransformation, opt_state, kept):
    """An optimizer's state without the moments of pruned weights: what grows back later starts afresh.

    Statistics that are not kept weight by weight (Adafactor's rows and columns) stay as they are.
    """

    def quiet(moment, mask):
        return jnp.where(mask, moment, jnp.zeros((), moment.dtype)) if moment.shape == mask.shape else moment

    return optax.tree_utils.tree_map_params(tx, quiet, opt_state, kept)


def _share_right(recipe: Recipe, params, chunk: Chunk) -> Array:
    """Share of right predictions among the valid examples of ``chunk [T, B, ...]``."""

    def count(_, batch: Chunk):
        right = losses.right(recipe.model.apply(params, batch.inputs), batch.targets)
        return None, (jnp.where(batch.valid, right, 0).sum(), batch.valid.sum())

    _, (right, valid) = jax.lax.scan(count, None, chunk)
    return right.sum() / jnp.maximum(valid.sum(), 1)


def _check(recipe: Recipe) -> None:
    for place in recipe.pruning.placement:
        if place not in PLACEMENTS:
            raise UsageError(
                f"pruning.placement is {place!r}: it must be none, or one or more of {', '.join(PLACEMENTS)}."
            )
    if recipe.privacy and any(wants(recipe)):
        raise UsageError(
            "privacy.clip hides what local steps do with data, but this method also looks at data when it prunes or "
            "grows; choose a criterion such as 'magnitude', or set privacy.clip and privacy.noise to 0."
        )
    others = {"client", "server"} & set(recipe.pruning.placement)
    if recipe.personal and (others or (recipe.regrowth and recipe.regrowth.placement == "server")):
        raise UsageError(
            "pruning.placement 'arrival' gives every client a mask of its own; it can be joined with 'init' only, and "
            "with regrowth at the client, because the server has no mask to change."
        )
    for key, value, known in (
        ("pruning.over", recipe.pruning.over, ("one", "all")),
        ("client.towards", recipe.towards, ("global", "zero")),
        (
            "regrowth.placement",
            recipe.regrowth.placement if recipe.regrowth else "client",
            ("client", "server"),
        ),
    ):
        if value not in known:
            raise UsageError(f"{key} is {value!r}: it must be one of {', '.join(known)}.")

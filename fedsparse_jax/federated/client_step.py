"""One client's training step, and the only place that decides how clients are executed.

A step knows one client and one batch. `over_clients` runs a function of one client over a cohort, by
``vmap``, one after another, or in groups: it changes what a round costs, never what comes out.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core import losses, masks
from fedsparse_jax.core.types import Array, Chunk, ClientState, Key, StepInfo, UsageError

ClientMap = str | int


class Privacy(NamedTuple):
    """Differentially private steps: DP-SGD (Abadi et al., 2016, arXiv 1607.00133, Algorithm 1) at each client."""

    clip: float  # largest norm of one example's masked gradient
    noise: float  # standard deviation of the noise on their sum, as a multiple of clip


def make_objective(apply: Callable, loss: Callable) -> Callable:
    """``(params, batch) -> f32[]``: the mean loss of the batch's valid examples.

    Args:
        apply: ``(params, inputs [B, ...]) -> predictions [B]`` or ``[B, K]``.
        loss: ``(predictions, targets [B]) -> f32[B]``.
    """

    def objective(params, batch: Chunk):
        per_example = loss(apply(params, batch.inputs), batch.targets)
        return losses.masked_mean(per_example, batch.valid)

    return objective


def private_slope(objective: Callable, privacy: Privacy) -> Callable:
    """``(params, masks, batch, key) -> (loss f32[], gradient)``: examples clipped one by one, summed, noised, divided.

    One example more or less in the batch moves the sum by at most ``clip``, wherever the others are. The noise is
    on kept weights only: no other leaves the client. How many examples a batch has is taken for public.
    """

    def slope(params, kept, batch: Chunk, key: Key):
        def of_one(example):
            alone = jax.tree.map(lambda leaf: leaf[jnp.newaxis], example)
            value, gradient = jax.value_and_grad(objective)(params, alone)
            return value, masks.apply(kept, gradient)

        values, each = jax.vmap(of_one)(batch)
        leaves, structure = jax.tree.flatten(each)
        clipped, _ = optax.per_example_global_norm_clip(leaves, privacy.clip)
        spread, count = privacy.clip * privacy.noise, jnp.maximum(batch.valid.sum(), 1)
        noised = [
            (leaf + spread * jax.random.normal(jax.random.fold_in(key, i), leaf.shape)) / count
            for i, leaf in enumerate(clipped)
        ]
        return values.sum() / count, masks.apply(kept, jax.tree.unflatten(structure, noised))

    return slope


def make_step(
    objective: Callable,
    tx: optax.GradientTransformation,
    proximal: float = 0.0,
    privacy: Privacy | None = None,
) -> Callable:
    """``(client, batch) -> (client, StepInfo)``: one masked step of stochastic gradient descent.

    The gradient is masked before the optimizer, so that pruned weights enter neither clipping norms nor
    momentum, and the weights after it, so that momentum revives none. A batch without a valid example leaves
    the client bit-identical (and costs nothing where clients run one after another).

    Args:
        objective: from `make_objective`.
        tx: the client's optimizer.
        proximal: mu of FedProx (arXiv 1812.06127): the gradient of ``mu/2 |w - anchor|^2`` is added; it counts
            in clipping norms, and not in the loss that is reported.
        privacy: None for the plain gradient; else see `private_slope`. What follows the gradient is post-processing.
    """
    private = private_slope(objective, privacy) if privacy else None

    def slope(client: ClientState, batch: Chunk, key: Key):
        if private:
            value, gradient = private(client.params, client.masks, batch, key)
        else:
            value, gradient = jax.value_and_grad(objective)(client.params, batch)
        if proximal:
            pull = lambda g, w, a: g + proximal * (w - a)
            gradient = jax.tree.map(pull, gradient, client.params, client.anchor)
        return value, masks.apply(client.masks, gradient)

    def train(client: ClientState, batch: Chunk):
        key, now = jax.random.split(client.key) if private else (client.key, client.key)
        value, gradient = slope(client, batch, now)
        updates, opt_state = tx.update(gradient, client.opt_state, client.params)
        params = masks.apply(client.masks, optax.apply_updates(client.params, updates))
        count = batch.valid.sum(dtype=jnp.int32)
        return client._replace(params=params, opt_state=opt_state, key=key), StepInfo(value * count, count)

    def step(client: ClientState, batch: Chunk):
        return jax.lax.cond(batch.valid.any(), train, _skip, client, batch)

    return step


def _skip(client: ClientState, batch: Chunk):
    """A step without a valid example."""
    count = batch.valid.sum(dtype=jnp.int32)  # none
    return client, StepInfo(count.astype(jnp.float32), count)


def make_steps(step: Callable, client_map: ClientMap, devices: int = 1) -> Callable:
    """``(clients [C], chunk [C, T, B, ...]) -> (clients, StepInfo [C, T])``: clients over a scan over steps.

    Steps that no client needs are skipped where all go at once; those behind a client's last one, where they do not.
    """

    def step_all(clients, batch):
        return jax.lax.cond(batch.valid.any(), jax.vmap(step), jax.vmap(_skip), clients, batch)

    def together_(clients, chunk):
        steps_first = lambda leaf: leaf.swapaxes(0, 1)
        clients, info = jax.lax.scan(step_all, clients, jax.tree.map(steps_first, chunk))
        return clients, jax.tree.map(steps_first, info)

    _check_map(client_map)
    if client_map == "vmap":
        return _on_devices(together_, devices)
    lanes = together(client_map, 0)
    run = partial(_one_by_one, step) if lanes == 1 else partial(_in_lanes, step, lanes)
    return _on_devices(run, devices)


def _one_by_one(step: Callable, clients: ClientState, chunk: Chunk):
    """Each client is written where it was read: where the clients are donated no second copy of them all is needed, as
    it is for a map.
    """

    def train(i, carry):
        read = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False)
        write = lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, i, 0)
        done, info = jax.lax.scan(step, *jax.tree.map(read, (_with(clients, carry[0]), chunk)))
        return jax.tree.map(write, carry, (_changes(done), info))

    changed, info = jax.lax.fori_loop(0, len(clients.id), train, (_changes(clients), _no_info(chunk)))
    return _with(clients, changed), info


def _in_lanes(step: Callable, lanes: int, clients: ClientState, chunk: Chunk):
    """So many clients at a time; whoever has finished makes room for the next in the queue.

    A lane idles only at the very end, which costs little where the largest clients come first (`cohort.by_size`).
    Clients are read and written when they change lanes, not in every step.
    """
    count, length = chunk.valid.shape[:2]
    lanes = min(lanes, count)
    needs = jnp.where(chunk.valid.any(-1), jnp.arange(1, length + 1), 0).max(
        -1
    )  # i32[C], steps up to the last one
    nothing = 0 * needs.sum()  # computed, so that it varies over devices as the chunk does

    def stretch(carry):
        """Until the first of the lanes has finished its client."""
        (changed, info), who, done, queue = carry
        busy, at = who < count, jnp.minimum(who, count - 1)
        left = jnp.where(busy, needs[at] - done, length)

        def advance(i, carry):
            there, info = carry
            batch = jax.tree.map(lambda leaf: leaf[at, jnp.minimum(done + i, length - 1)], chunk)
            batch = batch._replace(valid=batch.valid & busy[:, jnp.newaxis])
            there, told = jax.vmap(step)(there, batch)
            note = lambda leaf, new: leaf.at[who, done + i].set(new, mode="drop")
            return there, jax.tree.map(note, info, told)

        there = jax.tree.map(lambda leaf: leaf[at], _with(clients, changed))
        there, info = jax.lax.fori_loop(0, left.min(), advance, (there, info))
        write = lambda leaf, new: leaf.at[who].set(new, mode="drop")
        changed = jax.tree.map(write, changed, _changes(there))
        ended = busy & (left == left.min())
        following = jnp.minimum(queue + jnp.cumsum(ended) - 1, count)
        who, done = jnp.where(ended, following, who), jnp.where(ended, 0, done + left.min())
        return (changed, info), who, done, queue + ended.sum()

    start = (_changes(clients), _no_info(chunk)), jnp.arange(lanes) + nothing
    carry = (*start, jnp.zeros(lanes, jnp.int32) + nothing, lanes + nothing)
    (changed, info), *_ = jax.lax.while_loop(lambda carry: (carry[1] < count).any(), stretch, carry)
    return _with(clients, changed), info


def _changes(clients: ClientState):
    """What a step may change."""
    return clients.params, clients.opt_state, clients.key


def _with(clients: ClientState, changed) -> ClientState:
    params, opt_state, key = changed
    return clients._replace(params=params, opt_state=opt_state, key=key)


def _no_info(chunk: Chunk) -> StepInfo:
    nothing = jnp.where(chunk.valid.any(-1), 0, 0)  # computed, see `_in_lanes`
    return StepInfo(nothing.astype(jnp.float32), nothing.astype(jnp.int32))


def together(client_map: ClientMap, cohort_size: int) -> int:
    """How many clients are trained together."""
    sizes = {"scan": 1, "vmap": cohort_size}
    return sizes[client_map] if isinstance(client_map, str) else client_map


def client_keys(key: Key, client_ids: Array) -> Key:
    """One key a client, from its id alone: neither its position nor its neighbours matter."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(client_ids)


def over_clients(function: Callable, client_map: ClientMap, devices: int = 1) -> Callable:
    """A function of one client as a function of a cohort; every argument and result has the client axis first.

    Args:
        function: takes and returns trees without the client axis.
        client_map: ``"vmap"`` all at once; ``"scan"`` one after another, in the memory of one; ``k`` in groups
            of ``k``.
        devices: share the clients out among so many devices; the cohort must be a multiple of it. Every argument
            has the client axis, so that no gradient is summed over devices behind our back; what ``function``
            closes over is copied to each.

    Raises:
        UsageError: ``client_map`` is none of these.
    """
    if client_map == "scan":
        return _on_devices(lambda *args: jax.lax.map(lambda a: function(*a), args), devices)
    return over_groups(jax.vmap(function), client_map, devices)


def over_groups(together: Callable, client_map: ClientMap, devices: int = 1) -> Callable:
    """`over_clients` for a function of a whole group, whose arguments and results have the client axis: of all clients
    for ``"vmap"``, of ``k`` at a time and then of those that are left for ``k``.
    """
    if client_map == "vmap":
        return _on_devices(together, devices)
    _check_map(client_map)
    return _on_devices(lambda *args: _in_groups(together, int(client_map), args), devices)


def _check_map(client_map: ClientMap) -> None:
    whole = isinstance(client_map, int) and not isinstance(client_map, bool) and client_map > 0
    if not whole and client_map not in ("vmap", "scan"):
        raise UsageError(
            f"execution.client_map is {client_map!r}: it must be 'vmap', 'scan' or a number of clients at a time."
        )


def _on_devices(function: Callable, devices: int) -> Callable:
    if devices == 1:
        return function
    mesh = jax.make_mesh((devices,), ("clients",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("clients")
    return jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec)


def _in_groups(together: Callable, size: int, args):
    count = len(jax.tree.leaves(args)[0])
    whole = count // size
    split = lambda leaf: leaf[: whole * size].reshape(whole, size, *leaf.shape[1:])
    join = lambda leaf: leaf.reshape(whole * size, *leaf.shape[2:])
    parts = []
    if whole:
        parts.append(jax.tree.map(join, jax.lax.map(lambda a: together(*a), jax.tree.map(split, args))))
    if whole * size < count:
        parts.append(together(*jax.tree.map(lambda leaf: leaf[whole * size :], args)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts) if len(parts) > 1 else parts[0]

"""The only place that decides how clients are executed: all at once, one after another, or so many at a time.

``vmap``, ``scan`` or a number: the choice changes what a round costs, and what comes out by no more than rounding.
Several devices share the clients of a round out among them, and the examples of a client's batches where there are more
devices than clients.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array, Chunk, ClientState, Key, StepInfo
from fedsparse_jax.federated.client_step import skip_step

ClientMap = str | int  # "vmap", "scan", or so many clients at a time


def map_local_steps(step: Callable, client_map: ClientMap, devices: int = 1) -> Callable:
    """``(clients [C], chunk [C, T, B, ...]) -> (clients, StepInfo [C, T])``: clients over a scan over steps.

    Steps that no client needs are skipped where all go at once; those behind a client's last one, where they do not.
    """

    def step_all(clients, batch):
        return jax.lax.cond(batch.valid.any(), jax.vmap(step), jax.vmap(skip_step), clients, batch)

    def all_at_once(clients, chunk):
        steps_first = lambda leaf: leaf.swapaxes(0, 1)
        clients, info = jax.lax.scan(step_all, clients, jax.tree.map(steps_first, chunk))
        return clients, jax.tree.map(steps_first, info)

    _check_map(client_map)
    lanes = 0 if client_map == "vmap" else num_parallel_clients(client_map, 0)
    ways: dict[int, Callable] = {0: all_at_once, 1: partial(_one_by_one, step)}
    run = ways.get(lanes, partial(_in_lanes, step, lanes))

    def run_on_shares(clients: ClientState, chunk: Chunk):
        share = _shared_examples if len(clients.id) < devices else lambda chunk: chunk
        return _on_devices(lambda clients, chunk: run(clients, share(chunk)), devices)(clients, chunk)

    return run_on_shares


def _one_by_one(step: Callable, clients: ClientState, chunk: Chunk):
    """One client after another, each written where it was read: where the clients are donated, no second copy of them
    all is needed, as it is for a map.
    """

    def train(i, carry):
        read = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False)
        write = lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new, i, 0)
        done, info = jax.lax.scan(step, *jax.tree.map(read, (_with_trained(clients, carry[0]), chunk)))
        return jax.tree.map(write, carry, (_trained_part(done), info))

    start = (_trained_part(clients), _no_info(chunk))
    trained, info = jax.lax.fori_loop(0, len(clients.id), train, start)
    return _with_trained(clients, trained), info


def _in_lanes(step: Callable, lanes: int, clients: ClientState, chunk: Chunk):
    """``lanes`` clients at a time; a lane whose client has finished takes the next client in the queue.

    A lane idles only at the very end, which costs little where the largest clients come first
    (`data.batching.largest_first`). Clients are read and written when they change lanes, not in every step.
    """
    count, length = chunk.valid.shape[:2]
    lanes = min(lanes, count)
    has_example = chunk.valid.any(-1)  # bool[C, T]
    last_step = jnp.where(has_example, jnp.arange(1, length + 1), 0).max(-1)  # i32[C], steps up to the last one
    zero = 0 * last_step.sum()  # computed, so that it varies over devices as the chunk does

    def until_a_lane_is_free(carry):
        (trained, info), client, done, queue = carry  # client i32[lanes]; done i32[lanes], steps of it so far
        busy, row = client < count, jnp.minimum(client, count - 1)
        left = jnp.where(busy, last_step[row] - done, length)

        def advance(i, carry):
            running, info = carry
            batch = jax.tree.map(lambda leaf: leaf[row, jnp.minimum(done + i, length - 1)], chunk)
            batch = batch._replace(valid=batch.valid & busy[:, jnp.newaxis])
            running, step_info = jax.vmap(step)(running, batch)
            record = lambda leaf, new: leaf.at[client, done + i].set(new, mode="drop")
            return running, jax.tree.map(record, info, step_info)

        running = jax.tree.map(lambda leaf: leaf[row], _with_trained(clients, trained))
        running, info = jax.lax.fori_loop(0, left.min(), advance, (running, info))
        write = lambda leaf, new: leaf.at[client].set(new, mode="drop")
        trained = jax.tree.map(write, trained, _trained_part(running))
        finished = busy & (left == left.min())
        next_client = jnp.minimum(queue + jnp.cumsum(finished) - 1, count)
        client = jnp.where(finished, next_client, client)
        done = jnp.where(finished, 0, done + left.min())
        return (trained, info), client, done, queue + finished.sum()

    start = (_trained_part(clients), _no_info(chunk)), jnp.arange(lanes) + zero
    carry = (*start, jnp.zeros(lanes, jnp.int32) + zero, lanes + zero)
    (trained, info), *_ = jax.lax.while_loop(lambda c: (c[1] < count).any(), until_a_lane_is_free, carry)
    return _with_trained(clients, trained), info


def _trained_part(clients: ClientState):
    """What a step may change."""
    return clients.params, clients.opt_state, clients.key, clients.augmentation_key


def _with_trained(clients: ClientState, trained) -> ClientState:
    params, opt_state, key, augmentation_key = trained
    return clients._replace(params=params, opt_state=opt_state, key=key, augmentation_key=augmentation_key)


def _no_info(chunk: Chunk) -> StepInfo:
    zeros = jnp.where(chunk.valid.any(-1), 0, 0)  # computed, see `_in_lanes`
    return StepInfo(zeros.astype(jnp.float32), zeros.astype(jnp.int32))


def num_parallel_clients(client_map: ClientMap, cohort_size: int) -> int:
    """How many clients are trained at the same time."""
    sizes = {"scan": 1, "vmap": cohort_size}
    return sizes[client_map] if isinstance(client_map, str) else client_map


def client_keys(key: Key, client_ids: Array) -> Key:
    """One key a client, from its id alone: neither its position nor its neighbours matter."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(client_ids)


def map_over_clients(function: Callable, client_map: ClientMap, devices: int = 1) -> Callable:
    """A function of one client as a function of a cohort; every argument and result has the client axis first.

    Args:
        function: takes and returns trees without the client axis.
        client_map: ``"vmap"`` all at once; ``"scan"`` one after another, in the memory of one; ``k`` in groups
            of ``k``.
        devices: share the clients out among so many devices; the cohort must be a multiple of it, or divide it. Every
            argument has the client axis, so that no gradient is summed over clients behind our back; what ``function``
            closes over is copied to each.

    Raises:
        ArgumentError: ``client_map`` is none of these.
    """
    if client_map == "scan":
        return _on_devices(lambda *args: jax.lax.map(lambda a: function(*a), args), devices)
    return map_over_groups(jax.vmap(function), client_map, devices)


def map_over_groups(function: Callable, client_map: ClientMap, devices: int = 1) -> Callable:
    """`map_over_clients` for a function of a whole group, whose arguments and results have the client axis.

    The group is all clients for ``"vmap"``; for ``k`` it is ``k`` clients at a time, and then those that are left.
    """
    if client_map == "vmap":
        return _on_devices(function, devices)
    _check_map(client_map)
    return _on_devices(lambda *args: _in_groups(function, int(client_map), args), devices)


def _check_map(client_map: ClientMap) -> None:
    whole = isinstance(client_map, int) and not isinstance(client_map, bool) and client_map > 0
    if not whole and client_map not in ("vmap", "scan"):
        rule = "it must be 'vmap', 'scan' or a number of clients at a time"
        raise ArgumentError("client_map", client_map, rule)


def _on_devices(function: Callable, devices: int) -> Callable:
    """The function of a cohort with its clients shared out among devices, on the mesh axis ``clients``.

    Where there are more devices than clients, every client has several, on the axis ``examples``. The compiler divides
    its work among them by what `_shared_examples` says, and otherwise all of them do the same.
    """
    if devices == 1:
        return function

    def shared_out(*args):
        axes = {"clients": min(devices, len(jax.tree.leaves(args)[0]))}
        if axes["clients"] < devices:
            axes["examples"] = devices // axes["clients"]
        kinds, of_this_host = (AxisType.Auto,) * len(axes), jax.local_devices()[:devices]
        mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=kinds, devices=of_this_host)
        spec = PartitionSpec("clients")
        shared = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, axis_names={"clients"})
        return shared(*args)

    return shared_out


def _shared_examples(chunk: Chunk) -> Chunk:
    """The same chunk ``[C, T, B, ...]``, each client's devices holding equal shares of the examples of every batch."""
    share = PartitionSpec(None, None, "examples")
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, share), chunk)


def _in_groups(function: Callable, size: int, args):
    count = len(jax.tree.leaves(args)[0])
    whole = count // size
    split = lambda leaf: leaf[: whole * size].reshape(whole, size, *leaf.shape[1:])
    join = lambda leaf: leaf.reshape(whole * size, *leaf.shape[2:])
    parts = []
    if whole:
        parts.append(jax.tree.map(join, jax.lax.map(lambda a: function(*a), jax.tree.map(split, args))))
    if whole * size < count:
        parts.append(function(*jax.tree.map(lambda leaf: leaf[whole * size :], args)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts) if len(parts) > 1 else parts[0]

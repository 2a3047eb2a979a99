"""Who takes part in a round, and in what order each client sees its examples: plans of indices, on the host.

Everything is drawn from ``(seed, round, client id)``, so that a client's batches depend neither on the other
clients nor on padding, and a resumed run sees what an uninterrupted one would have seen.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.streams import Stream


class BatchPlan(NamedTuple):
    """The batches of one round: ``rows i32[C, T, B]`` of the examples, ``valid bool[C, T, B]``."""

    rows: np.ndarray
    valid: np.ndarray


def sample_clients(seed: int, round_: int, num_clients: int, cohort_size: int) -> np.ndarray:
    """The clients of a round, ``i32[C]``, without replacement, in rising order."""
    if cohort_size == num_clients:
        return np.arange(num_clients, dtype=np.int32)
    chosen = np.random.default_rng([seed, Stream.COHORT, round_]).choice(num_clients, cohort_size, replace=False)
    return np.sort(chosen).astype(np.int32)


def num_steps(count: int, batch_size: int, epochs: int) -> int:
    """Local steps of a client with ``count`` examples; the last batch of an epoch may be smaller."""
    return epochs * -(-count // batch_size)


def plan_batches(seed: int, round_: int, client_ids, members, *, batch_size: int, epochs: int, steps: int) -> BatchPlan:
    """Draws the order of every client's examples, anew for each epoch.

    Args:
        client_ids: the cohort, ``[C]``.
        members: for every client of the federation, indices of its examples.
        steps: T, at least `num_steps` the largest client; what a client does not need is padding.
    """
    rows = np.zeros((len(client_ids), steps, batch_size), np.int32)
    valid = np.zeros(rows.shape, bool)
    for place, client in enumerate(client_ids):
        own = members[client]
        if not len(own):
            continue
        rows[place] = own[0]  # padding is the client's own, so that no other's example is even read
        per_epoch = num_steps(len(own), batch_size, 1)
        rng = np.random.default_rng([seed, Stream.BATCHES, round_, int(client)])
        for epoch in range(epochs):
            flat = np.full(per_epoch * batch_size, own[0], np.int32)
            flat[: len(own)] = rng.permutation(own)
            flags = np.arange(flat.size) < len(own)
            when = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
            rows[place, when] = flat.reshape(per_epoch, batch_size)
            valid[place, when] = flags.reshape(per_epoch, batch_size)
    return BatchPlan(rows, valid)


def largest_first(ids: np.ndarray, sizes: np.ndarray, devices: int = 1) -> np.ndarray:
    """The clients from the largest to the smallest, so that groups of neighbours are of like size; dealt out first, so
    that each device's share of them (the devices take equal blocks) is as large as any other's.

    Args:
        ids: ``i32[C]``.
        sizes: ``[C]``, local steps or examples.

    >>> largest_first(np.array([0, 1, 2, 3]), np.array([5, 9, 1, 7]), devices=2).tolist()
    [1, 0, 3, 2]
    """
    order = ids[np.argsort(-np.asarray(sizes), kind="stable")]
    return np.concatenate([order[device::devices] for device in range(devices)])


def padding_share(needed: np.ndarray, num_parallel: int, devices: int = 1, steps_per_chunk: int | None = None) -> float:
    """Share of the computed local steps that no client needed: lanes that idle while others still work.

    Args:
        needed: ``bool[C, T]``, whether a client has an example in a step.
        num_parallel: lanes of a device; the next client takes the first that is free (`federated.client_map`).
        devices: that share the clients out; where they are more than the clients, several train each.
        steps_per_chunk: steps after which all lanes begin anew; None for all T.

    >>> float(padding_share(np.array([[True, True], [True, False], [True, False]]), num_parallel=2))
    0.0
    """
    chunk, taken = steps_per_chunk or max(needed.shape[1], 1), 0
    for start in range(0, needed.shape[1], chunk):
        for block in np.array_split(needed[:, start : start + chunk], min(devices, len(needed))):
            ends = np.zeros(min(num_parallel, len(block)), int)
            for row in block:
                ends[ends.argmin()] += row.nonzero()[0].max(initial=-1) + 1
            taken += len(ends) * ends.max()
    return 1 - int(needed.sum()) / taken if taken else 0.0


def plan_scored_batches(seed: int, round_: int, client_ids, members, *, batch_size: int, batches: int) -> BatchPlan:
    """A few batches of every client, drawn apart from its training: for methods that look at data when they prune.

    Args:
        client_ids, members: see `plan_batches`.
        batches: T; a client with fewer examples than they hold shows each of them once.
    """
    rows = np.zeros((len(client_ids), batches * batch_size), np.int32)
    valid = np.zeros(rows.shape, bool)
    for place, client in enumerate(client_ids):
        own = members[client]
        if not len(own):
            continue
        rows[place] = own[0]
        count = min(len(own), batches * batch_size)
        rows[place, :count] = np.random.default_rng([seed, Stream.SCORED_BATCHES, round_, int(client)]).permutation(
            own
        )[:count]
        valid[place, :count] = True
    shape = (len(client_ids), batches, batch_size)
    return BatchPlan(rows.reshape(shape), valid.reshape(shape))


def split_plan(plan: BatchPlan, steps_per_chunk: int) -> Iterator[BatchPlan]:
    """The plan in pieces of equal length, the last one padded; pieces without a valid example are left out."""
    for start in range(0, plan.rows.shape[1], steps_per_chunk):
        piece = BatchPlan(*(leaf[:, start : start + steps_per_chunk] for leaf in plan))
        if piece.valid.any():
            missing = steps_per_chunk - piece.rows.shape[1]
            more = ((0, 0), (0, missing), (0, 0))
            yield BatchPlan(np.pad(piece.rows, more, mode="edge"), np.pad(piece.valid, more))

"""Who takes part in a round, and what they train on: sampling, order of the examples, chunks of steps.

Everything is drawn from ``(seed, round, client id)``, so that a client's batches depend neither on the other
clients nor on padding, and a resumed run sees what an uninterrupted one would have seen.
"""

import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.core.types import Chunk, UsageError
from fedsparse_jax.data import partitions


class Federation(NamedTuple):
    """Examples, and who holds which; everything is by index, so that ``inputs`` may stay on disk."""

    inputs: np.ndarray  # f32[N, *shape], memory-mapped or not
    targets: np.ndarray  # f32[N]
    members: list[np.ndarray]  # for each client the indices of its examples
    test: np.ndarray  # indices of the central test set
    people: list[dict]  # one row an example: participant_id, session, site

    classes: int = 0  # number of classes; 0 where the target is a number

    @property
    def train_targets(self) -> np.ndarray:
        """Targets of all clients together."""
        return self.targets[np.concatenate(self.members)]

    def own_test(self, client: int) -> np.ndarray:
        """Which places of the test set are of classes that the client holds, ``i64[..]``; all, without classes."""
        if not self.classes:
            return np.arange(len(self.test))
        return np.flatnonzero(np.isin(self.targets[self.test], self.targets[self.members[client]]))


def federate(
    inputs,
    targets,
    people: list[dict],
    *,
    divide: Callable,
    test_share: float,
    seed: int,
    test=None,
    classes: int = 0,
) -> Federation:
    """Splits the people, never the scans: nobody is in two clients, or in both train and test.

    Args:
        inputs: ``[N, *shape]``.
        targets: ``[N]``, in years; a person's first scan stands for the person.
        people: one row an example, with ``participant_id`` and ``site``.
        divide: ``(ages [P], sites [P], seed) -> list of index arrays``, see `partition.divide`.
        test_share: share of the people in the central test set.
        test: people of the central test set, by index, for data that come with one; ``test_share`` is not used then.
        classes: number of classes, 0 for none.
    """
    ids, first, who = np.unique(
        [row["participant_id"] for row in people], return_index=True, return_inverse=True
    )
    if test is None:
        train, tested = partitions.split_test(len(ids), test_share, seed)
    else:
        train, tested = np.setdiff1d(np.arange(len(ids)), test), np.asarray(test)
    sites = np.array([people[i]["site"] for i in first])
    parts = divide(targets[first][train], sites[train], seed=seed)
    members = [partitions.expand(who, train[part]) for part in parts]
    held_out = partitions.expand(who, tested)
    return Federation(inputs, np.asarray(targets, np.float32), members, held_out, people, classes)


class Plan(NamedTuple):
    """The batches of one round: ``rows i32[C, T, B]`` of the examples, ``valid bool[C, T, B]``."""

    rows: np.ndarray
    valid: np.ndarray


def sample(seed: int, round_: int, num_clients: int, cohort_size: int) -> np.ndarray:
    """The clients of a round, ``i32[C]``, without replacement, in rising order."""
    if cohort_size == num_clients:
        return np.arange(num_clients, dtype=np.int32)
    chosen = np.random.default_rng([seed, 5, round_]).choice(num_clients, cohort_size, replace=False)
    return np.sort(chosen).astype(np.int32)


def cohort_size(num_clients: int, participation: float) -> int:
    """Clients a round: the nearest whole number to ``participation * num_clients``, at least one."""
    if not 0 < participation <= 1:
        raise UsageError(
            f"participation is {participation}: it is a share of the clients, above 0 and up to 1."
        )
    return max(1, round(participation * num_clients))


def steps_of(count: int, batch_size: int, epochs: int) -> int:
    """Local steps of a client with ``count`` examples; the last batch of an epoch may be smaller."""
    return epochs * -(-count // batch_size)


def plan(seed: int, round_: int, client_ids, members, *, batch_size: int, epochs: int, steps: int) -> Plan:
    """Draws the order of every client's examples, anew for each epoch.

    Args:
        client_ids: the cohort, ``[C]``.
        members: for every client of the federation, indices of its examples.
        steps: T, at least `steps_of` the largest client; what a client does not need is padding.
    """
    rows = np.zeros((len(client_ids), steps, batch_size), np.int32)
    valid = np.zeros(rows.shape, bool)
    for place, client in enumerate(client_ids):
        held = members[client]
        per_epoch = steps_of(len(held), batch_size, 1)
        rng = np.random.default_rng([seed, 6, round_, int(client)])
        for epoch in range(epochs):
            flat = np.zeros(per_epoch * batch_size, np.int32)
            flat[: len(held)] = rng.permutation(held)
            flags = np.arange(flat.size) < len(held)
            when = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
            rows[place, when] = flat.reshape(per_epoch, batch_size)
            valid[place, when] = flags.reshape(per_epoch, batch_size)
    return Plan(rows, valid)


def by_size(ids: np.ndarray, sizes: np.ndarray, devices: int = 1) -> np.ndarray:
    """The clients from the largest to the smallest, so that groups of neighbours are of like size; dealt out first, so
    that each device's share of them (the devices take equal blocks) is as large as any other's.

    Args:
        ids: ``i32[C]``.
        sizes: ``[C]``, local steps or examples.

    >>> by_size(np.array([0, 1, 2, 3]), np.array([5, 9, 1, 7]), devices=2).tolist()
    [1, 0, 3, 2]
    """
    order = ids[np.argsort(-np.asarray(sizes), kind="stable")]
    return np.concatenate([order[device::devices] for device in range(devices)])


def padding(needed: np.ndarray, together: int, devices: int = 1, steps_per_chunk: int | None = None) -> float:
    """Share of the computed local steps that no client needed: lanes that idle while others still work.

    Args:
        needed: ``bool[C, T]``, whether a client has an example in a step.
        together: lanes of a device; the next client takes the first that is free (`local.make_steps`).
        steps_per_chunk: steps after which all lanes begin anew; None for all T.

    >>> float(padding(np.array([[True, True], [True, False], [True, False]]), together=2))
    0.0
    """
    chunk, taken = steps_per_chunk or max(needed.shape[1], 1), 0
    for start in range(0, needed.shape[1], chunk):
        for block in np.array_split(needed[:, start : start + chunk], devices):
            ends = np.zeros(min(together, len(block)), int)
            for row in block:
                ends[ends.argmin()] += row.nonzero()[0].max(initial=-1) + 1
            taken += len(ends) * ends.max()
    return 1 - int(needed.sum()) / taken if taken else 0.0


def probe(seed: int, round_: int, client_ids, members, *, batch_size: int, batches: int) -> Plan:
    """A few batches of every client, drawn apart from its training: for methods that look at data when they prune.

    Args:
        client_ids, members: see `plan`.
        batches: T; a client with fewer examples than they hold shows each of them once.
    """
    rows = np.zeros((len(client_ids), batches * batch_size), np.int32)
    valid = np.zeros(rows.shape, bool)
    for place, client in enumerate(client_ids):
        held = members[client]
        count = min(len(held), batches * batch_size)
        rows[place, :count] = np.random.default_rng([seed, 8, round_, int(client)]).permutation(held)[:count]
        valid[place, :count] = True
    shape = (len(client_ids), batches, batch_size)
    return Plan(rows.reshape(shape), valid.reshape(shape))


def chunks(plan_: Plan, steps_per_chunk: int) -> Iterator[Plan]:
    """The plan in pieces of equal length, the last one padded; pieces without a valid example are left out."""
    for start in range(0, plan_.rows.shape[1], steps_per_chunk):
        piece = Plan(*(leaf[:, start : start + steps_per_chunk] for leaf in plan_))
        if piece.valid.any():
            missing = steps_per_chunk - piece.rows.shape[1]
            yield Plan(*(np.pad(leaf, ((0, 0), (0, missing), (0, 0))) for leaf in piece))


def resident(inputs) -> Callable[[np.ndarray], jax.Array]:
    """A reader of examples by index, with all of them on the device and gathered there."""
    on_device = jnp.asarray(inputs)
    gather = jax.jit(lambda array, index: array[index])
    return lambda index: gather(on_device, index)


def streamed(inputs) -> Callable[[np.ndarray], jax.Array]:
    """A reader of examples by index, from a memory-mapped array that may be larger than memory.

    Pages that were read are given back, so that the process does not grow to the size of the file; the system keeps
    them as long as it has memory to spare.
    """
    map_ = getattr(inputs, "_mmap", None) if getattr(inputs, "mode", "") != "c" else None

    def read(index):
        found = jnp.asarray(np.take(inputs, index, axis=0))
        if map_ is not None and hasattr(mmap, "MADV_DONTNEED"):
            map_.madvise(mmap.MADV_DONTNEED)
        return found

    return read


def chunk_of(read: Callable[[np.ndarray], jax.Array], targets, piece: Plan) -> Chunk:
    """The examples that a plan names, on the device."""
    return Chunk(read(piece.rows), jnp.asarray(targets[piece.rows]), jnp.asarray(piece.valid))


def load(read: Callable[[np.ndarray], jax.Array], targets, plans: Iterator[Plan]) -> Iterator[Chunk]:
    """Plans to chunks; each is read while the device works on the one before."""

    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for piece in plans:
            following = pool.submit(chunk_of, read, targets, piece)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


def predict(apply: Callable, params, read: Callable, index: np.ndarray, batch_size: int) -> np.ndarray:
    """Predictions ``f32[N]`` for the examples ``index [N]``, in equal batches so that memory stays bounded."""
    batches = -(-len(index) // batch_size)
    padded = np.resize(index, batches * batch_size).reshape(batches, batch_size)
    predictions = [apply(params, read(batch)) for batch in padded]
    return np.concatenate([np.asarray(batch) for batch in predictions])[: len(index)]

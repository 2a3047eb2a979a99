"""A federation: examples, who holds which of them for training and for validation, and a central test set.

People are divided, never scans.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data import partitions


class Federation(NamedTuple):
    """Examples, and who holds which; everything is by index, so that ``inputs`` may stay on disk."""

    inputs: np.ndarray  # f32[N, *shape], memory-mapped or not
    targets: np.ndarray  # f32[N]
    members: list[np.ndarray]  # for each client the indices of the examples that it trains on
    test: np.ndarray  # indices of the central test set
    people: list[dict]  # one row an example: participant_id, session, site
    classes: int = 0  # number of classes; 0 where the target is a number
    class_names: tuple[str, ...] = ()  # what they are called; empty where they have numbers only
    validation: tuple[np.ndarray, ...] = ()  # for each client the indices of those it validates on; empty for none

    @property
    def person_of_row(self) -> np.ndarray:
        """The person of each example, as a number, ``i64[N]``; several scans may be of one person."""
        return np.unique([row["participant_id"] for row in self.people], return_inverse=True)[1]

    @property
    def most_scans_of_a_person(self) -> int:
        """Training examples of the person who has most."""
        return int(np.bincount(self.person_of_row[np.concatenate(self.members)]).max())

    @property
    def test_sets(self) -> dict[str, np.ndarray]:
        """Places in the test set of each of the data's own test sets, by name; empty unless there are several."""
        names = np.array([self.people[row].get("test_set", "") for row in self.test])
        known = sorted(set(names[names != ""].tolist()))
        return {name: np.flatnonzero(names == name) for name in known} if len(known) > 1 else {}

    @property
    def train_targets(self) -> np.ndarray:
        """Targets of all clients together."""
        return self.targets[np.concatenate(self.members)]

    @property
    def validation_rows(self) -> np.ndarray:
        """Examples on which models are chosen, those of all clients in their order, ``i64[V]``."""
        return np.concatenate([np.zeros(0, np.int64), *self.validation])

    def own_tests(self) -> list[np.ndarray]:
        """For each client the places of the test set that are like its own examples, ``i64[..]``: of classes that it
        holds or, without classes, of its sites (none where none are told). Clients with the same places share an array.
        """
        kinds = self.targets if self.classes else np.array([row.get("site", "") for row in self.people])
        shared = dict[bytes, np.ndarray]()
        held_by = [tuple(sorted({*kinds[rows].tolist()} - {"", "n/a"})) for rows in self.members]
        places = {held: np.flatnonzero(np.isin(kinds[self.test], held)) for held in set(held_by)}
        return [shared.setdefault(places[held].tobytes(), places[held]) for held in held_by]

    def client_sizes(self, client_ids) -> np.ndarray:
        """Examples behind each of some clients, ``f32[C]``."""
        return np.array([len(self.members[i]) for i in client_ids], np.float32)


def from_arrays(
    clients: Sequence[tuple[np.ndarray, np.ndarray]], test: tuple[np.ndarray, np.ndarray], *, classes: int = 0
) -> Federation:
    """A federation of arrays that are in memory already.

    Args:
        clients: for each client its ``(inputs [n, *shape], targets [n])``; the last axis of the shape are channels.
        test: the same, of the central test set.
        classes: K, where the targets are whole numbers below K; 0 where they are numbers such as ages.

    Raises:
        UsageError: no client, no example, arrays of different shapes, more inputs than targets, or no such class.

    >>> examples = lambda n: (np.zeros((n, 4)), np.ones(n))
    >>> data = from_arrays([examples(3), examples(5)], test=examples(2))
    >>> [len(rows) for rows in data.members], len(data.test)
    ([3, 5], 2)
    """
    if not clients:
        raise UsageError("clients is empty: a federation needs at least one client.")
    parts = [(np.asarray(inputs, np.float32), np.asarray(targets, np.float32)) for inputs, targets in [*clients, test]]
    shapes = {inputs.shape[1:] for inputs, _ in parts}
    if len(shapes) > 1:
        raise UsageError(f"The inputs differ in shape ({', '.join(map(str, sorted(shapes)))}); give all the same.")
    for inputs, targets in parts:
        if targets.shape != (len(inputs),):
            raise UsageError(f"{len(inputs)} inputs go with targets of shape {targets.shape}; give one number each.")
        if not len(inputs):
            raise UsageError("A client, or the test set, holds no example; leave such a client out.")
        if classes and not np.isin(targets, np.arange(classes)).all():
            raise UsageError(f"Not all targets are classes, whole numbers from 0 to {classes - 1}; number them anew.")
    ends = np.cumsum([len(targets) for _, targets in parts])
    *members, tested = np.split(np.arange(ends[-1]), ends[:-1])
    people = [{"participant_id": f"example-{i:06d}", "session": "", "site": "n/a"} for i in range(ends[-1])]
    inputs, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Federation(inputs, targets, members, tested, people, classes)


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
    split_test: Callable = partitions.split_test,
    validation_share: float = 0.0,
) -> Federation:
    """Splits the people, never the scans: nobody is in two clients, or in two of training, validation and test.

    Args:
        inputs: ``[N, *shape]``.
        targets: ``[N]``, in years; a person's first scan stands for the person.
        people: one row an example, with ``participant_id`` and ``site``.
        divide: ``(ages [P], sites [P], seed) -> list of index arrays``, see `partitions.divide`.
        test_share: share of the people in the central test set, see `partitions.split_test`.
        seed: of the split.
        test: people of the central test set, by index, for data that come with one; ``test_share`` is not used then.
        classes: number of classes, 0 for none.
        split_test: `partitions.split_test`, or that of an earlier version.
        validation_share: share of each client's people on whom models are chosen, see `partitions.split_validation`.

    Raises:
        ArgumentError: the validation takes nobody, or all of a client.
    """
    ids, first_scan, person_of_scan = np.unique(
        [row["participant_id"] for row in people], return_index=True, return_inverse=True
    )
    if test is None:
        train, tested = split_test(ids.tolist(), test_share, seed)
    else:
        train, tested = np.setdiff1d(np.arange(len(ids)), test), np.asarray(test)
    sites = np.array([people[i]["site"] for i in first_scan])
    parts = divide(targets[first_scan][train], sites[train], seed=seed)
    scans = functools.partial(partitions.expand, person_of_scan)
    data = Federation(inputs, np.asarray(targets, np.float32), [], scans(tested), people, classes)
    if not validation_share:
        return data._replace(members=[scans(train[part]) for part in parts])
    sides = [partitions.split_validation(ids[train[part]].tolist(), validation_share, seed) for part in parts]
    _refuse_lopsided(validation_share, sides)
    return data._replace(
        members=[scans(train[part][trained]) for part, (trained, _) in zip(parts, sides, strict=True)],
        validation=tuple(scans(train[part][chosen]) for part, (_, chosen) in zip(parts, sides, strict=True)),
    )


def _refuse_lopsided(share: float, sides: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Refuses a validation of nobody, and one that leaves a client nobody to train on."""
    remedy = "change it or the seed, or add people"
    if not any(len(chosen) for _, chosen in sides):
        people = sum(len(trained) for trained, _ in sides)
        raise ArgumentError("validation_share", share, f"of {people} people it puts 0 into the validation; {remedy}")
    for client, (trained, chosen) in enumerate(sides, 1):
        if not len(trained):
            rule = f"it takes all {len(chosen)} people of client {client} of {len(sides)} out of training; {remedy}"
            raise ArgumentError("validation_share", share, rule)


def cohort_size(num_clients: int, participation: float) -> int:
    """Clients a round: the nearest whole number to ``participation * num_clients``, at least one."""
    if not 0 < participation <= 1:
        raise ArgumentError("participation", participation, "it is a share of the clients, above 0 and up to 1")
    return max(1, round(participation * num_clients))

"""Who holds which person: a cohort of people divided among clients, and a central test set set apart.

Everything here divides *people*, never scans: `expand` turns people into scans at the end, so that no person
is in two clients, or in both train and test.
"""

import hashlib

import numpy as np

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.streams import Stream

RATIO = 1.35  # geometric ratio of the skewed sizes in the paper's federation
AGE_MEANS = (90, 70, 50, 30)  # target ages of the paper's non-IID clients, in turn
AGE_SD = 10.0


def split_test(names, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """People for training and people for the central test set, at random: ``(train i64[..], test i64[..])``.

    Each person's own lot decides, drawn from the seed and his name alone: whoever comes or goes moves nobody else. The
    test set is therefore only nearly of the share asked for, give or take ``sqrt(share (1 - share) people)``.

    >>> train, tested = split_test(["sub-01", "sub-02", "sub-03", "sub-04"], 0.5, seed=4)
    >>> train.tolist(), tested.tolist()
    ([2, 3], [0, 1])

    Raises:
        ArgumentError: one of the two sets is empty.
    """
    if not 0 < share < 1:
        raise ArgumentError("test_share", share, "it is a share of the people, above 0 and below 1")
    tested = np.array([_lot(name, seed) < share for name in names], bool)
    if not 0 < tested.sum() < len(tested):
        rule = f"of {len(tested)} people it puts {tested.sum()} into the test set; add people, or change it or the seed"
        raise ArgumentError("test_share", share, rule)
    return np.flatnonzero(~tested), np.flatnonzero(tested)


def split_test_by_order(names, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As version 0.1 did it, for its runs, which have no record of their people: who is tested hangs on how many
    people there are.

    Arguments and results are those of `split_test`.
    """
    order = np.random.default_rng([seed, Stream.TEST_SPLIT]).permutation(len(names))
    tested = round(share * len(names))
    return np.sort(order[tested:]), np.sort(order[:tested])


def split_validation(names, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """People of the clients who train, and those on whom models are chosen: ``(train i64[..], validation i64[..])``.

    Lots are drawn as those of `split_test` are, apart from them: whoever comes or goes moves nobody else.

    >>> train, validation = split_validation(["sub-01", "sub-02", "sub-03", "sub-04"], 0.5, seed=4)
    >>> train.tolist(), validation.tolist()
    ([3], [0, 1, 2])

    Raises:
        ArgumentError: the share is none.
    """
    if not 0 <= share < 1:
        rule = "it is a share of the people who are not tested, at least 0 and below 1"
        raise ArgumentError("validation_share", share, rule)
    chosen = np.array([_lot(name, seed, b"validation") < share for name in names], bool)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def fold_people(names, folds: int, seed: int) -> np.ndarray:
    """The fold of each person, ``i64[P]`` from 0, for a cross-validation: as many people in each as can be.

    People are dealt to the folds in the order of their lots, see `split_test`.

    >>> fold_people(["sub-01", "sub-02", "sub-03", "sub-04"], 2, seed=4).tolist()
    [1, 1, 0, 0]

    Raises:
        ArgumentError: fewer than two folds, or more than people.
    """
    _refuse_folds(folds, len(names), "people")
    order = np.argsort([_lot(name, seed, b"fold") for name in names], kind="stable")
    return np.argsort(order) % folds


def fold_sites(sites, folds: int) -> np.ndarray:
    """The same with whole sites, the largest first, each into the fold that has fewest people so far.

    >>> fold_sites(["A", "B", "C", "C", "C"], 2).tolist()
    [1, 1, 0, 0, 0]

    Raises:
        ArgumentError: fewer than two folds, or more than sites.
    """
    names, site, counts = np.unique(sites, return_inverse=True, return_counts=True)
    _refuse_folds(folds, len(names), "sites")
    held, fold_of = np.zeros(folds, int), np.zeros(len(names), int)
    for one in np.argsort(-counts, kind="stable"):
        fold_of[one] = held.argmin()
        held[fold_of[one]] += counts[one]
    return fold_of[site]


def _refuse_folds(folds: int, most: int, what: str) -> None:
    if not 2 <= folds <= most:
        raise ArgumentError("folds", folds, f"it must be at least 2, and at most {most}, as there are {most} {what}")


def _lot(name: str, seed: int, purpose: bytes = b"") -> float:
    """A number in [0, 1) that only this name, this seed and this purpose have."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8, person=purpose).digest()
    return int.from_bytes(digest, "big") / 2**64


def uniform_sizes(count: int, num_clients: int) -> list[int]:
    """As equal as can be, the larger first.

    >>> uniform_sizes(10, 4)
    [3, 3, 2, 2]
    """
    return [count // num_clients + (i < count % num_clients) for i in range(num_clients)]


def skewed_sizes(count: int, num_clients: int, ratio: float = RATIO) -> list[int]:
    """Geometric sizes, the larger first; the remainder goes to the largest first, a share at a time.

    The rule of the paper's authors; for UK Biobank's 8,356 it gives their published sizes.

    >>> skewed_sizes(8356, 8)
    [2401, 1765, 1303, 964, 714, 528, 391, 290]
    """
    powers = [ratio**i for i in range(num_clients, 0, -1)]
    base = int(count / sum(powers))
    sizes = [int(power * base) for power in powers]
    rest, i = count - sum(sizes), 0
    while rest > 0:
        extra = min(rest, int(np.ceil(rest / ratio)))
        sizes[i % num_clients] += extra
        rest, i = rest - extra, i + 1
    return sizes


def _by_chance(ages, sizes, seed: int) -> list[np.ndarray]:
    order = np.random.default_rng([seed, Stream.PARTITION_BY_CHANCE]).permutation(len(ages))
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def _by_age(ages, sizes, seed: int) -> list[np.ndarray]:
    """Clients in turn draw an age from their normal until somebody of that whole age is left, and take one.

    The round-robin rule of the paper's authors, who repeat a draw until it hits. Here one draw is made among
    the ages that are left, in proportion to the normal density at the middle of the year.
    """
    rng = np.random.default_rng([seed, Stream.PARTITION_BY_AGE])
    whole = np.floor(np.asarray(ages)).astype(int)
    shelves = {age: list(rng.permutation(np.flatnonzero(whole == age))) for age in np.unique(whole)}
    members: list[list[int]] = [[] for _ in sizes]
    while any(len(taken) < size for taken, size in zip(members, sizes, strict=True)):
        for client, size in enumerate(sizes):
            if len(members[client]) < size:
                left = np.array([age for age, shelf in shelves.items() if shelf])
                distance = (left + 0.5 - AGE_MEANS[client % len(AGE_MEANS)]) / AGE_SD
                log_density = -0.5 * distance**2
                density = np.exp(log_density - log_density.max())
                age = rng.choice(left, p=density / density.sum())
                members[client].append(shelves[age].pop(0))
    return [np.sort(taken) for taken in members]


def uniform_iid(ages, sites, num_clients, seed):
    """Equal sizes, people at random."""
    return _by_chance(ages, uniform_sizes(len(ages), num_clients), seed)


def uniform_noniid(ages, sites, num_clients, seed):
    """Equal sizes, each client with an age band of its own (overlapping)."""
    return _by_age(ages, uniform_sizes(len(ages), num_clients), seed)


def skewed_iid(ages, sites, num_clients, seed, *, ratio=RATIO):
    """Sizes that fall by ``ratio`` from client to client, people at random."""
    return _by_chance(ages, skewed_sizes(len(ages), num_clients, ratio), seed)


def skewed_noniid(ages, sites, num_clients, seed, *, ratio=RATIO):
    """Sizes that fall by ``ratio``, each client with an age band of its own (overlapping)."""
    return _by_age(ages, skewed_sizes(len(ages), num_clients, ratio), seed)


def by_site(ages, sites, num_clients, seed):
    """One client for each value of the ``site`` column: the federation that the data come from.

    Raises:
        UsageError: a person without a site, or another number of sites than of clients.
    """
    sites = np.asarray(sites)
    names = [str(name) for name in np.unique(sites)]
    if "n/a" in names:
        missing = int((sites == "n/a").sum())
        raise UsageError(
            f"{missing} of {len(sites)} people have no site, by which they were to be divided; add a site column to "
            "the table of participants, or choose another partition."
        )
    if len(names) != num_clients:
        rule = f"the data come from {len(names)} sites ({', '.join(names)}); set it to {len(names)} or to auto"
        raise ArgumentError("num_clients", num_clients, rule)
    return [np.flatnonzero(sites == name) for name in names]


def dirichlet(ages, sites, num_clients, seed, *, alpha=0.5, bins=5):
    """Each age bin (quantiles) is shared out by a Dirichlet draw; small ``alpha`` makes clients differ more.

    A client that would stay empty takes one person from the largest.
    """
    edges = np.quantile(ages, np.linspace(0, 1, bins + 1)[1:-1])
    return _dirichlet(np.digitize(ages, edges), num_clients, seed, alpha)


def dirichlet_by_class(ages, sites, num_clients, seed, *, alpha=0.5):
    """Each class is shared out by a Dirichlet draw of its own (Hsu et al., 2019, arXiv 1909.06335).

    As `dirichlet`, for targets that are class labels.
    """
    return _dirichlet(np.unique(ages, return_inverse=True)[1], num_clients, seed, alpha)


def _dirichlet(which, num_clients: int, seed: int, alpha: float) -> list[np.ndarray]:
    """People of the same number in ``which [P]`` are shared out together."""
    rng = np.random.default_rng([seed, Stream.PARTITION_BY_DIRICHLET])
    members: list[list[int]] = [[] for _ in range(num_clients)]
    for b in range(which.max() + 1):
        people = rng.permutation(np.flatnonzero(which == b))
        cuts = (np.cumsum(rng.dirichlet([alpha] * num_clients))[:-1] * len(people)).round().astype(int)
        for taken, part in zip(members, np.split(people, cuts), strict=True):
            taken.extend(part)
    for taken in members:
        if not taken:
            taken.append(max(members, key=len).pop())
    return [np.sort(np.array(taken, int)) for taken in members]


def classes_per_client(ages, sites, num_clients, seed, *, classes=2):
    """Every client holds examples of so many classes only, in near equal parts (targets are class labels).

    A class is shared out evenly among the clients that hold it. Where ``num_clients * classes`` is less than the number
    of classes, clients hold more of them, because every example must be held by somebody.
    """
    rng = np.random.default_rng([seed, Stream.PARTITION_BY_CLASS])
    labels = np.unique(ages)
    if not 1 <= classes <= len(labels):
        raise ArgumentError("classes", classes, f"the data have {len(labels)} classes; choose 1 to that")
    each = max(classes, -(-len(labels) // num_clients))
    classes_of, num_holders = [], np.zeros(len(labels), int)
    for _ in range(num_clients):  # the least held classes first, chance deciding among equals
        chosen = np.lexsort((rng.random(len(labels)), num_holders))[:each]
        num_holders[chosen] += 1
        classes_of.append(chosen)
    members: list[list[int]] = [[] for _ in range(num_clients)]
    for label in range(len(labels)):
        holders = [client for client, chosen in enumerate(classes_of) if label in chosen]
        people = rng.permutation(np.flatnonzero(ages == labels[label]))
        for client, part in zip(holders, np.array_split(people, len(holders)), strict=True):
            members[client].extend(part)
    return [np.sort(np.array(taken, int)) for taken in members]


def divide(ages, sites, *, partition, num_clients: int | None, seed: int) -> list[np.ndarray]:
    """Applies a partition and holds its result to the contract: everybody once, no client empty.

    Args:
        ages, sites: of each person.
        partition: a member of ``PARTITIONS``, with its options.
        num_clients: how many there are; None for as many as there are sites.
        seed: of the partition.

    Raises:
        UsageError: fewer people than clients, or a client without data.
    """
    if num_clients is None:
        num_clients = len(np.unique(sites))
    if num_clients < 1:
        raise ArgumentError("num_clients", num_clients, "a federation needs at least one client")
    if len(ages) < num_clients:
        rule = f"only {len(ages)} people are left for training; lower it or add data"
        raise ArgumentError("num_clients", num_clients, rule)
    parts = partition(np.asarray(ages), np.asarray(sites), num_clients, seed)
    empty = [i + 1 for i, part in enumerate(parts) if len(part) == 0]
    if empty:
        raise UsageError(
            f"The partition leaves client {empty[0]} of {num_clients} without data; lower the number of clients, or "
            "choose a less skewed partition."
        )
    if sorted(np.concatenate(parts).tolist()) != list(range(len(ages))):
        raise UsageError("The partition must give every person to exactly one client; mend its function.")
    return [np.asarray(part, np.int64) for part in parts]


def expand(person_of_scan, people) -> np.ndarray:
    """The scans of some people.

    Args:
        person_of_scan: ``[N]``, for each scan the index of its person.
        people: indices of persons.

    >>> expand([0, 1, 0, 2], [0, 2]).tolist()
    [0, 2, 3]
    """
    return np.flatnonzero(np.isin(person_of_scan, people))


PARTITIONS = {
    "uniform_iid": uniform_iid,
    "uniform_noniid": uniform_noniid,
    "skewed_iid": skewed_iid,
    "skewed_noniid": skewed_noniid,
    "site": by_site,
    "dirichlet": dirichlet,
    "dirichlet_by_class": dirichlet_by_class,
    "classes_per_client": classes_per_client,
}

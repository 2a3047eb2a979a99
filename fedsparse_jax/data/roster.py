"""Who was in which client, for training or validation, and who in the test set, by name: what every later question
about people reads.

A split is drawn once. A run keeps it by participant and session, and whatever opens the run later takes it from there:
data in which somebody is missing, or to which somebody came, are refused by name and never divided anew.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_tsv, write_tsv
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.tables import without_zeros

TEST = "test"
VALIDATION = "-validation"  # behind the name of the client
SAME_TARGET = 1e-3  # of a target in its table
NAMED = 5  # people whom a sentence names, at most


class RosterEntry(NamedTuple):
    """One example of a run."""

    participant_id: str
    session: str  # empty if there is none
    target: float  # years, or a class
    set: str  # the client, "L1" and on; "L1-validation" and on for who validates its model; or "test"
    test_set: str = ""  # of who is tested: which of the cohort's own test sets, such as "external"; empty without any


Roster = tuple[RosterEntry, ...]


def roster_of(data: Federation) -> Roster:
    """The record of a federation, in the order of its examples; who is in no set is not in it."""
    sets = {int(row): TEST for row in data.test}
    sets |= {int(row): client_name(client) for client, rows in enumerate(data.members) for row in rows}
    sets |= {int(row): client_name(i) + VALIDATION for i, rows in enumerate(data.validation) for row in rows}
    of = lambda row, key: data.people[row].get(key, "")
    return tuple(
        RosterEntry(
            of(row, "participant_id"),
            of(row, "session"),
            float(data.targets[row]),
            sets[row],
            of(row, "test_set") if sets[row] == TEST else "",
        )
        for row in sorted(sets)
    )


def client_name(client: int) -> str:
    """How a client is called in tables and reports, from L1 on."""
    return f"L{client + 1}"


def is_trained_on(set_: str) -> bool:
    """Whether a model was trained on people of a set.

    >>> [is_trained_on(name) for name in ("L1", "L1-validation", "test", "")]
    [True, False, False, False]
    """
    return set_ not in ("", TEST) and not is_validation(set_)


def is_validation(set_: str) -> bool:
    """Whether models are chosen by people of a set."""
    return set_.endswith(VALIDATION)


def write_roster(path: Path, roster: Roster) -> None:
    """The record as a table of tab-separated values; with a column ``test_set`` where the cohort has such sets."""
    columns = len(RosterEntry._fields) - (not any(entry.test_set for entry in roster))
    rows = ((e.participant_id, e.session, f"{e.target:.4f}", e.set, e.test_set)[:columns] for e in roster)
    write_tsv(path, RosterEntry._fields[:columns], rows)


def read_roster(path: Path) -> Roster:
    """The record of `write_roster`; empty where there is no such file."""
    rows = read_tsv(path)
    blank = lambda text: "" if text == "n/a" else text
    return tuple(
        RosterEntry(
            row["participant_id"],
            blank(row["session"]),
            float(row["target"]),
            row["set"],
            blank(row.get("test_set", "")),
        )
        for row in rows
    )


def federate_as_recorded(
    inputs, targets, people: list[dict], *, roster: Roster, workdir: Path, classes: int = 0
) -> Federation:
    """The federation of a run that has begun: the recorded people, each where he was.

    Args:
        inputs, targets, people, classes: see `federation.federate`.
        roster: of a run.
        workdir: the run's folder.

    Raises:
        UsageError: a recorded scan is missing, or there is one that is not recorded; the sentence names them.
    """
    refuse_others(people, targets, roster, workdir)
    sets = {entry.participant_id: entry.set for entry in roster}
    test_sets = {entry.participant_id: entry.test_set for entry in roster}
    people = [{**row, "test_set": test_sets[row["participant_id"]]} for row in people]
    of_row = np.array([sets[row["participant_id"]] for row in people])
    clients = sorted({name for name in sets.values() if is_trained_on(name)}, key=lambda name: int(name[1:]))
    rows = lambda name: np.flatnonzero(of_row == name)
    validation = tuple(rows(name + VALIDATION) for name in clients) if any(map(is_validation, sets.values())) else ()
    members, targets = [rows(name) for name in clients], np.asarray(targets, np.float32)
    return Federation(inputs, targets, members, rows(TEST), people, classes, validation=validation)


def refuse_other_split(data: Federation, roster: Roster, workdir: Path) -> None:
    """Refuses a federation that is not the recorded one of a run folder; an empty record is any federation's.

    Raises:
        UsageError: other people, or the same ones divided otherwise.
    """
    if not roster:
        return
    rows = np.concatenate([*data.members, data.test, data.validation_rows])
    refuse_others([data.people[row] for row in rows], data.targets[rows], roster, workdir)
    before, now = ({entry.participant_id: entry.set for entry in record} for record in (roster, roster_of(data)))
    moved = [f"{name} from {before[name]} to {now[name]}" for name in before if before[name] != now[name]]
    if moved:
        raise UsageError(
            f"{workdir} divided the people otherwise ({some_of(moved)}); use the recorded split, people.tsv."
        )


def refuse_others(people: list[dict], targets, roster: Roster, workdir: Path) -> None:
    """Refuses examples that are not those of a record.

    Args:
        people: one row an example, with ``participant_id`` and ``session``.
        targets: of the examples.
        roster: the record.
        workdir: the run that it belongs to.

    Raises:
        UsageError: as `federate_as_recorded` says.
    """
    scans = [(row["participant_id"], row["session"]) for row in people]
    there, recorded = Counter(scans), Counter(entry[:2] for entry in roster)
    complaints = {"missing here": recorded - there, "new here": there - recorded, "of another age": Counter[tuple]()}
    if there == recorded:
        ages: dict[tuple, list[float]] = {}
        for entry in roster:
            ages.setdefault(entry[:2], []).append(entry.target)
        same = lambda scan, target: any(_is_same(age, target) for age in ages[scan])
        complaints["of another age"].update(s for s, t in zip(scans, targets, strict=True) if not same(s, t))
    told = "; ".join(
        f"{what}: {some_of(name for name, _ in them.elements())}" for what, them in complaints.items() if them
    )
    if told:
        raise UsageError(
            f"{workdir} was trained on other people ({told}); give it the same scans, or choose another folder."
        )


def _is_same(a: float, b: float) -> bool:
    """Whether two targets are one; NaN, which stands for one that is known elsewhere, is the same as itself."""
    return abs(a - b) < SAME_TARGET or bool(np.isnan(a) and np.isnan(b))


def some_of(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - NAMED} more" if len(distinct) > NAMED else ""
    return ", ".join(distinct[:NAMED]) + more


def sets_by_name(people: Sequence[dict], roster: Roster) -> list[str]:
    """For each example the set of whoever of a run has the name of its person, lost leading zeros forgiven; else empty.

    Names such as ``sub-01`` are in every cohort: see `is_same_cohort`.
    """
    sets = {without_zeros(entry.participant_id): entry.set for entry in roster}
    return [sets.get(without_zeros(row["participant_id"]), "") for row in people]


def is_same_cohort(people: Sequence[dict], targets, roster: Roster) -> bool:
    """Whether equal names are the same people: most scans that agree with one of the run in name and session agree in
    the target, too."""
    recorded: dict[tuple[str, str], set[float]] = {}
    for entry in roster:
        recorded.setdefault((without_zeros(entry.participant_id), entry.session), set()).add(round(entry.target, 2))
    scans = [(without_zeros(row["participant_id"]), row["session"]) for row in people]
    shared = [(scan, round(float(target), 2)) for scan, target in zip(scans, targets, strict=True) if scan in recorded]
    return 2 * sum(target in recorded[scan] for scan, target in shared) > len(shared)

"""Who trains and who is tested, as the user's own table says it."""

from collections.abc import Iterable, Sequence

import numpy as np

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data.roster import TEST
from fedsparse_jax.data.table_files import TABLES, Rows, expand_home, read_rows
from fedsparse_jax.data.tables import Drop, Scan, find_person, participant_id, require_column

TRAIN = "train"
SPLIT = "split"  # the usual name of such a column


def with_splits(
    splits: str | None, table: Rows, id_: str, scans: Iterable[Scan], dropped: list[Drop], notes: list[str]
) -> list[Scan]:
    """Scans that know whether their person is tested, and in which set; who neither trains nor is tested is dropped.

    Args:
        splits: a column of the table, or a table with a column of ids and one named ``split``; None for no record.
        table, id_: the table of the people, and its column of ids.
        scans: of the people.
        dropped, notes: what is left out, and what the user should know, is added here.

    Raises:
        UsageError: no such column or table, a person in both sets, or nobody in one of them.
    """
    if not splits:
        if SPLIT in table.columns:
            way = f"with data.options.splits={SPLIT} it says who is tested"
            notes.append(f"{table.path.name}: column {SPLIT!r} was not used; {way}")
        return list(scans)
    words = _words(splits, table, id_)
    kept = []
    for scan in scans:
        word = words.get(find_person(words, scan.participant) or "", "")
        if part := _part_of(word):
            kept.append(scan._replace(test_set=word if part == TEST else ""))
        else:
            dropped.append(Drop(str(scan.path), "split is neither train nor test", word or scan.participant))
    for part, tested in ((TRAIN, False), (TEST, True)):
        if kept and all(bool(scan.test_set) != tested for scan in kept):
            raise ArgumentError("splits", splits, f"it leaves nobody in the set {part!r}; mend the record")
    return kept


def _words(splits: str, table: Rows, id_: str) -> dict[str, str]:
    """What the record says of each person."""
    column = splits.lower()
    if column not in table.columns:
        path = expand_home(splits)
        if not path.name.lower().endswith(TABLES):
            there = ", ".join(table.columns)
            rule = f"it is no table, and no column of {table.path}, which has: {there}"
            raise ArgumentError("splits", splits, rule)
        table = read_rows(path)
        id_, column = require_column(table, "id"), SPLIT
        if SPLIT not in table.columns:
            raise ArgumentError(
                "splits", splits, f"the table has no column {SPLIT!r}; it has: {', '.join(table.columns)}"
            )
    words: dict[str, str] = {}
    for row in table.rows:
        name = participant_id(row[id_])
        before = words.setdefault(name, row[column])
        if _part_of(before) != _part_of(row[column]):
            raise UsageError(
                f"{table.path} has {name} in {before!r} and in {row[column]!r}; nobody may be in two sets."
            )
    return words


def _part_of(word: str) -> str:
    """``train`` or ``test``; empty for whatever else.

    >>> _part_of("Training"), _part_of("internal_test"), _part_of("validation")
    ('train', 'test', '')
    """
    word = word.lower()
    return TRAIN if word.startswith("train") else TEST if TEST in word.replace("-", "_").split("_") else ""


def recorded_test(scans: Sequence[Scan]) -> np.ndarray | None:
    """The people of the test set, by their places in the order of names; None where the data have none of their own.

    Raises:
        UsageError: somebody is in one set with one scan, and in another with another.
    """
    sets: dict[str, str] = {}
    for scan in scans:
        if sets.setdefault(scan.participant, scan.test_set) != scan.test_set:
            both = " and ".join(f"the {name or 'training'} set" for name in (sets[scan.participant], scan.test_set))
            raise UsageError(f"{scan.participant} is in {both}; mend the table, so that the person is in one.")
    return np.flatnonzero([bool(sets[name]) for name in sorted(sets)]) if any(sets.values()) else None

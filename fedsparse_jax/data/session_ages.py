"""Ages at the sessions of a BIDS folder: the tables that may hold them, checked against one another.

They stand in ``sub-01/sub-01_sessions.tsv``, or in one ``sessions.tsv`` at the root with a column for the person; of
derivatives also in the raw folder. Their unit stands in a JSON file beside the table, or in ``sessions.json`` at the
root, which all tables inherit.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.table_files import Rows, read_rows
from fedsparse_jax.data.tables import SYNONYMS, Ages, find_column, find_person, participant_id, without_zeros

ROUNDING = 0.1  # years between two tables of sessions, which may be rounded differently
YEAR = 1.0  # below it, a whole number of years in participants.tsv agrees with an age at a session


class SessionAge(NamedTuple):
    """What one table says of one session of a person."""

    session: str  # without ``ses-``
    age: float | str  # years, or the reason why there is none
    written: str  # as it stands in the table
    table: Path


class SessionAges:
    """The ages at sessions of everybody in a data set."""

    def __init__(
        self, roots: Sequence[Path], cap_89: bool, age_col: str | None = None, of_people: Mapping | None = None
    ):
        """Finds the tables.

        Args:
            roots: the folder that is read and, of derivatives, the raw one.
            cap_89: take the age ``89+`` for 89.
            age_col: column of the ages, in tables that have it.
            of_people: ages at sessions that ``participants.tsv`` holds, by person.
        """
        self.roots, self.cap_89, self.age_col, self.of_people = roots, cap_89, age_col, of_people or {}
        self.age_col_is_there = False
        self._at_roots = [self._root_table(root) for root in roots]

    def __call__(self, participant: str, session: str) -> SessionAge | None:
        """The age of a person at a session; None if no table says.

        Raises:
            UsageError: tables differ.
        """
        known = [one for one in self.of(participant) if one.session == session]
        known = known or [one for one in self.of(participant) if without_zeros(one.session) == without_zeros(session)]
        ages = [one for one in known if not isinstance(one.age, str)]
        for other in ages[1:]:
            if abs(float(other.age) - float(ages[0].age)) > ROUNDING:
                raise UsageError(_differ(participant, f"ses-{session}", ages[0], other))
        return next(iter(ages or known), None)

    def any(self, participants: Iterable[str]) -> bool:
        """Whether a table has an age for one of some people."""
        told = [one for name in participants for one in self.of(name)]
        return any(not isinstance(one.age, str) for one in told)

    @functools.cache  # noqa: B019 - lives as long as a listing is made
    def of(self, participant: str) -> tuple[SessionAge, ...]:
        """All that the tables say of a person."""
        found = list(self.of_people.get(find_person(self.of_people, participant) or "", []))
        for root, at_root in zip(self.roots, self._at_roots, strict=True):
            found += at_root.get(find_person(at_root, participant) or "", [])
            file = root / participant / f"{participant}_sessions.tsv"
            if file.is_file():
                found += [told for _, told in self._read(file, root)]
        return tuple(found)

    def refuse_other(self, participant: str, first: str | None, age: SessionAge) -> None:
        """Refuses an age in ``participants.tsv``, that at the first session, if a person had it at no session.

        Args:
            participant: the person.
            first: the label of the first session, None if it cannot be told.
            age: as ``participants.tsv`` has it.

        Raises:
            UsageError: a table has another age at the first session; the sentence names both.
        """
        ages = [one for one in self.of(participant) if not isinstance(one.age, str)]
        of_first = [one for one in ages if one.session == first]
        if of_first and all(abs(float(one.age) - float(age.age)) >= YEAR for one in ages):
            raise UsageError(_differ(participant, f"ses-{first}", age, of_first[0]))

    def _root_table(self, root: Path) -> dict[str, list[SessionAge]]:
        by_person: dict[str, list[SessionAge]] = {}
        file = root / "sessions.tsv"
        for person, told in self._read(file, root) if file.is_file() else []:
            by_person.setdefault(person, []).append(told)
        return by_person

    def _read(self, file: Path, root: Path) -> list[tuple[str, SessionAge]]:
        table = read_rows(file)
        named = self.age_col if self.age_col and self.age_col.lower() in table.columns else None
        self.age_col_is_there |= named is not None
        when, years = _column(table, "session"), find_column(table, "age", named)
        who = _column(table, "id") if file.parent == root else None
        if years is None:
            return []
        ages = Ages(table, years, self.cap_89, inherited=(root / "sessions.json",))
        return [
            (
                participant_id(row[who]) if who else file.parent.name,
                SessionAge(row[when].removeprefix("ses-"), ages(row), row[years], table.path),
            )
            for row in table.rows
        ]


def _column(table: Rows, role: str) -> str:
    """The column of a role that a table of sessions must have; no option names it."""
    if column := find_column(table, role):
        return column
    there, usual = ", ".join(table.columns), SYNONYMS[role][0]
    raise UsageError(f"{table.path} has no column for the {role}; it has: {there}; rename one to {usual}.")


def _differ(participant: str, session: str, one: SessionAge, other: SessionAge) -> str:
    of_both = [f"{told.age:.4g} years ({told.written!r} in {told.table})" for told in (one, other)]
    return f"The age of {participant} at {session} is {of_both[0]}, and {of_both[1]}; mend one of the two, or its unit."

"""The table of the people: a row a person, or a row a session, with ages and whatever else is known of them."""

from pathlib import Path
from typing import NamedTuple

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.session_ages import SessionAge
from fedsparse_jax.data.table_files import Rows, expand_home, read_rows
from fedsparse_jax.data.tables import (
    MISSING,
    Ages,
    Drop,
    Sexes,
    find_column,
    find_person,
    participant_id,
    require_column,
    session_column,
    value_of,
    without_zeros,
)


class NamedColumns(NamedTuple):
    """Columns that the user names; None where they have usual names."""

    id: str | None = None
    age: str | None = None
    sex: str | None = None
    site: str | None = None
    session: str | None = None

    def of(self, table: Rows) -> "NamedColumns":
        """Without those that a table does not have."""
        return NamedColumns(*(name if name and name.lower() in table.columns else None for name in self))


class People(NamedTuple):
    """What a table says of everybody in it."""

    table: Rows
    rows: dict[str, dict[str, str]]  # by sub-<label>, with _id, _sex, _site and _session filled in
    ages: Ages | None  # of such a row; None where the table has no ages
    sessions: dict[str, list[SessionAge]]  # ages of rows that name a session
    dropped: list[Drop]
    notes: list[str]

    def age_at(self, participant: str, session: str) -> SessionAge:
        """The age of somebody of ``rows`` at a session; empty for a scan of no session."""
        row, label = self.rows[participant], without_zeros(session.removeprefix("ses-"))
        told = [one for one in self.sessions.get(participant, []) if without_zeros(one.session) == label]
        if told:
            return told[0]
        written, table = row[self.ages.column] if self.ages else "", Path()
        if len(self.sessions.get(participant, [])) > 1 or (session and row["_session"]):
            return SessionAge(session, "age at this session is unknown", written, table)
        return SessionAge(session, self.ages(row) if self.ages else "age is missing", written, table)


def read_people(table: Rows, named: NamedColumns, cap_89: bool) -> People:
    """Everybody in a table; conflicting repetitions are refused.

    Args:
        table: with a column of ids.
        named: columns, if not found by their usual names.
        cap_89: take the age ``89+`` for 89.

    Raises:
        UsageError: no column of ids, or two ages for one person at one time.
    """
    id_, age = require_column(table, "id", named.id), find_column(table, "age", named.age)
    sexes, site = Sexes(table, find_column(table, "sex", named.sex)), find_column(table, "site", named.site)
    when, notes = session_column(table, id_, named.session)
    ages = Ages(table, age, cap_89) if age else None
    people = People(table, {}, ages, {}, [], [*sexes.notes, *notes])
    first: dict[tuple[str, str], dict[str, str]] = {}
    for row in table.rows:
        if row[id_].lower() in MISSING:
            people.dropped.append(Drop(table.path.name, "id is missing", ", ".join(row.values())))
            continue
        name, session = participant_id(row[id_]), _label(value_of(row, when))
        row |= {"_id": name, "_sex": sexes(row), "_site": value_of(row, site), "_session": session}
        before = first.setdefault((name, session), row)
        if age and before[age] != row[age]:
            at = f" at ses-{session}" if session else ""
            ages_of_both = f"{before[age]}{at} in one row and {row[age]} in another"
            raise UsageError(f"{table.path} gives {name} the age {ages_of_both}; keep one row.")
        if before is not row:
            people.notes.append(f"{name} has more than one row")
        people.rows.setdefault(name, row)
        if session and ages and before is row:
            people.sessions.setdefault(name, []).append(SessionAge(session, ages(row), row[ages.column], table.path))
    return people


def read_participants(path: str, named: NamedColumns, cap_89: bool, need_age: bool = True) -> People:
    """Everybody in a table of ages that stands apart from the images; see `read_people`.

    Raises:
        ArgumentError: it has no ages, and ``need_age``.
    """
    table = read_rows(expand_home(path))
    columns = named.of(table)
    people = read_people(table, columns, cap_89)
    if people.ages is None and need_age:
        require_column(table, "age", columns.age)  # says what is missing
    return people


def find_row(people: People, participant: str) -> dict[str, str] | None:
    """The row of a person, lost leading zeros forgiven; None if there is none."""
    name = find_person(people.rows, participant)
    return None if name is None else people.rows[name]


def _label(session: str) -> str:
    return "" if session == "n/a" else session.removeprefix("ses-")

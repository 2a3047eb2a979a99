"""A CSV, TSV or Excel file with a row a scan, and the ages of its people, there or in a table of their own."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.grids import grid_of_option
from fedsparse_jax.data.participants import NamedColumns, People, find_row, read_participants
from fedsparse_jax.data.recorded_splits import with_splits
from fedsparse_jax.data.table_files import Rows, expand_home, read_rows
from fedsparse_jax.data.tables import (
    MISSING,
    Ages,
    Drop,
    Listing,
    Scan,
    Sexes,
    check_volumes,
    columns_of,
    find_column,
    finish_listing,
    participant_id,
    require_column,
    session_column,
    value_of,
    without_zeros,
)


def read_table(
    path: str | Path,
    *,
    root_path: str | None = None,
    participants: str | None = None,
    splits: str | None = None,
    id_col: str | None = None,
    age_col: str | None = None,
    path_col: str | None = None,
    sex_col: str | None = None,
    site_col: str | None = None,
    session_col: str | None = None,
    affine=None,
    volumes: int = 1,
    cap_89: bool = False,
    strict: bool = False,
    need_age: bool = True,
) -> Listing:
    """The scans of a table with a row a scan: id, age, path, and optionally sex, site and session.

    Args:
        path: the table.
        root_path: folder that relative paths start from; None for the table's own.
        participants: a table with the ages, sexes and sites of the people, where the rows of scans do not have them.
        splits: a column, or a table, that says who trains and who is tested; see `recorded_splits.with_splits`.
        id_col, age_col, path_col, sex_col, site_col, session_col: columns, if not found by their usual names; several
            columns of paths, joined by a comma such as ``t1w,flair``, are the channels of a scan.
        affine: how arrays (``.npy``) lie: a member of ``grids.GRIDS``, or the numbers of the matrix.
        volumes: of a four-dimensional file, which are then its channels.
        cap_89: take the age ``89+`` for 89.
        strict: refuse the table as soon as an age cannot be read.
        need_age: leave out a scan without an age; False where something else is predicted.

    Raises:
        UsageError: no table, a column missing or ambiguous, the same scan twice, or nothing left.
    """
    table = read_rows(Path(path))
    named = NamedColumns(id_col, age_col, sex_col, site_col, session_col)
    people = read_participants(participants, named, cap_89, need_age) if participants else None
    if people:
        _refuse_unknown(named, table, people.table)
    columns = _columns(table, named if people is None else named.of(table), path_col, people, cap_89, need_age)
    folder = expand_home(root_path) if root_path else table.path.parent
    names, zeros = _people_of_a_table(row[columns.id] for row in table.rows)
    check_volumes(volumes, columns.further)
    found = [_scan(row, columns, folder, names[participant_id(row[columns.id])]) for row in table.rows]
    scans = [
        one._replace(volumes=volumes, grid=grid_of_option(affine, one.path)) for one in found if isinstance(one, Scan)
    ]
    dropped = [one for one in found if isinstance(one, Drop)]
    _refuse_twice(table, scans)
    notes = [*columns.notes(), *zeros]
    scans = with_splits(splits, table, columns.id, scans, dropped, notes)
    return finish_listing(table.path, scans, dropped, notes, strict)


def _refuse_unknown(named: NamedColumns, table: Rows, other: Rows) -> None:
    """Refuses a column that the user names and neither table has."""
    for role, name in named._asdict().items():
        if name and name.lower() not in table.columns:
            find_column(other, role, name)


class _Columns(NamedTuple):
    """What the columns of a table of scans mean."""

    table: Rows
    id: str
    path: str
    further: list[str]  # columns of the paths of further channels
    session: str | None
    site: str | None
    sexes: Sexes
    ages: Ages | None  # None where `people` have them
    people: People | None
    passed_over: list[str]
    need_age: bool

    def notes(self) -> list[str]:
        ages, table = (self.people.ages, self.people.table) if self.people else (self.ages, self.table)
        notes = [*(ages.notes(table.path) if ages else []), *self.sexes.notes, *self.passed_over]
        return notes + (self.people.notes if self.people else [])

    def age(self, row: dict[str, str], known: dict[str, str] | None, session: str) -> float | str:
        """Years, or the reason why there are none; ``known`` is the person's row in the table of participants."""
        if self.ages:
            return self.ages(row)
        if self.people is None:
            return "age is missing"
        if known is None:
            return "no row in the table of participants"
        return self.people.age_at(known["_id"], session).age


def _columns(
    table: Rows, named: NamedColumns, path_col: str | None, people: People | None, cap_89: bool, need_age: bool
) -> _Columns:
    look_for = require_column if need_age else find_column
    age = None if people else look_for(table, "age", named.age)
    id_ = require_column(table, "id", named.id)
    session, passed_over = session_column(table, id_, named.session)
    path, *further = (require_column(table, "path", name.strip()) for name in (path_col or "").split(","))
    return _Columns(
        table=table,
        id=id_,
        path=path,
        further=further,
        session=session,
        site=find_column(table, "site", named.site),
        sexes=Sexes(table, find_column(table, "sex", named.sex)),
        ages=Ages(table, age, cap_89) if age else None,
        people=people,
        passed_over=passed_over,
        need_age=need_age,
    )


def _scan(row: dict[str, str], columns: _Columns, folder: Path, name: str) -> Scan | Drop:
    where, session = _header_of(folder / expand_home(row[columns.path])), value_of(row, columns.session)
    session = "" if session == "n/a" else session
    known = find_row(columns.people, name) if columns.people else None
    age = columns.age(row, known, session)
    age = float("nan") if isinstance(age, str) and not columns.need_age else age
    for what, column in (*(("path", path) for path in (columns.path, *columns.further)), ("id", columns.id)):
        age = f"{what} is missing" if row[column].lower() in MISSING else age
    if isinstance(age, str):
        return Drop(str(where), age, ", ".join(row.values()))
    there = lambda text, key: text if text != "n/a" or known is None else known[key]
    sex, site = there(columns.sexes(row), "_sex"), there(value_of(row, columns.site), "_site")
    channels = tuple(_header_of(folder / expand_home(row[column])) for column in columns.further)
    return Scan(where, name, session, age, sex, site, channels=channels, columns=columns_of(known, row))


def _people_of_a_table(ids: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The person behind each id: those that differ in leading zeros only are one, and a note says so."""
    spellings: dict[str, list[str]] = {}
    for name in dict.fromkeys(map(participant_id, ids)):
        spellings.setdefault(without_zeros(name), []).append(name)
    people = {name: max(same, key=len) for same in spellings.values() for name in same}
    notes = [f"taken for one person: {', '.join(same)}" for same in spellings.values() if len(same) > 1]
    return people, notes


def _header_of(path: Path) -> Path:
    """Of a pair of files the one that names the image, so that the pair counts once."""
    return path.with_suffix(".hdr") if path.suffix.lower() == ".img" else path


def _refuse_twice(table: Rows, scans: list[Scan]) -> None:
    seen: dict[str, Scan] = {}
    for scan in scans:
        before = seen.setdefault(os.path.realpath(scan.path), scan)
        if before is not scan:
            raise UsageError(f"{table.path} names {scan.path} twice, for {before.participant} and {scan.participant}.")

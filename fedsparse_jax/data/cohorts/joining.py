"""Files whose names say whom they are of, joined with the table that says how old people are.

Published cohorts keep the two apart. Whatever does not fit is dropped with its reason: a file without a row, a row
without a file, an age that is missing, or one that differs between the rows of one person.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data.bids import entities, first_session
from fedsparse_jax.data.grids import Grid
from fedsparse_jax.data.table_files import Rows, read_rows
from fedsparse_jax.data.tables import (
    MISSING,
    Ages,
    Drop,
    Listing,
    OtherLayout,
    Scan,
    Sexes,
    columns_of,
    count_reasons,
    find_column,
    finish_listing,
    participant_id,
    require_column,
    value_of,
    without_zeros,
)

ENDINGS = (".nii.gz", ".nii", ".hdr", ".mgz", ".mgh", ".npy")  # of a pair the header names the image


class Found(NamedTuple):
    """A file, and what its name says."""

    path: Path
    person: str  # the id, with or without sub-
    session: str = ""  # without ses-
    site: str = "n/a"
    mask: Path | None = None
    channels: tuple[Path, ...] = ()
    volumes: int = 1
    grid: Grid | None = None
    test_set: str = ""


class Roles(NamedTuple):
    """Which columns of a table play which role, if not found by their usual names, and how their cells are written."""

    id: str | None = None
    age: str | None = None
    site: str | None = None
    sex: str | None = None
    session: str | None = None  # no session is looked for where it is None
    missing: Collection[str] = ()  # what stands for a missing age


def files_below(root: Path) -> Iterator[Path]:
    """The images and arrays below a folder, in order; links are followed, hidden folders are not entered."""
    entered: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in entered else []
        if real not in entered:
            yield from (Path(folder, name) for name in sorted(files) if is_image(name))
        entered.add(real)


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image or an array."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def stem_of(name: str) -> str:
    """A file's name without the endings of images.

    >>> stem_of("IXI002-Guys-0828-T1.nii.gz"), stem_of("sub-1.5")
    ('IXI002-Guys-0828-T1', 'sub-1.5')
    """
    ending = next((end for end in ENDINGS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def person_and_session(stem: str, id_pattern: str | None) -> tuple[str, str] | None:
    """Whom a name is of: as BIDS has it, the whole name, or the group of a pattern; None where the pattern fits not.

    >>> person_and_session("sub-01_ses-a_T1w", None), person_and_session("scan7", None)
    (('01', 'a'), ('scan7', ''))
    >>> person_and_session("IXI002-Guys", r"IXI(\\d+)"), person_and_session("other", r"IXI(\\d+)")
    (('002', ''), None)
    """
    if not id_pattern:
        of = entities(stem) if stem.startswith("sub-") else {}
        return (of.get("sub", stem), of.get("ses", ""))
    try:
        pattern = re.compile(id_pattern)
    except re.error as error:
        raise ArgumentError("id_pattern", id_pattern, f"it is no regular expression ({error})") from None
    match = pattern.search(stem)
    return (match[pattern.groups and 1], "") if match else None


def check_folder(root: Path, what: str) -> Path:
    """The folder, or a sentence that says what it must be."""
    if not root.is_dir():
        raise ArgumentError("root", str(root), f"there is no such folder; set it to the {what}")
    return root


def find_table(root: Path, participants: str | None, *patterns: str) -> Path:
    """The table of ages: the one named, from here or from the root, or the only one of its usual names.

    Raises:
        ArgumentError: there is none, or there are several.
    """
    if participants:
        given = Path(participants).expanduser()
        place = next((path for path in (given, root / given) if path.is_file()), None)
        if place is None:
            raise ArgumentError("participants", participants, "there is no such table; set it to the table of ages")
        return place
    there = sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})
    usual = f" ({', '.join(patterns)})" if patterns else ""
    if not there:
        rule = f"{root} holds no table of ages{usual}; set it to one with the columns id and age"
        raise OtherLayout("participants", participants, rule)
    if len({path.stem for path in there}) > 1:
        several = ", ".join(path.name for path in there)
        raise ArgumentError("participants", participants, f"{root} holds several tables ({several}); set it to one")
    return there[0]


def read_ages(root: Path, participants: str | None, need_age: bool) -> Rows:
    """The table of ages of a layout that has none of its own; without rows where there is none and nobody needs it."""
    try:
        return read_rows(find_table(root, participants, "participants.tsv", "participants.csv"))
    except OtherLayout:
        if need_age:
            raise
        return Rows(root, ["id", "age"], [])


def join_table(
    root: Path,
    found: Iterable[Found],
    table: Rows,
    roles: Roles,
    *,
    names: str,
    cap_89: bool = False,
    strict: bool = False,
    need_age: bool = True,
    dropped: Iterable[Drop] = (),
) -> Listing:
    """The listing of files with the ages of a table.

    Several rows of one person count as one where they agree in what they know. Without sessions in the table its age is
    that of a person's first session.

    Args:
        root: where the files lie, for sentences.
        found: the files.
        table: the table.
        roles: of its columns.
        names: how files of the layout are called, for the sentence that there are none.
        cap_89, strict, need_age: as in `scan_tables.read_table`.
        dropped: what was left out before.

    Raises:
        UsageError: a column is missing, or nothing is left.
    """
    found, drops = list(found), list(dropped)
    if not found:
        left_out = f"; left out: {count_reasons(drops)}" if drops else ""
        raise OtherLayout("root", str(root), f"it holds no {names} that could be read{left_out}")
    reader = _People(table, roles, cap_89, need_age)
    scans: list[Scan] = []
    last = None
    sessions: dict[str, set[str]] = {}
    for file in found:
        sessions.setdefault(_key(file.person), set()).add(file.session)
    for file in sorted(found, key=lambda file: (_key(file.person), file.session, str(file.path))):
        same = (_key(file.person), file.session)
        outcome = Drop(str(file.path), "extra run or image") if same == last else reader.scan(file, sessions[same[0]])
        scans += [outcome] if isinstance(outcome, Scan) else []
        drops += [outcome] if isinstance(outcome, Drop) else []
        last = same
    drops += reader.nobody
    drops += [Drop(rows[0]["_id"], "no image") for key, rows in reader.rows.items() if key not in sessions]
    return finish_listing(root, scans, drops, reader.notes(), strict)


def _key(person: str) -> str:
    return without_zeros(participant_id(stem_of(person)))


class _People:
    """The rows of a table by person."""

    def __init__(self, table: Rows, roles: Roles, cap_89: bool, need_age: bool):
        self.table, self.roles, self.need_age = table, roles, need_age
        self.id = require_column(table, "id", roles.id)
        self.age = (require_column if need_age else find_column)(table, "age", roles.age)
        self.site = find_column(table, "site", roles.site)
        self.sexes = Sexes(table, find_column(table, "sex", roles.sex))
        self.rows: dict[str, list[dict[str, str]]] = {}
        self.nobody: list[Drop] = []
        for row in table.rows:
            if self.age and row[self.age] in roles.missing:
                row[self.age] = ""
            if row[self.id].lower() in MISSING:
                self.nobody.append(Drop(table.path.name, "id is missing", ", ".join(row.values())))
            else:
                row["_id"] = participant_id(stem_of(row[self.id]))
                self.rows.setdefault(_key(row[self.id]), []).append(row)
        self.ages = Ages(table, self.age, cap_89) if self.age else None

    def scan(self, file: Found, sessions: Collection[str]) -> Scan | Drop:
        """A file as a scan, with the age of its person at its session."""
        of_person: list[dict[str, str]] = self.rows.get(_key(file.person), [])
        name = max((row["_id"] for row in of_person), key=len, default=participant_id(file.person))
        rows = of_person
        if self.roles.session and file.session:
            label = lambda text: without_zeros(text.removeprefix("ses-") or "-")
            rows = [row for row in rows if label(row[self.roles.session]) == label(file.session)]
        age = self._age(file, rows, sessions)
        if isinstance(age, Drop):
            if self.need_age:
                return age
            age = float("nan")
        session = f"ses-{file.session}" if file.session else ""
        site = file.site if file.site != "n/a" else _agreed(value_of(row, self.site) for row in rows)
        sex = _agreed(map(self.sexes, rows))
        of: dict[str, Any] = dict(mask=file.mask, channels=file.channels, volumes=file.volumes, grid=file.grid)
        of |= dict(test_set=file.test_set, columns=columns_of(*rows))
        return Scan(file.path, name, session, age, sex, site, **of)

    def _age(self, file: Found, rows: list[dict[str, str]], sessions: Collection[str]) -> float | Drop:
        drop = lambda reason, detail: Drop(str(file.path), reason, detail)
        if _key(file.person) not in self.rows:
            return drop(f"no row in {self.table.path.name}", file.person)
        if not rows:
            return drop(f"no row of its session in {self.table.path.name}", file.session)
        if not (self.roles.session and file.session) and len(sessions) > 1:
            first = first_session(sessions)
            if first is None:
                return drop("age at which session is unknown", file.person)
            if file.session != first:
                return drop("age at a later session is unknown", file.person)
        ages = [self.ages(row) if self.ages else "age is missing" for row in rows]
        known = {round(age, 2): age for age in ages if not isinstance(age, str)}
        if len(known) != 1:
            reason = "age differs between the rows of one person" if known else str(ages[0])
            return drop(reason, " and ".join(value_of(row, self.age) for row in rows))
        return known.popitem()[1]

    def notes(self) -> list[str]:
        """What the user should know about the table."""
        several = 0 if self.roles.session else sum(len(rows) > 1 for rows in self.rows.values())
        notes = [f"{self.table.path.name}: {several} people have more than one row"] if several else []
        return [*(self.ages.notes(self.table.path) if self.ages else []), *self.sexes.notes, *notes]


def _agreed(told: Iterable[str]) -> str:
    """What all say who know it; n/a where they say different things."""
    known = set(told) - {"n/a"}
    return known.pop() if len(known) == 1 else "n/a"


def usual_roles(table: Rows, id_col: str | None, age_col: str | None, site_col: str | None) -> Roles:
    """The roles of the columns of a table that no cohort has shaped."""
    return Roles(id=id_col, age=age_col, site=site_col, session=find_column(table, "session"))


def refuse_unknown(argument: str, value: str, known: Iterable[str]) -> None:
    """Refuses a choice that there is not."""
    if value not in (names := list(known)):
        raise ArgumentError(argument, value, f"it must be one of {', '.join(names)}")


def need_rows(root: Path, table: Rows, *columns: str) -> None:
    """Refuses the table of a folder that lacks columns of a cohort."""
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        there = ", ".join(table.columns[:12])
        rule = f"{table.path} has no column {lacking[0]!r}; it has: {there}; take the table of the cohort"
        raise OtherLayout("root", str(root), rule)

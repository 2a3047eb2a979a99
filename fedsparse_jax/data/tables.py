"""From a table to the list of scans with their ages, and what every reader of tables needs.

Whatever is left out is listed with its reason: a cohort that shrinks in silence is a wrong result.
"""

import csv
import json
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data.grids import Grid, grid_of_option
from fedsparse_jax.data.spreadsheets import is_spreadsheet, sheet_as_csv

SYNONYMS = {
    "id": ("participant_id", "subject_id", "eid", "id", "subject", "sub_id", "subid"),
    "age": ("age", "age_at_scan", "age_years"),
    "path": ("path", "file_name", "filename", "file", "filepath", "t1w", "9dof_2mm_vol"),
    "site": ("site", "scanner", "client", "site_id"),
    "sex": ("sex", "gender"),
    "session": ("session", "session_id", "ses"),
}
UNITS = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}  # years, months, weeks, days
UNIT = re.compile(r"(y)(ea)?(rs?)?|(m)(o|on|onths?)?|(w)(k|eeks?)?|(d)(ays?)?")
MISSING = {"", "n/a", "na", "nan", "null", "none", "-"}


class Scan(NamedTuple):
    """One image of one person at one time."""

    path: Path
    participant: str  # sub-<label>
    session: str  # ses-<label>, empty if there is none
    age: float  # years
    sex: str  # F, M or n/a
    site: str  # n/a if unknown
    mask: Path | None = None  # brain mask beside a derivative
    channels: tuple[Path, ...] = ()  # further images of the same head, each a channel behind the first
    volumes: int = 1  # of a 4-D file, whose volumes are the channels
    grid: Grid | None = None  # how an array lies that does not say it itself
    test_set: str = ""  # the cohort's own test set that the person is in; empty for training, and where there is none

    @property
    def num_channels(self) -> int:
        """Images of one head that training reads."""
        return self.volumes + len(self.channels)


class Drop(NamedTuple):
    """What was left out and why."""

    what: str  # file or participant
    reason: str  # short, the same for all that share it
    detail: str = ""


class Listing(NamedTuple):
    """What there is to read."""

    scans: tuple[Scan, ...]
    dropped: tuple[Drop, ...] = ()
    notes: tuple[str, ...] = ()


class Rows(NamedTuple):
    """A TSV or CSV file: lower-case column names in order, and rows as dicts of stripped strings."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]


def parse_age(text: str, *, unit_years: float = 1.0, cap_89: bool = False, comma: bool = False) -> float | str:
    """An age in years, or the reason why the text is none.

    Args:
        text: as it stands in the table.
        unit_years: length of the unit in years; 1/12 for months.
        cap_89: take ``89+`` for 89.
        comma: the decimal comma is in use.

    >>> parse_age("26.5"), parse_age("061Y"), parse_age("18-38"), parse_age("89+"), parse_age("18", unit_years=1 / 12)
    (26.5, 61.0, 'age is a range', 'age is 89+', 1.5)
    >>> parse_age("018M")
    1.5
    """
    text = text.strip()
    if text.lower() in MISSING:
        return "age is missing"
    if text.rstrip() == "89+":
        return 89.0 if cap_89 else "age is 89+"
    if re.fullmatch(r"\d+(\.\d+)?\s*-\s*\d+(\.\d+)?", text):
        return "age is a range"
    if comma:
        text = text.replace(",", ".")
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([YMWDymwd]?)", text)
    if not match:
        return "age is not a number"
    age = float(match[1]) * (UNITS[match[2].lower()] if match[2] else unit_years)
    return age if 0 < age < 125 else "age is impossible"


def _uses_comma(texts: Iterable[str]) -> bool:
    """Whether every age that is there is written with a decimal comma."""
    there = [text.strip() for text in texts if text.strip().lower() not in MISSING]
    return bool(there) and all(re.fullmatch(r"\d+,\d+", text) for text in there)


def _unit_years(table: Path, column: str, inherited: Iterable[Path] = ()) -> float:
    """Length of the ages' unit in years, from the ``Units`` of the JSON file beside the table, or one it inherits."""
    units = [_unit_in(sidecar, column) for sidecar in (table.with_suffix(".json"), *inherited) if sidecar.exists()]
    return next((unit for unit in units if unit), 1.0)


def _unit_in(sidecar: Path, column: str) -> float | None:
    """The unit that a JSON file gives a column; None where it gives none."""
    try:
        fields = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"{sidecar} is not valid JSON ({error}); mend or remove it.") from error
    units = {name.lower(): entry for name, entry in fields.items()}.get(column)
    if not isinstance(units, dict) or "Units" not in units:
        return None
    unit = str(units["Units"]).lower().strip()
    if not UNIT.fullmatch(unit):
        raise UsageError(f"{sidecar} gives {column} in {unit!r}; use years, months, weeks or days.")
    return UNITS[unit[0]]


def read_rows(path: Path) -> Rows:
    """Reads a table, whatever its separator, line ends and capitals; refuses what cannot be read surely."""
    if not path.is_file():
        raise UsageError(f"There is no table {path}; check the path.")
    try:
        text = sheet_as_csv(path) if is_spreadsheet(path) else path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    if "\0" in text:
        raise UsageError(f"{path} holds characters of code 0; save it as UTF-8 text.")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"{path} is empty; it needs a header and a row a person.")
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=lines[0].count)
    if separator not in lines[0] and len(re.split(r"[,;\t]", lines[0])) > 1:
        raise UsageError(f"{path} has columns separated otherwise than by tabs; save it tab-separated.")
    header = [name.strip().lower() for name in next(csv.reader(lines[:1], delimiter=separator))]
    header[0] = header[0] or "row number"  # as pandas writes it
    twice = {name for name in header if header.count(name) > 1}
    if twice or "" in header:
        which = ", ".join(sorted(twice)) or "blank"
        raise UsageError(f"{path} has a blank or repeated column name ({which}); rename it.")
    rows = []
    for number, fields in enumerate(csv.reader(lines[1:], delimiter=separator), 2):
        if len(fields) > len(header):
            raise UsageError(
                f"{path}, row {number}, has {len(fields)} cells under {len(header)} columns; quote the cell that holds "
                f"a {separator!r}."
            )
        fields = [field.strip() for field in fields] + [""] * (len(header) - len(fields))
        rows.append(dict(zip(header, fields, strict=False)))
    return Rows(path, header, rows)


def find_column(table: Rows, role: str, named: str | None = None) -> str | None:
    """The column that plays a role: the one named, or the only synonym that the table has."""
    if named:
        if named.lower() not in table.columns:
            raise UsageError(f"{table.path} has no column {named!r}; it has: {', '.join(table.columns)}.")
        return named.lower()
    candidates = [name for name in SYNONYMS[role] if name in table.columns]
    if len(candidates) > 1 and role in ("id", "age", "path"):
        several = ", ".join(candidates)
        raise UsageError(f"{table.path} has several columns for the {role} ({several}); name one by {role}_col.")
    return candidates[0] if candidates else None


def require_column(table: Rows, role: str, named: str | None = None) -> str:
    """The same, of a role that must be played."""
    column = find_column(table, role, named)
    if column is None:
        there = ", ".join(table.columns)
        raise UsageError(f"{table.path} has no column for the {role}; it has: {there}; name one by {role}_col.")
    return column


def participant_id(text: str) -> str:
    """``sub-<label>`` of an id, with or without its prefix."""
    return text if text.startswith("sub-") else f"sub-{text}"


def without_zeros(label: str) -> str:
    """An id or a session without the leading zeros that spreadsheets lose.

    >>> without_zeros("sub-007"), without_zeros("01"), without_zeros("sub-A01")
    ('sub-7', '1', 'sub-A01')
    """
    prefix, number = ("sub-", label[4:]) if label.startswith("sub-") else ("", label)
    return prefix + (number.lstrip("0") or number[-1:])


def find_person(names: Collection[str], participant: str) -> str | None:
    """A person among names; lost leading zeros are forgiven where only one name can be meant."""
    if participant in names:
        return participant
    candidates = [name for name in names if without_zeros(name) == without_zeros(participant)]
    return candidates[0] if len(candidates) == 1 else None


def sex_of(text: str) -> str:
    """F, M or n/a."""
    return {"f": "F", "w": "F", "m": "M"}.get(text[:1].lower(), "n/a")


def value_of(row: dict[str, str], column: str | None) -> str:
    """A cell's text, n/a where it is missing."""
    text = row.get(column, "") if column else ""
    return "n/a" if text.lower() in MISSING else text


class Ages:
    """The ages of one table, parsed under what holds for the whole table."""

    def __init__(self, table: Rows, column: str, cap_89: bool, inherited: Iterable[Path] = ()):
        """``inherited`` are JSON files that hold the unit where the one beside the table does not."""
        self.column = column
        self.cap_89 = cap_89
        self.comma = _uses_comma(row[column] for row in table.rows)
        self.unit = _unit_years(table.path, column, inherited)

    def __call__(self, row: dict[str, str]) -> float | str:
        """The age in years, or the reason why there is none."""
        return parse_age(row[self.column], unit_years=self.unit, cap_89=self.cap_89, comma=self.comma)

    def notes(self, path: Path) -> list[str]:
        """What the user should know about how the ages were read."""
        notes = [f"{path.name}: ages have a decimal comma"] if self.comma else []
        return notes + ([f"{path.name}: ages converted to years"] if self.unit != 1 else [])


def finish_listing(source: Path, scans: list[Scan], dropped: list[Drop], notes: list[str], strict: bool) -> Listing:
    """The listing; refuses it if nothing is left, or if something needs the user's decision."""
    unreadable = [drop for drop in dropped if drop.reason.startswith("age")]
    if strict and unreadable:
        first = unreadable[0]
        raise UsageError(f"{source}: {first.what}: {first.reason} ({first.detail!r}); mend the table, or drop strict.")
    if any(drop.reason == "age is 89+" for drop in dropped):
        raise ArgumentError("cap_89", False, f"{source} holds ages written '89+'; set it to True to take them for 89")
    if not scans:
        reasons = count_reasons(dropped)
        raise UsageError(f"{source}: no scan is left ({reasons}); mend the table of participants.")
    return Listing(tuple(scans), tuple(dropped), tuple(notes))


def count_reasons(dropped: Iterable[Drop]) -> str:
    """Counts by reason, the most frequent first, such as ``3 x age is missing, 1 x no T1w scan``."""
    counts: dict[str, int] = {}
    for drop in dropped:
        counts[drop.reason] = counts.get(drop.reason, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} x {reason}" for reason, count in ordered) or "nothing dropped"


def read_table(
    path: str | Path,
    *,
    root_path: str | None = None,
    id_col: str | None = None,
    age_col: str | None = None,
    path_col: str | None = None,
    site_col: str | None = None,
    affine=None,
    volumes: int = 1,
    cap_89: bool = False,
    strict: bool = False,
) -> Listing:
    """The scans of a CSV or TSV file with a row a scan: id, age, path, and optionally sex, site and session.

    Args:
        path: the table.
        root_path: folder that relative paths start from; None for the table's own.
        id_col, age_col, path_col, site_col: columns, if not found by their usual names; several columns of paths,
            joined by a comma such as ``t1w,flair``, are the channels of a scan.
        affine: how arrays (``.npy``) lie: a member of ``grids.GRIDS``, or the numbers of the matrix.
        volumes: of a four-dimensional file, which are then its channels.
        cap_89: take the age ``89+`` for 89.
        strict: refuse the table as soon as an age cannot be read.

    Raises:
        UsageError: no table, a column missing or ambiguous, the same scan twice, or nothing left.
    """
    table = read_rows(Path(path))
    id_, age = require_column(table, "id", id_col), require_column(table, "age", age_col)
    file, *further = (require_column(table, "path", name.strip()) for name in (path_col or "").split(","))
    check_volumes(volumes, further)
    sex, session = find_column(table, "sex"), find_column(table, "session")
    site = find_column(table, "site", site_col)
    folder = Path(root_path).expanduser() if root_path else table.path.parent
    ages = Ages(table, age, cap_89)
    scans: list[Scan] = []
    dropped: list[Drop] = []
    names, notes = _people_of_a_table(row[id_] for row in table.rows)
    for row in table.rows:
        name, years, where = names[participant_id(row[id_])], ages(row), _header_of(folder / row[file])
        lacking = any(row[column].lower() in MISSING for column in (file, *further))
        if row[id_].lower() in MISSING or lacking or isinstance(years, str):
            reason = "id is missing" if row[id_].lower() in MISSING else "path is missing"
            dropped.append(Drop(str(where), years if isinstance(years, str) else reason, ", ".join(row.values())))
            continue
        when = "" if value_of(row, session) == "n/a" else value_of(row, session)
        scan = Scan(where, name, when, years, sex_of(value_of(row, sex)), value_of(row, site))
        channels = tuple(_header_of(folder / row[column]) for column in further)
        scans.append(scan._replace(channels=channels, volumes=volumes, grid=grid_of_option(affine, where)))
    _refuse_twice(table, scans)
    return finish_listing(table.path, scans, dropped, ages.notes(table.path) + notes, strict)


def check_volumes(volumes: int, further: Collection = ()) -> None:
    """Refuses a number of volumes that is none, and channels that come from files and from volumes at once."""
    if volumes < 1 or (volumes > 1 and further):
        rule = "the channels are several files already; set it to 1" if further else "a file has at least one volume"
        raise ArgumentError("volumes", volumes, rule)


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

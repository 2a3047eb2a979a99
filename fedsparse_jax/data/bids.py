"""From a BIDS folder or a table to the list of scans with their ages; no image is read here.

Whatever is left out is listed with its reason: a cohort that shrinks in silence is a wrong result.
"""

import csv
import fnmatch
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fedsparse_jax.types import UsageError

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".mgh")
NOT_RAW = {"sourcedata", "derivatives", "code", "phenotype", "stimuli"}
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


class _Table(NamedTuple):
    """A TSV or CSV file: lower-case column names in order, and rows as dicts of stripped strings."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]


# --- ages ---------------------------------------------------------------------------------------


def parse_age(
    text: str, *, unit_years: float = 1.0, cap_89: bool = False, comma: bool = False
) -> float | str:
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


def _unit_years(table: Path, column: str) -> float:
    """Length of the ages' unit in years, from the ``Units`` of the JSON file beside the table."""
    sidecar = table.with_suffix(".json")
    if not sidecar.exists():
        return 1.0
    try:
        fields = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"{sidecar} is not valid JSON ({error}); mend or remove it.") from error
    units = {name.lower(): entry for name, entry in fields.items()}.get(column)
    unit = str(units.get("Units", "years") if isinstance(units, dict) else "years").lower().strip()
    if not UNIT.fullmatch(unit):
        raise UsageError(f"{sidecar} gives {column} in {unit!r}; use years, months, weeks or days.")
    return UNITS[unit[0]]


# --- tables -------------------------------------------------------------------------------------


def _read_table(path: Path) -> _Table:
    if not path.is_file():
        raise UsageError(f"There is no table {path}; check the path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"{path} is empty; it needs a header and a row a person.")
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=lines[0].count)
    if separator not in lines[0] and len(re.split(r"[,;\t]", lines[0])) > 1:
        raise UsageError(f"{path} has columns separated otherwise than by tabs; save it tab-separated.")
    header = [name.strip().lower() for name in next(csv.reader(lines[:1], delimiter=separator))]
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
    return _Table(path, header, rows)


def _column_or_none(table: _Table, role: str, named: str | None = None) -> str | None:
    """The column that plays a role: the one named, or the only synonym that the table has."""
    if named:
        if named.lower() not in table.columns:
            raise UsageError(f"{table.path} has no column {named!r}; it has: {', '.join(table.columns)}.")
        return named.lower()
    found = [name for name in SYNONYMS[role] if name in table.columns]
    if len(found) > 1 and role in ("id", "age", "path"):
        several = ", ".join(found)
        raise UsageError(
            f"{table.path} has several columns for the {role} ({several}); name one by {role}_col."
        )
    return found[0] if found else None


def _column(table: _Table, role: str, named: str | None = None) -> str:
    """The same, of a role that must be played."""
    column = _column_or_none(table, role, named)
    if column is None:
        there = ", ".join(table.columns)
        raise UsageError(
            f"{table.path} has no column for the {role}; it has: {there}; name one by {role}_col."
        )
    return column


def _participant(text: str) -> str:
    return text if text.startswith("sub-") else f"sub-{text}"


def _find(people: dict[str, dict[str, str]], participant: str) -> dict[str, str] | None:
    """The row of a person; lost leading zeros are forgiven where only one row can be meant."""
    if participant in people:
        return people[participant]
    label = participant.removeprefix("sub-").lstrip("0")
    candidates = [row for name, row in people.items() if name.removeprefix("sub-").lstrip("0") == label]
    return candidates[0] if len(candidates) == 1 else None


def _sex(text: str) -> str:
    return {"f": "F", "w": "F", "m": "M"}.get(text[:1].lower(), "n/a")


def _value(row: dict[str, str], column: str | None) -> str:
    text = row.get(column, "") if column else ""
    return "n/a" if text.lower() in MISSING else text


class _Ages:
    """The ages of one table, parsed under what holds for the whole table."""

    def __init__(self, table: _Table, column: str, cap_89: bool):
        self.column = column
        self.cap_89 = cap_89
        self.comma = _uses_comma(row[column] for row in table.rows)
        self.unit = _unit_years(table.path, column)

    def __call__(self, row: dict[str, str]) -> float | str:
        return parse_age(row[self.column], unit_years=self.unit, cap_89=self.cap_89, comma=self.comma)

    def notes(self, path: Path) -> list[str]:
        """What the user should know about how the ages were read."""
        notes = [f"{path.name}: ages have a decimal comma"] if self.comma else []
        return notes + ([f"{path.name}: ages converted to years"] if self.unit != 1 else [])


# --- BIDS ---------------------------------------------------------------------------------------


def entities(name: str) -> dict[str, str]:
    """The ``key-value`` pairs of a BIDS file name, and its ``suffix``.

    >>> entities("sub-01_ses-a_run-2_T1w.nii.gz")
    {'sub': '01', 'ses': 'a', 'run': '2', 'suffix': 'T1w'}
    """
    stem = name.split(".")[0]
    *pairs, suffix = stem.split("_")
    return {**dict(pair.split("-", 1) for pair in pairs if "-" in pair), "suffix": suffix}


def read_bids(
    root: str | Path,
    *,
    space: str | None = None,
    desc: str | None = None,
    cap_89: bool = False,
    strict: bool = False,
    id_col: str | None = None,
    age_col: str | None = None,
    site_col: str | None = None,
) -> Listing:
    """The T1w scans of a BIDS folder, raw or of derivatives, with the ages of its tables.

    An age in ``sub-*_sessions.tsv`` wins over the one in ``participants.tsv``; of several runs of a session the
    lowest is taken.

    Args:
        root: the folder with ``participants.tsv``; a folder of derivatives may have it in the raw folder above.
        space: only scans with this ``space-``.
        desc: only scans with this ``desc-``; None takes ``preproc`` where there is one.
        cap_89: take the age ``89+`` for 89.
        strict: refuse the folder as soon as an age cannot be read.
        id_col, age_col, site_col: columns of ``participants.tsv``, if not found by their usual names.

    Raises:
        UsageError: no folder, no participants, no ages, no scans, or nothing left.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"There is no folder {root}; check data.root.")
    table = _read_table(_participants_file(root))
    people, dropped, notes = _people(table, id_col, age_col, site_col)
    files = _select(_walk(root), space, desc)
    if not files:
        wanted = "".join(f" with {k}-{v}" for k, v in (("space", space), ("desc", desc)) if v)
        raise UsageError(f"{root} holds no T1w scan{wanted} (sub-*/**/sub-*_T1w.nii.gz); check data.root.")
    ages = _Ages(table, _column(table, "age", age_col), cap_89)
    scans: list[Scan] = []
    first: dict[str, str] = {}
    for path, extra in files:
        of = entities(path.name)
        later = first.setdefault(of["sub"], of.get("ses", "")) != of.get("ses", "")
        found = (
            _scan(path, people, ages, cap_89, later) if not extra else Drop(str(path), "extra run or image")
        )
        scans += [found] if isinstance(found, Scan) else []
        dropped += [found] if isinstance(found, Drop) else []
    owners = [_find(people, "sub-" + entities(path.name)["sub"]) for path, _ in files]
    seen = {row["_id"] for row in owners if row}
    dropped += [Drop(name, "no T1w scan") for name in people if name not in seen]
    notes += ages.notes(table.path) + _mixed_spaces(scans)
    return _finish(root, scans, dropped, notes, strict)


def _participants_file(root: Path) -> Path:
    for folder in (root, root.parent.parent if root.parent.name == "derivatives" else root):
        if (folder / "participants.tsv").is_file():
            return folder / "participants.tsv"
    raise UsageError(f"{root} has no participants.tsv; add one with the columns participant_id and age.")


def _people(
    table: _Table, id_col, age_col, site_col
) -> tuple[dict[str, dict[str, str]], list[Drop], list[str]]:
    """Rows by person, with ``_id``, ``_sex`` and ``_site`` filled in; conflicting repetitions are refused."""
    id_, age = _column(table, "id", id_col), _column(table, "age", age_col)
    sex, site = _column_or_none(table, "sex"), _column_or_none(table, "site", site_col)
    people: dict[str, dict[str, str]] = {}
    dropped, notes = [], []
    for row in table.rows:
        if row[id_].lower() in MISSING:
            dropped.append(Drop(table.path.name, "id is missing", ", ".join(row.values())))
            continue
        name = _participant(row[id_])
        row |= {"_id": name, "_sex": _sex(_value(row, sex)), "_site": _value(row, site)}
        before = people.setdefault(name, row)
        if before[age] != row[age]:
            raise UsageError(
                f"{table.path} gives {name} the age {before[age]} in one row and {row[age]} in another; keep one row."
            )
        if before is not row:
            notes.append(f"{name} has more than one row")
    return people, dropped, notes


def _walk(root: Path) -> Iterator[Path]:
    """All T1w images below ``sub-*`` folders; ignored, hidden and foreign folders are not entered."""
    ignored = _ignore_patterns(root)
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and not (here == root and f in NOT_RAW)
        )
        for name in sorted(files):
            path = here / name
            relative = path.relative_to(root).as_posix()
            if is_t1w(name) and not any(fnmatch.fnmatch(relative, pattern) for pattern in ignored):
                yield path


def _ignore_patterns(root: Path) -> list[str]:
    file = root / ".bidsignore"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    patterns = [line.strip().lstrip("/") for line in lines if line.strip() and not line.startswith("#")]
    return [p + "*" if p.endswith("/") else p for p in patterns] + [f"*/{p}" for p in patterns]


def is_t1w(name: str) -> bool:
    """Whether a file name is that of a T1w image; of an ``.hdr``/``.img`` pair only the header counts.

    >>> is_t1w("sub-01_T1w.NII.GZ"), is_t1w("sub-01_T1w.img"), is_t1w("sub-01_T1w.json"), is_t1w("T1w.nii")
    (True, False, False, False)
    """
    lower = name.lower()
    image = lower.endswith(SUFFIXES) and not lower.endswith(".img")
    return name.startswith("sub-") and image and name.split(".")[0].endswith("_T1w")


def _select(paths: Iterable[Path], space: str | None, desc: str | None) -> list[tuple[Path, bool]]:
    """Scans that fit the filters, each with whether it is one too many for its session."""
    fitting = []
    for path in paths:
        of = entities(path.name)
        if (space is None or of.get("space") == space) and (desc is None or of.get("desc") == desc):
            fitting.append((of["sub"], of.get("ses", ""), _preference(of), path))
    fitting.sort(key=lambda item: item[:3] + (str(item[3]),))
    result, last = [], None
    for sub, ses, _, path in fitting:
        result.append((path, (sub, ses) == last))
        last = (sub, ses)
    return result


def _preference(of: dict[str, str]) -> tuple:
    """Sorts the scans of a session: preprocessed before not, template space before native, then the lowest run."""
    run = of.get("run", "0")
    return (of.get("desc") != "preproc", "space" not in of, int(run) if run.isdigit() else 0)


def _scan(path: Path, people, ages: _Ages, cap_89: bool, later: bool) -> Scan | Drop:
    """One file with its age; the age of ``participants.tsv`` is that of the first session alone."""
    of = entities(path.name)
    participant, session = f"sub-{of['sub']}", f"ses-{of['ses']}" if "ses" in of else ""
    row = _find(people, participant)
    if row is None:
        return Drop(str(path), "no row in participants.tsv", participant)
    age = _session_age(path, participant, session, cap_89)
    if age is None and later:
        return Drop(str(path), "age at a later session is unknown", participant)
    age = ages(row) if age is None else age
    if isinstance(age, str):
        return Drop(str(path), age, row[ages.column])
    return Scan(path, row["_id"], session, age, row["_sex"], row["_site"], _mask(path))


def _session_age(path: Path, participant: str, session: str, cap_89: bool) -> float | str | None:
    """The age in ``sub-*_sessions.tsv``; None if the table does not say."""
    if not session:
        return None
    folder = next((parent for parent in path.parents if parent.name == participant), path.parent)
    file = folder / f"{participant}_sessions.tsv"
    if not file.is_file():
        return None
    table = _read_table(file)
    column, key = _column_or_none(table, "age"), _column(table, "session")
    rows = [row for row in table.rows if row[key].removeprefix("ses-") == session.removeprefix("ses-")]
    if column is None or not rows or rows[0][column].lower() in MISSING:
        return None
    return _Ages(table, column, cap_89)(rows[0])


def _mixed_spaces(scans: list[Scan]) -> list[str]:
    spaces = sorted({entities(scan.path.name).get("space", "native") for scan in scans})
    return (
        [f"scans are in different spaces ({', '.join(spaces)}): choose one by space"]
        if len(spaces) > 1
        else []
    )


def _mask(path: Path) -> Path | None:
    """``..._desc-brain_mask`` beside ``..._desc-preproc_T1w``, if it is there."""
    if "_desc-preproc_T1w" not in path.name:
        return None
    mask = path.with_name(path.name.replace("_desc-preproc_T1w", "_desc-brain_mask"))
    return mask if mask.is_file() or mask.is_symlink() else None  # a broken link is refused when it is read


def _finish(source: Path, scans: list[Scan], dropped: list[Drop], notes: list[str], strict: bool) -> Listing:
    unreadable = [drop for drop in dropped if drop.reason.startswith("age")]
    if strict and unreadable:
        first = unreadable[0]
        raise UsageError(
            f"{source}: {first.what}: {first.reason} ({first.detail!r}); mend the table, or drop strict."
        )
    if any(drop.reason == "age is 89+" for drop in dropped):
        raise UsageError(
            f"{source} holds ages written '89+'; set data.options.cap_89=True to take them for 89."
        )
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


# --- CSV and TSV --------------------------------------------------------------------------------


def read_table(
    path: str | Path,
    *,
    root_path: str | None = None,
    id_col: str | None = None,
    age_col: str | None = None,
    path_col: str | None = None,
    site_col: str | None = None,
    cap_89: bool = False,
    strict: bool = False,
) -> Listing:
    """The scans of a CSV or TSV file with a row a scan: id, age, path, and optionally sex, site and session.

    Args:
        path: the table.
        root_path: folder that relative paths start from; None for the table's own.
        id_col, age_col, path_col, site_col: columns, if not found by their usual names.
        cap_89: take the age ``89+`` for 89.
        strict: refuse the table as soon as an age cannot be read.

    Raises:
        UsageError: no table, a column missing or ambiguous, the same scan twice, or nothing left.
    """
    table = _read_table(Path(path))
    id_, age, file = (
        _column(table, role, named) for role, named in (("id", id_col), ("age", age_col), ("path", path_col))
    )
    sex, session = _column_or_none(table, "sex"), _column_or_none(table, "session")
    site = _column_or_none(table, "site", site_col)
    folder = Path(root_path).expanduser() if root_path else table.path.parent
    ages = _Ages(table, age, cap_89)
    scans: list[Scan] = []
    dropped: list[Drop] = []
    for row in table.rows:
        name, years, where = _participant(row[id_]), ages(row), _header_of(folder / row[file])
        if row[id_].lower() in MISSING or row[file].lower() in MISSING or isinstance(years, str):
            reason = "id is missing" if row[id_].lower() in MISSING else "path is missing"
            dropped.append(
                Drop(str(where), years if isinstance(years, str) else reason, ", ".join(row.values()))
            )
            continue
        when = "" if _value(row, session) == "n/a" else _value(row, session)
        scans.append(Scan(where, name, when, years, _sex(_value(row, sex)), _value(row, site)))
    _refuse_twice(table, scans)
    return _finish(table.path, scans, dropped, ages.notes(table.path), strict)


def _header_of(path: Path) -> Path:
    """Of a pair of files the one that names the image, so that the pair counts once."""
    return path.with_suffix(".hdr") if path.suffix.lower() == ".img" else path


def _refuse_twice(table: _Table, scans: list[Scan]) -> None:
    seen: dict[Path, Scan] = {}
    for scan in scans:
        before = seen.setdefault(scan.path, scan)
        if before is not scan:
            raise UsageError(
                f"{table.path} names {scan.path} twice, for {before.participant} and {scan.participant}."
            )

"""From a table to the list of scans with their ages, and what every reader of tables needs.

Whatever is left out is listed with its reason: a cohort that shrinks in silence is a wrong result.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data.grids import Grid
from fedsparse_jax.data.sidecars import UNITS, levels_of, unit_years
from fedsparse_jax.data.table_files import Rows

SYNONYMS = {  # of several that a table has for the site, sex or session, the first counts
    "id": ("participant_id", "subject_id", "eid", "id", "subject", "sub_id", "subid", "ixi_id"),
    "age": ("age", "age_at_scan", "age_years"),
    "path": (
        *("path", "file_name", "filename", "file", "filepath", "t1w", "9dof_2mm_vol"),
        *("t1_local_path", "image", "img"),
    ),
    "site": (
        *("site", "scanner", "client", "site_id", "sitexacq", "center", "centre", "institution_id"),
        *("study", "dataset"),
    ),
    "sex": ("sex", "gender", "m/f", "sex_id", "sex_id (1=m, 2=f)"),
    "session": ("session", "session_id"),
}
SES = "ses"  # see `session_column`
ISO_5218 = {"1": "M", "2": "F"}  # 0 stands for not known there, and 9 for not applicable
MISSING = {"", "n/a", "na", "nan", "null", "none", "-"}


class Scan(NamedTuple):
    """One image of one person at one time."""

    path: Path
    participant: str  # sub-<label>
    session: str  # ses-<label>, empty if there is none
    age: float  # years; NaN where nobody needs it and no table has it
    sex: str  # F, M or n/a
    site: str  # n/a if unknown
    mask: Path | None = None  # brain mask beside a derivative
    test_set: str = ""  # the data's own test set that the person is in; empty for training, and where there is none
    columns: Mapping[str, str] = MappingProxyType({})  # what the tables say of the person, by column in small letters
    channels: tuple[Path, ...] = ()  # further images of the same head, each a channel behind the first
    volumes: int = 1  # of a 4-D file, whose volumes are the channels
    grid: Grid | None = None  # how an array lies that does not say it itself

    @property
    def num_channels(self) -> int:
        """Images of one head that training reads."""
        return self.volumes + len(self.channels)


class Drop(NamedTuple):
    """What was left out and why."""

    what: str  # file or participant
    reason: str  # short, the same for all that share it
    detail: str = ""


class NothingLeft(UsageError):
    """Not one scan can be used: the sentence names the first, and what became of all is known."""

    def __init__(self, sentence: str, dropped: Sequence[Drop]):
        first = dropped[0] if dropped else None
        detail = f" ({first.detail})" if first and first.detail else ""
        example = f"; the first is {first.what}: {first.reason}{detail}" if first else ""
        super().__init__(f"{sentence}{example}.")
        self.dropped = tuple(dropped)


class OtherLayout(ArgumentError):
    """A folder is not laid out as a source reads: its table, or every image of its kind, is missing."""


class Listing(NamedTuple):
    """What there is to read."""

    scans: tuple[Scan, ...]
    dropped: tuple[Drop, ...] = ()
    notes: tuple[str, ...] = ()


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


def _uses_comma(texts: Sequence[str], separator: str, unit: float) -> bool:
    """Whether ages are written with a decimal comma.

    Between semicolons or tabs a comma can be nothing else, unless ages in days or months have one before three digits;
    between commas all ages must have it.
    """
    there = [text.strip() for text in texts if text.strip().lower() not in MISSING]
    with_comma = [text for text in there if re.fullmatch(r"\d+,\d+", text)]
    thousands = unit != 1 and all(re.fullmatch(r"\d+,\d{3}", text) for text in with_comma)
    return bool(with_comma) and not thousands and (separator != "," or len(with_comma) == len(there))


def find_column(table: Rows, role: str, named: str | None = None) -> str | None:
    """The column that plays a role: the one named, or the only synonym that the table has.

    Raises:
        ArgumentError: there is no column of that name, or several may be meant; the argument is the role's option.
    """
    if named:
        if named.lower() not in table.columns:
            there = ", ".join(table.columns)
            raise ArgumentError(f"{role}_col", named, f"{table.path} has no column {named!r}; it has: {there}")
        return named.lower()
    candidates = [name for name in table.columns if name in SYNONYMS[role]]
    if len(candidates) > 1 and role in ("id", "age", "path"):
        rule = f"{table.path} has several columns for the {role} ({', '.join(candidates)}); set it to one of them"
        raise ArgumentError(f"{role}_col", named, rule)
    return min(candidates, key=SYNONYMS[role].index, default=None)


def require_column(table: Rows, role: str, named: str | None = None) -> str:
    """The same, of a role that must be played."""
    column = find_column(table, role, named)
    if column is None:
        there = ", ".join(table.columns)
        rule = f"{table.path} has no column for the {role}; it has: {there}; set it to one of them"
        raise ArgumentError(f"{role}_col", named, rule)
    return column


def session_column(table: Rows, id_: str | None, named: str | None = None) -> tuple[str | None, list[str]]:
    """The column of the session, and a note of one that was passed over.

    ``ses`` is also short for socioeconomic status (in OASIS), and counts only where it labels sessions: by ``ses-``, or
    by telling all rows of a person apart where somebody has several.
    """
    column = find_column(table, "session", named)
    if column or SES not in table.columns:
        return column, []
    labels = [row[SES] for row in table.rows]
    rows = [(row[id_], row[SES]) for row in table.rows] if id_ else []
    people = {person for person, _ in rows}
    if any(label.startswith("ses-") for label in labels) or len(people) < len(set(rows)) == len(rows):
        return SES, []
    remedy = "if it is, name it by data.options.session_col"
    return None, [f"{table.path.name}: column {SES!r} was not taken for the session; {remedy}"]


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


def columns_of(*rows: Mapping[str, str] | None) -> Mapping[str, str]:
    """All that some rows say, the last of them first; without what readers added to them."""
    return {name: text for row in rows if row for name, text in row.items() if not name.startswith("_")}


def value_of(row: dict[str, str], column: str | None) -> str:
    """A cell's text, n/a where it is missing."""
    text = row.get(column, "") if column else ""
    return "n/a" if text.lower() in MISSING else text


class Sexes:
    """The sexes of one table: words, or codes by the table's JSON file or by ISO/IEC 5218 (1 male, 2 female)."""

    def __init__(self, table: Rows, column: str | None):
        self.column, self.notes = column, []
        there = {self._text(row) for row in table.rows} - {"n/a"}
        levels = levels_of(table.path, column or "")
        self.codes = {code.removesuffix(".0"): sex_of(meaning) for code, meaning in levels.items()}
        if not self.codes and _are_iso_5218(there):
            self.codes = ISO_5218
            self.notes = [f"{table.path.name}: sex 1 was taken for M and 2 for F (ISO/IEC 5218)"]
        unknown = sorted(text for text in there if self._of(text) == "n/a")
        if unknown:
            self.notes.append(f"{table.path.name}: sex {', '.join(unknown[:5])} is not known, and taken for n/a")

    def _text(self, row: dict[str, str]) -> str:
        return value_of(row, self.column).removesuffix(".0")

    def _of(self, text: str) -> str:
        return self.codes.get(text) or sex_of(text)

    def __call__(self, row: dict[str, str]) -> str:
        """F, M or n/a."""
        return self._of(self._text(row))


def _are_iso_5218(there: Collection[str]) -> bool:
    """Whether 1 and 2 are male and female, whatever other codes there are; not beside words, nor where 0 and 1 are."""
    return not ISO_5218.keys().isdisjoint(there) and ("0" not in there or "2" in there) and not any(map(_is_sex, there))


def _is_sex(text: str) -> bool:
    return sex_of(text) != "n/a"


class Ages:
    """The ages of one table, parsed under what holds for the whole table."""

    def __init__(self, table: Rows, column: str, cap_89: bool, inherited: Iterable[Path] = ()):
        """``inherited`` are JSON files that hold the unit where the one beside the table does not."""
        self.column = column
        self.cap_89 = cap_89
        self.unit = unit_years(table.path, column, inherited)
        self.comma = _uses_comma([row[column] for row in table.rows], table.separator, self.unit)

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
        rule = f"{source}: {first.what}: {first.reason} ({first.detail!r}); mend the table, or set it to False"
        raise ArgumentError("strict", True, rule)
    if any(drop.reason == "age is 89+" for drop in dropped):
        raise ArgumentError("cap_89", False, f"{source} holds ages written '89+'; set it to True to take them for 89")
    if not scans:
        raise NothingLeft(f"{source}: no scan is left ({count_reasons(dropped)}); mend the table", dropped)
    return Listing(tuple(scans), tuple(dropped), tuple(notes))


def count_reasons(dropped: Iterable[Drop]) -> str:
    """Counts by reason, the most frequent first, such as ``3 x age is missing, 1 x no T1w scan``."""
    counts: dict[str, int] = {}
    for drop in dropped:
        counts[drop.reason] = counts.get(drop.reason, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} x {reason}" for reason, count in ordered) or "nothing dropped"


def check_volumes(volumes: int, further: Collection = ()) -> None:
    """Refuses a number of volumes that is none, and channels that come from files and from volumes at once."""
    if volumes < 1 or (volumes > 1 and further):
        rule = "the channels are several files already; set it to 1" if further else "a file has at least one volume"
        raise ArgumentError("volumes", volumes, rule)

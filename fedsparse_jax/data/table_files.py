"""Tables as people keep them, CSV, TSV or Excel, read into rows; what cannot be read surely is refused with its row."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.image_files import GZIP
from fedsparse_jax.data.spreadsheets import SPREADSHEETS, is_spreadsheet, sheet_as_csv

TABLES = (".csv", ".tsv", ".txt", *SPREADSHEETS)
IMAGES = (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".mgh")
_SPREADSHEET_BEGINS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # a ZIP archive, or Microsoft's older container

Record = tuple[int, list[str]]  # number of the row in the file, from 1, and its cells


class Rows(NamedTuple):
    """A table: lower-case column names in order, and rows as dicts of stripped strings."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str]]
    separator: str = ","  # a tab also for spreadsheets, where a comma separates nothing


def read_rows(path: Path) -> Rows:
    """Reads a table, whatever its separator, line ends and capitals; refuses what cannot be read surely.

    A first column without a name that counts the rows (as pandas writes it), blank columns at the end and Excel's first
    line ``sep=;`` are passed over.

    Raises:
        UsageError: no table, or one that cannot be read surely; the sentence names the row.
    """
    if not path.is_file():
        raise UsageError(f"There is no table {path}; check the path.")
    with open(path, "rb") as file:
        begin = file.read(4)
    if path.name.lower().endswith(IMAGES):
        raise UsageError(f"{path} is an image; give a table with a row a scan, which names its path, id and age.")
    if is_spreadsheet(path) or begin.startswith(_SPREADSHEET_BEGINS):
        records = _records_of_csv(path, 1, sheet_as_csv(path).split("\n"), ",")
        return _named(path, "\t", _filled(records))
    if begin.startswith(GZIP):
        raise UsageError(f"{path} is compressed; unpack it.")
    return _named(path, *_text_records(path))


def expand_home(path: str) -> Path:
    """A path whose ``~/`` at the beginning is the home folder."""
    return Path(path).expanduser() if path.startswith("~/") else Path(path)


def _text_records(path: Path) -> tuple[str, list[Record]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    if "\0" in text:
        raise UsageError(f"{path} holds characters of code 0; save it as UTF-8 text.")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    told = re.fullmatch(r"sep=(.)", lines[0].strip(), re.IGNORECASE)
    before = 1 if told else 0
    header = next((line for line in lines[before:] if line.strip()), "")
    if not header:
        raise UsageError(f"{path} is empty; it needs a header and a row a person.")
    tabs = path.suffix.lower() == ".tsv"
    separator = told[1] if told else "\t" if tabs else max(",;\t", key=header.count)
    if separator not in header and len(re.split(r"[,;\t]", header)) > 1:
        raise UsageError(f"{path} has columns separated otherwise than by tabs; save it tab-separated.")
    read = _lines_of_tsv if tabs else _records_of_csv
    return separator, _filled(read(path, before + 1, lines[before:], separator))


def _filled(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if any(cell.strip() for cell in record[1])]


def _lines_of_tsv(path: Path, first: int, lines: list[str], separator: str) -> Iterable[Record]:
    """BIDS knows no quotation marks: one that is not closed in its line is text."""
    for number, line in enumerate(lines, first):
        try:
            (fields,) = csv.reader([line], delimiter=separator, strict=True) if line else [[]]
        except csv.Error:
            fields = line.split(separator)
        yield number, fields


def _records_of_csv(path: Path, number: int, lines: list[str], separator: str) -> Iterable[Record]:
    """Rows, whose quoted cells may go on over several lines; but a cell that swallows rows was never meant."""
    reader, before = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True), number
    stray = "has a quotation mark that is not closed, or not at the end of its cell; close or remove it"
    columns = 0
    try:
        for fields in reader:
            columns = columns or len(fields)
            inner = [line for cell in fields for line in cell.split("\n")[1:]]
            if columns > 1 and any(line.count(separator) >= columns - 1 for line in inner):
                raise UsageError(f"{path}, row {number}, {stray}.")
            yield number, fields
            number = before + reader.line_num
    except csv.Error as error:
        raise UsageError(f"{path}, row {number}, {stray}.") from error


def _named(path: Path, separator: str, records: list[Record]) -> Rows:
    """Rows by column, under a header in which every name is there once."""
    (_, first), *rest = records
    header = [name.strip().lower() for name in first]
    cells = [(number, [field.strip() for field in fields]) for number, fields in rest]
    while header and not header[-1] and not any(any(fields[len(header) - 1 :]) for _, fields in cells):
        header.pop()
    if header and not header[0] and _counts_rows([fields[0] for _, fields in cells]):
        header, cells = header[1:], [(number, fields[1:]) for number, fields in cells]
    twice = {name for name in header if header.count(name) > 1}
    if twice or "" in header:
        which = ", ".join(sorted(twice - {""})) or "blank"
        raise UsageError(f"{path} has a blank or repeated column name ({which}); rename it.")
    rows = []
    for number, fields in cells:
        if any(fields[len(header) :]):
            hint = "" if separator == "\t" else f"; quote the cell that holds a {separator!r}"
            raise UsageError(f"{path}, row {number}, has {len(fields)} cells under {len(header)} columns{hint}.")
        fields = fields[: len(header)] + [""] * (len(header) - len(fields))
        rows.append(dict(zip(header, fields, strict=True)))
    return Rows(path, header, rows, separator)


def _counts_rows(cells: list[str]) -> bool:
    """Whether these are the numbers of rows: whole, and each there once."""
    return all(re.fullmatch(r"\d+(\.0)?", cell) for cell in cells) and len(set(cells)) == len(cells)

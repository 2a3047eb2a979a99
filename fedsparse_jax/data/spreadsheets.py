"""Spreadsheets as the text of a CSV file, for tables that are published as ``.xls`` or ``.xlsx``."""

import csv
import datetime
import io
import zipfile
from pathlib import Path

from fedsparse_jax.core.errors import UsageError

SPREADSHEETS = (".xls", ".xlsx", ".xlsm", ".xlsb", ".ods")
PREFERRED = "table"  # the sheet that is read where there are several; else the first
MOST_BYTES = 2**28  # of an unpacked spreadsheet


def is_spreadsheet(path: Path) -> bool:
    """Whether the name of a file is that of a spreadsheet."""
    return path.suffix.lower() in SPREADSHEETS


def sheet_as_csv(path: Path) -> str:
    """The cells of a spreadsheet as comma-separated text.

    Args:
        path: the file; of several sheets the one called "Table" is read, else the first that holds anything.

    Raises:
        UsageError: the extra ``tables`` is not installed, or the file is damaged, locked by a password or empty.
    """
    try:
        import python_calamine
    except ImportError:
        raise UsageError(
            f"{path} is a spreadsheet, and python-calamine, which reads it, is not installed: pip install "
            "python-calamine, or save the sheet as CSV."
        ) from None
    try:
        _refuse_huge(path)
        with python_calamine.CalamineWorkbook.from_path(path) as book:
            names = sorted(book.sheet_names, key=lambda name: name.strip().lower() != PREFERRED)
            sheets = (book.get_sheet_by_name(name).to_python() for name in names)
            cells = next((sheet for sheet in sheets if any(map(any, sheet))), [])
    except (OSError, ValueError, zipfile.BadZipFile, python_calamine.CalamineError) as error:
        remedy = "fetch it again, or save the sheet as CSV"
        raise UsageError(f"{path} cannot be read as a spreadsheet ({error}); {remedy}.") from error
    if not cells:
        raise UsageError(f"{path} has no sheet with cells; it needs a header and a row a person.")
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_text(cell) for cell in row] for row in cells)
    return buffer.getvalue()


def _refuse_huge(path: Path) -> None:
    """Refuses a packed spreadsheet that would fill the memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            if sum(member.file_size for member in file.infolist()) > MOST_BYTES:
                raise ValueError("it unpacks to far more than a table of people")


def _text(cell) -> str:
    """A cell as it would be typed: whole numbers without a point, dates as year-month-day, on one line."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime):
        return cell.date().isoformat()
    return " ".join(str(cell).split())

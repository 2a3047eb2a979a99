"""Spreadsheets as tables: which sheet, how cells read, and what is refused."""

import sys

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data import scan_tables, spreadsheets, table_files
from tests.helpers.stand_ins import write_xlsx


def test_the_sheet_called_table_else_the_first_with_cells(tmp_path):
    people = [("id", "age", "path"), (1, 60.5, "a,b.nii"), ("x 2", 61, "c.nii")]
    write_xlsx(tmp_path / "a.xlsx", {"Notes": [("hello",)], "Table": people})
    assert spreadsheets.sheet_as_csv(tmp_path / "a.xlsx") == 'id,age,path\n1,60.5,"a,b.nii"\nx 2,61,c.nii\n'
    write_xlsx(tmp_path / "b.xlsx", {"Empty": [], "People": people})
    scans = scan_tables.read_table(tmp_path / "b.xlsx").scans
    assert [(scan.participant, scan.age, scan.path.name) for scan in scans] == [
        ("sub-1", 60.5, "a,b.nii"),
        ("sub-x 2", 61.0, "c.nii"),
    ]


def test_an_old_binary_spreadsheet(repository):
    """Written by xlwt with the head of IXI.xls, and one date."""
    rows = table_files.read_rows(repository / "tests/files/IXI_small.xls")
    assert rows.columns[:2] == ["ixi_id", "sex_id (1=m, 2=f)"] and rows.columns[-1] == "age"
    assert (
        rows.rows[0]["ixi_id"] == "2" and rows.rows[0]["age"] == "35.8" and rows.rows[0]["study_date"] == "2005-11-25"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 no zip", "cannot be read as a spreadsheet .*fetch it again, or save the sheet as CSV"),
        (b"id,age\n1,60\n", "cannot be read as a spreadsheet"),
    ],
)
def test_what_is_none_is_one_sentence(tmp_path, content, message):
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        table_files.read_rows(tmp_path / "a.xlsx")


def test_an_empty_one_is_one_sentence(tmp_path):
    write_xlsx(tmp_path / "a.xlsx", {"Table": []})
    with pytest.raises(UsageError, match="has no sheet with cells"):
        table_files.read_rows(tmp_path / "a.xlsx")


def test_one_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    write_xlsx(tmp_path / "a.xlsx", {"Table": [("id", "age")]})
    monkeypatch.setattr(spreadsheets, "MOST_BYTES", 100)
    with pytest.raises(UsageError, match="unpacks to far more than a table of people"):
        table_files.read_rows(tmp_path / "a.xlsx")


def test_a_missing_reader_is_said(tmp_path, monkeypatch):
    write_xlsx(tmp_path / "a.xlsx", {"Table": [("id", "age")]})
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(UsageError, match="is not installed: pip install python-calamine, or save the sheet as CSV"):
        table_files.read_rows(tmp_path / "a.xlsx")

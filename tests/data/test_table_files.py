"""Files of tables as programs write them: what can be read surely is read, all else is refused with its row."""

import sys

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.table_files import read_rows
from tests.helpers.excel import write_workbook

TWO = [dict(id="1", age="60", path="a.nii"), dict(id="2", age="61", path="b.nii")]


def read(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rows(tmp_path / name)


@pytest.mark.parametrize("text", [
    "id,age,path\n1,60,a.nii\n2,61,b.nii\n",
    "ID;Age;Path\r\n1;60;a.nii\r\n2;61;b.nii\r\n",
    "id,age,path\r1,60,a.nii\r2,61,b.nii",
    "\ufeffid\tage\tpath\n1\t60\ta.nii\n\n2\t61\tb.nii\n",
    ",id,age,path\n0,1,60,a.nii\n1,2,61,b.nii\n",
    ",id,age,path\n17,1,60,a.nii\n4,2,61,b.nii\n",
    "id,age,path,\n1,60,a.nii,\n2,61,b.nii,\n",
    "id,age,path,,\n1,60,a.nii\n2,61,b.nii,\n",
    "id,age,path\n1,60,a.nii,\n2,61,b.nii,,\n",
    "sep=;\nid;age;path\n1;60;a.nii\n2;61;b.nii\n",
    "SEP=,\r\nid,age,path\r\n1,60,a.nii\r\n2,61,b.nii\r\n",
    '"id","age","path"\n"1","60","a.nii"\n2,"61",b.nii\n',
    "id,age,path\n,,\n1,60,a.nii\n2,61,b.nii\n,,\n",
])  # fmt: skip
def test_one_table_as_many_programs_write_it(tmp_path, text):
    assert read(tmp_path, text).rows == TWO


def test_quoted_cells_may_hold_separators_and_lines(tmp_path):
    table = read(tmp_path, 'comment,id,note\n"one\ntwo",1,"a, b"\n"say ""so""",2,"three\n\nfour"\n')
    assert [row["comment"] for row in table.rows] == ["one\ntwo", 'say "so"']
    assert [row["note"] for row in table.rows] == ["a, b", "three\n\nfour"]


STRAY = "row 3, has a quotation mark that is not closed, or not at the end of its cell"


@pytest.mark.parametrize("rows", [
    ['2,61,b.nii,"left', "3,62,c.nii,ok"],
    ['2,61,b.nii,"left', '3,62,c.nii,"ok"'],
    ['2,61,b.nii,"left', "3,62,c.nii,ok", '4,62,d.nii,5 ft 6"'],
    ['2,61,b.nii,"left"handed', "3,62,c.nii,ok"],
    ['2,61,b.nii,"left', *[f"{i},62,{i}.nii,{'x' * 200}" for i in range(1000)]],
])  # fmt: skip
def test_a_quotation_mark_that_is_not_closed_is_refused_with_its_row(tmp_path, rows):
    with pytest.raises(UsageError, match=STRAY):
        read(tmp_path, "\n".join(["id,age,path,comment", "1,60,a.nii,fine", *rows]) + "\n")


def test_the_row_is_that_of_the_file(tmp_path):
    with pytest.raises(UsageError, match="row 5, has a quotation"):
        read(tmp_path, 'sep=,\nid,comment\n\n1,fine\n2,"oh\n3,fine\n')
    with pytest.raises(UsageError, match="row 4, has 3 cells under 2 columns; quote the cell that holds a ','"):
        read(tmp_path, "id,comment\n\n1,fine\n2,oh, no\n")


def test_between_tabs_a_quotation_mark_is_text_where_it_is_not_closed(tmp_path):
    table = read(tmp_path, 'id\tcomment\n1\t"left\n2\t"quoted cell"\n3\tok\n', "t.tsv")
    assert [row["comment"] for row in table.rows] == ['"left', "quoted cell", "ok"]


@pytest.mark.parametrize(("text", "name", "message"), [
    (b"", "t.csv", "t.csv is empty"),
    (b"\n \n", "t.csv", "t.csv is empty"),
    (b"id,,age\n1,x,60\n", "t.csv", "blank or repeated column name .blank.; rename it"),
    (b",id,age\na,1,60\nb,2,61\n", "t.csv", "column name .blank."),
    (b"id,age,AGE\n1,60,61\n", "t.csv", "column name .age."),
    ("id,age\nJosé,60\n".encode("latin-1"), "t.csv", "not UTF-8 text; save it as UTF-8"),
    (b"id,age\n1,60\n", "t.tsv", "separated otherwise than by tabs"),
    (b"\x1f\x8b\x08\x00abc", "scan.nii.gz", "scan.nii.gz is an image; give a table"),
    (b"\x1f\x8b\x08\x00abc", "t.csv.gz", "t.csv.gz is compressed; unpack it"),
])  # fmt: skip
def test_what_cannot_be_read_surely_is_refused(tmp_path, text, name, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text, name)


ROWS = [["id", "age", "path"], [1, 60, "a.nii"], [2, 61, "b.nii"]]


def test_a_workbook_is_read_as_the_same_table_in_csv(tmp_path):
    pytest.importorskip("python_calamine")
    write_workbook(tmp_path / "t.xlsx", {"Table": ROWS})
    table = read_rows(tmp_path / "t.xlsx")
    assert table.rows == TWO
    write_workbook(tmp_path / "named.csv", {"Table": [[], *ROWS]})  # known by its content
    assert read_rows(tmp_path / "named.csv").rows == TWO


def test_numbers_of_a_workbook_keep_their_decimals_and_text_its_zeros(tmp_path):
    pytest.importorskip("python_calamine")
    write_workbook(tmp_path / "t.xlsx", {"Table": [["id", "age"], ["007", 61.25], [8, None]]})
    assert read_rows(tmp_path / "t.xlsx").rows == [dict(id="007", age="61.25"), dict(id="8", age="")]


def test_of_several_sheets_the_one_called_table_is_read(tmp_path):
    pytest.importorskip("python_calamine")
    write_workbook(tmp_path / "t.xlsx", {"Codes": [["code", "meaning"], [1, "white"]], "Table": ROWS, "Sheet3": []})
    assert read_rows(tmp_path / "t.xlsx").rows == TWO


def test_the_older_format_of_excel_is_read(repository):
    """Written by xlwt with the head of IXI.xls, and one date."""
    pytest.importorskip("python_calamine")
    first = read_rows(repository / "tests/files/IXI_small.xls").rows[0]
    assert (first["ixi_id"], first["study_date"], first["age"]) == ("2", "2005-11-25", "35.8")


def test_a_damaged_or_empty_workbook_is_refused(tmp_path):
    pytest.importorskip("python_calamine")
    (tmp_path / "t.xls").write_bytes(b"\xd0\xcf\x11\xe0 and nothing else")
    with pytest.raises(UsageError, match="t.xls cannot be read as a spreadsheet .*save the sheet as CSV"):
        read_rows(tmp_path / "t.xls")
    write_workbook(tmp_path / "t.xlsx", {"Table": []})
    with pytest.raises(UsageError, match="t.xlsx has no sheet with cells"):
        read_rows(tmp_path / "t.xlsx")


def test_without_the_extra_a_workbook_is_refused_with_the_remedy(tmp_path, monkeypatch):
    write_workbook(tmp_path / "t.xlsx", {"Table": ROWS})
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(UsageError, match="is not installed: pip install python-calamine, or save the sheet as CSV"):
        read_rows(tmp_path / "t.xlsx")

"""Tables of scans as people really have them: columns by synonyms, rows that are left out, and refusals."""

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data import scan_tables, tables


@pytest.mark.parametrize(
    "header", ["eid,age_at_scan,9dof_2mm_vol", "ID,Age,file_name", "subject;age;path", "participant_id\tAGE\tfile"]
)
def test_tables_by_synonyms(tmp_path, header):
    separator = next(s for s in ",;\t" if s in header)
    (tmp_path / "t.csv").write_text(f"{header}\n1001{separator}62.5{separator}scans/a.nii.gz\n")
    (scan,) = scan_tables.read_table(tmp_path / "t.csv").scans
    assert (scan.participant, scan.age, scan.path) == ("sub-1001", 62.5, tmp_path / "scans/a.nii.gz")


def test_rows_without_id_are_dropped_and_pairs_count_once(tmp_path):
    (tmp_path / "t.csv").write_text("id,age,path\n,60,a.nii\nn/a,60,b.nii\nx,61,c.img\n")
    listing = scan_tables.read_table(tmp_path / "t.csv")
    assert [scan.path.name for scan in listing.scans] == ["c.hdr"]
    assert [drop.reason for drop in listing.dropped] == ["id is missing"] * 2
    (tmp_path / "t.csv").write_text("id,age,path\nx,61,c.img\ny,61,c.hdr\n")
    with pytest.raises(UsageError, match="twice"):
        scan_tables.read_table(tmp_path / "t.csv")


def test_tables_with_named_columns_sites_and_absolute_paths(tmp_path):
    (tmp_path / "t.tsv").write_text(
        "who\tyears\timage\tscanner\tsession\na\t60\t/data/a.nii\tS1\t1\na\t61\tb.nii\tS1\t2\n"
    )
    columns = dict(id_col="who", age_col="years", path_col="image")
    listing = scan_tables.read_table(tmp_path / "t.tsv", root_path="/mnt", **columns)
    assert [str(scan.path) for scan in listing.scans] == ["/data/a.nii", "/mnt/b.nii"]
    assert [(scan.participant, scan.site, scan.session) for scan in listing.scans] == [
        ("sub-a", "S1", "1"),
        ("sub-a", "S1", "2"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,subject_id,age,path\na,b,60,x\n", "several columns for the id"),
        ("id,age,path\na,60,x.nii\nb,61,x.nii\n", "twice, for sub-a and sub-b"),
        ("id,age\na,60\n", "no column for the path"),
    ],
)
def test_table_refusals(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        scan_tables.read_table(tmp_path / "t.csv")


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="There is no table"):
        scan_tables.read_table(tmp_path / "no.csv")


def test_a_column_that_is_named_must_be_there(tmp_path):
    (tmp_path / "t.csv").write_text("id,age,path\na,60,x.nii\n")
    with pytest.raises(UsageError, match=r"has no column 'scan'; it has: id, age, path\.$"):
        scan_tables.read_table(tmp_path / "t.csv", path_col="scan")


def test_reasons_are_counted_the_most_frequent_first():
    reasons = ["no T1w scan", "age is missing", "age is missing", "age is missing"]
    dropped = [tables.Drop(f"sub-{i}", reason) for i, reason in enumerate(reasons)]
    assert tables.count_reasons(dropped) == "3 x age is missing, 1 x no T1w scan"
    assert tables.count_reasons([]) == "nothing dropped"


def test_ids_that_differ_in_lost_zeros_are_one_person(tmp_path):
    (tmp_path / "t.csv").write_text("id,age,path,session\n1,60,a.nii,1\n001,62,b.nii,2\n2,50,c.nii,1\n")
    listing = scan_tables.read_table(tmp_path / "t.csv")
    assert [scan.participant for scan in listing.scans] == ["sub-001", "sub-001", "sub-2"]
    assert listing.notes == ("taken for one person: sub-1, sub-001",)


@pytest.mark.parametrize("second", ["folder/../a.nii", "link.nii"])
def test_one_image_by_two_names_is_refused(tmp_path, second):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.nii").touch()
    (tmp_path / "link.nii").symlink_to(tmp_path / "a.nii")
    (tmp_path / "t.csv").write_text(f"id,age,path\n1,60,a.nii\n2,62,{second}\n")
    with pytest.raises(UsageError, match="twice, for sub-1 and sub-2"):
        scan_tables.read_table(tmp_path / "t.csv")

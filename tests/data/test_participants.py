"""Ages in a table of their own, rows a session, and columns as cohorts name them."""

from pathlib import Path

import pytest

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data.bids import read_bids
from fedsparse_jax.data.scan_tables import read_table
from fedsparse_jax.data.table_files import read_rows
from fedsparse_jax.data.tables import Sexes, find_column
from tests.helpers.excel import write_workbook


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def bids_folder(root, *files):
    for name in files:
        write(root / name, "")
    return root


def found(listing):
    return {(scan.participant, scan.session): (scan.age, scan.sex, scan.site) for scan in listing.scans}


AGES = "Subject_ID,Age,Gender,Center\n1,61.5,f,Oslo\n002,70,M,Rome\n9,50,f,Rome\n"


def test_ages_of_a_table_of_paths_may_stand_in_another(tmp_path):
    table = write(tmp_path / "t.csv", "id,path,site\nsub-1,a.nii,n/a\n2,b.nii,Bern\n3,c.nii,n/a\n")
    listing = read_table(table, participants=write(tmp_path / "ages/p.csv", AGES))
    assert found(listing) == {("sub-1", ""): (61.5, "F", "Oslo"), ("sub-2", ""): (70.0, "M", "Bern")}
    assert [(drop.reason) for drop in listing.dropped] == ["no row in the table of participants"]


def test_ages_of_a_bids_folder_may_stand_in_another_table(tmp_path):
    root = bids_folder(
        tmp_path / "bids", "sub-1/anat/sub-1_T1w.nii", "sub-002/anat/sub-002_T1w.nii", "sub-3/anat/sub-3_T1w.nii"
    )
    listing = read_bids(root, participants=write(tmp_path / "p.csv", AGES))
    assert found(listing) == {("sub-1", ""): (61.5, "F", "Oslo"), ("sub-002", ""): (70.0, "M", "Rome")}
    assert sorted(drop.reason for drop in listing.dropped) == ["no T1w scan", "no row in participants.tsv"]


def test_a_workbook_of_ages_is_joined_with_a_table_of_paths(tmp_path):
    pytest.importorskip("python_calamine")
    rows = [["IXI_ID", "SEX_ID (1=m, 2=f)", "AGE"], [2, 2, 35.8], [12, 1, 38.78], [13, 1, 0]]
    write_workbook(tmp_path / "IXI.xlsx", {"Table": rows})
    table = write(tmp_path / "t.csv", "id,path\n002,a.nii\n012,b.nii\n013,c.nii\n")
    listing = read_table(table, participants=str(tmp_path / "IXI.xlsx"))
    assert [scan[1:5] for scan in listing.scans] == [("sub-002", "", 35.8, "F"), ("sub-012", "", 38.78, "M")]
    assert [drop.reason for drop in listing.dropped] == ["age is impossible"]
    assert "IXI.xlsx: sex 1 was taken for M and 2 for F (ISO/IEC 5218)" in listing.notes


def test_a_table_of_ages_without_ages_is_refused(tmp_path):
    table = write(tmp_path / "t.csv", "id,path\n1,a.nii\n")
    with pytest.raises(
        ArgumentError, match="^age_col is None: .*p.csv has no column for the age; it has: id, years; set it"
    ):
        read_table(table, participants=write(tmp_path / "p.csv", "id,years\n1,60\n"))
    with pytest.raises(UsageError, match="There is no table .*q.csv"):
        read_table(table, participants=str(tmp_path / "q.csv"))


def test_columns_that_are_named_may_be_in_either_table_and_must_be_in_one(tmp_path):
    table = write(tmp_path / "t.csv", "scan_of,path,where\n1,a.nii,Bern\n")
    ages = write(tmp_path / "p.csv", "id,years\n1,60\n")
    with pytest.raises(ArgumentError, match="^site_col is 'ward'"):
        read_table(table, participants=ages, site_col="ward", id_col="scan_of", age_col="years")
    other = write(tmp_path / "q.csv", "id,years\n1,60\n")
    listing = read_table(table, participants=other, site_col="where", id_col="scan_of", age_col="years")
    assert found(listing) == {("sub-1", ""): (60.0, "n/a", "Bern")}


def test_home_is_expanded_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home/p.csv", "id,age\n1,60\n2,61\n3,62\n")
    write(tmp_path / "home/s.csv", "id,split\n1,train\n2,test\n3,test\n")
    table = write(tmp_path / "t.csv", "id,path\n1,~/scans/a.nii\n2,~b.nii\n3,c.nii\n")
    listing = read_table(table, participants="~/p.csv", root_path="~/root", splits="~/s.csv")
    paths = [scan.path.relative_to(tmp_path / "home").as_posix() for scan in listing.scans]
    assert paths == ["scans/a.nii", "root/~b.nii", "root/c.nii"]


SESSIONS = [
    "sub-1/ses-1/anat/sub-1_ses-1_T1w.nii",
    "sub-1/ses-02/anat/sub-1_ses-02_T1w.nii",
    "sub-2/anat/sub-2_T1w.nii",
]


def test_participants_may_have_a_row_a_session(tmp_path):
    root = bids_folder(tmp_path, *SESSIONS)
    write(
        root / "participants.tsv",
        "participant_id\tsession_id\tage\tsex\nsub-1\tses-1\t60\tF\nsub-1\t2\t63\tF\nsub-2\t1\t50\tM\n",
    )
    assert found(read_bids(root)) == {
        ("sub-1", "ses-1"): (60.0, "F", "n/a"), ("sub-1", "ses-02"): (63.0, "F", "n/a"), ("sub-2", ""): (50.0, "M", "n/a"),
    }  # fmt: skip


def test_a_session_without_a_row_has_no_age_of_another(tmp_path):
    root = bids_folder(tmp_path, *SESSIONS)
    write(root / "participants.tsv", "participant_id\tsession_id\tage\nsub-1\tses-02\t63\nsub-2\t1\t50\nsub-2\t2\t52\n")
    listing = read_bids(root, strict=False)
    assert found(listing) == {("sub-1", "ses-02"): (63.0, "n/a", "n/a")}
    assert [drop.reason for drop in listing.dropped] == ["age at this session is unknown"] * 2


def test_one_session_with_two_ages_is_refused(tmp_path):
    root = bids_folder(tmp_path, *SESSIONS)
    write(root / "participants.tsv", "participant_id\tsession_id\tage\nsub-1\t1\t60\nsub-1\tses-1\t61\n")
    with pytest.raises(UsageError, match="gives sub-1 the age 60 at ses-1 in one row and 61 in another"):
        read_bids(root)


def test_ages_at_sessions_of_a_table_of_ages_count_for_a_table_of_paths(tmp_path):
    table = write(tmp_path / "t.csv", "id,session,path\n1,1,a.nii\n1,2,b.nii\n1,3,c.nii\n")
    ages = write(tmp_path / "p.csv", "id,session,age\n1,ses-01,60\n1,ses-02,63\n")
    listing = read_table(table, participants=ages)
    assert {key: value[0] for key, value in found(listing).items()} == {("sub-1", "1"): 60.0, ("sub-1", "2"): 63.0}
    assert [drop.reason for drop in listing.dropped] == ["age at this session is unknown"]


def test_a_named_column_of_ages_counts_in_tables_of_sessions_too(tmp_path):
    root = bids_folder(tmp_path, *SESSIONS[:2])
    write(root / "participants.tsv", "participant_id\nsub-1\n")
    write(root / "sub-1/sub-1_sessions.tsv", "session_id\tage\tage_at_scan\n1\t6\t60\n2\t6\t63\n")
    with pytest.raises(
        ArgumentError, match="^age_col is None: .*several columns for the age .age, age_at_scan.; set it to one"
    ):
        read_bids(root)
    assert [scan.age for scan in read_bids(root, age_col="age_at_scan").scans] == [63.0, 60.0]
    write(root / "sub-1/sub-1_sessions.tsv", "session_id\tage\n1\t60\n2\t63\n")
    with pytest.raises(ArgumentError, match="^age_col is 'years': .*participants.tsv has no column 'years'"):
        read_bids(root, age_col="years")


def test_ses_is_the_socioeconomic_status_unless_it_tells_rows_of_a_person_apart(tmp_path):
    oasis = "ID,M/F,Age,SES,path\nOAS1_0001_MR1,F,74,2.0,a.nii\nOAS1_0002_MR1,M,55,,b.nii\n"
    listing = read_table(write(tmp_path / "t.csv", oasis))
    assert found(listing) == {
        ("sub-OAS1_0001_MR1", ""): (74.0, "F", "n/a"),
        ("sub-OAS1_0002_MR1", ""): (55.0, "M", "n/a"),
    }
    assert (
        "column 'ses' was not taken for the session; if it is, name it by data.options.session_col" in listing.notes[0]
    )
    labelled = write(tmp_path / "u.csv", "id,age,ses,path\n1,60,ses-1,a.nii\n2,61,ses-1,b.nii\n")
    assert {scan.session for scan in read_table(labelled).scans} == {"ses-1"}
    apart = write(tmp_path / "v.csv", "id,age,ses,path\n1,60,1,a.nii\n1,63,2,b.nii\n2,50,1,c.nii\n")
    assert [scan.session for scan in read_table(apart).scans] == ["1", "2", "1"]
    visits = write(tmp_path / "w.csv", "id,age,ses,path\n1,60,3,a.nii\n1,63,3,b.nii\n")
    assert {scan.session for scan in read_table(visits).scans} == {""}
    assert {scan.session for scan in read_table(visits, session_col="SES").scans} == {"3"}


@pytest.mark.parametrize(("role", "names"), [
    ("path", ["t1_local_path", "image", "img"]), ("id", ["IXI_ID", "ID"]), ("age", ["AGE"]), ("sex", ["M/F"]),
    ("site", ["study", "siteXacq", "dataset", "center", "centre", "institution_id"]),
])  # fmt: skip
def test_columns_as_open_cohorts_name_them(tmp_path, role, names):
    for name in names:
        table = read_rows_of(tmp_path, f"{name},other\n1,2\n")
        assert find_column(table, role) == name.lower()


def read_rows_of(tmp_path, text):
    return read_rows(Path(write(tmp_path / "t.csv", text)))


def test_a_site_is_a_site_before_it_is_a_study(tmp_path):
    assert find_column(read_rows_of(tmp_path, "study,site\na,b\n"), "site") == "site"


@pytest.mark.parametrize(("cells", "sexes", "note"), [
    (["1", "2", "n/a"], ["M", "F", "n/a"], "ISO/IEC 5218"), (["Male", "w", "F"], ["M", "F", "F"], ""),
    (["0", "1", "1"], ["n/a"] * 3, "sex 0, 1 is not known"), (["F", "2", "M"], ["F", "n/a", "M"], "sex 2 is not known"),
    (["1", "2", "9"], ["M", "F", "n/a"], "ISO/IEC 5218"), (["1.0", "2.0", "0.0"], ["M", "F", "n/a"], "ISO/IEC 5218"),
    (["2", "-9999", "3"], ["F", "n/a", "n/a"], "ISO/IEC 5218"), (["0", "1", "9"], ["n/a"] * 3, "sex 0, 1, 9 is not"),
])  # fmt: skip
def test_codes_of_sex_are_read_or_told_of(tmp_path, cells, sexes, note):
    table = read_rows_of(tmp_path, "sex,n\n" + "".join(f"{cell},1\n" for cell in cells))
    of = Sexes(table, "sex")
    assert [of(row) for row in table.rows] == sexes
    assert (note in of.notes[0]) if note else of.notes == []


def test_an_unusual_code_of_sex_is_named(tmp_path):
    assert Sexes(read_rows_of(tmp_path, "sex,n\n1,1\n9,1\n2,1\n"), "sex").notes == [
        "t.csv: sex 1 was taken for M and 2 for F (ISO/IEC 5218)",
        "t.csv: sex 9 is not known, and taken for n/a",
    ]


def test_codes_of_sex_that_the_sidecar_explains_are_read_so(tmp_path):
    table = read_rows_of(tmp_path, "sex,n\n0,1\n1,1\n")
    write(tmp_path / "t.json", '{"sex": {"Levels": {"0": "female", "1": "male"}}}')
    assert [Sexes(table, "sex")(row) for row in table.rows] == ["F", "M"]


@pytest.mark.parametrize(("text", "ages"), [
    ("id;age;path\n1;61,5;a\n2;70;b\n3;55,25;c\n", [61.5, 70, 55.25]),
    ('id,age,path\n1,"61,5",a\n2,"70,25",b\n', [61.5, 70.25]),
    ('id,age,path\n1,"61,5",a\n2,70,b\n', [70]),
])  # fmt: skip
def test_where_commas_separate_nothing_they_are_decimal(tmp_path, text, ages):
    assert [scan.age for scan in read_table(write(tmp_path / "t.csv", text)).scans] == ages


def test_a_comma_before_three_digits_of_days_is_nobodys_guess(tmp_path):
    write(tmp_path / "t.json", '{"age": {"Units": "days"}}')
    listing = read_table(write(tmp_path / "t.csv", "id;age;path\n1;21,915;a\n2;18262.5;b\n"))
    assert [scan.age for scan in listing.scans] == [50] and listing.dropped[0].reason == "age is not a number"

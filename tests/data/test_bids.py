"""BIDS folders as people really have them."""

import json

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data import bids


def folder(root, table, files=(), **more):
    """A folder with ``participants.tsv`` and empty image files; no image is read here."""
    root.mkdir(exist_ok=True)
    (root / "participants.tsv").write_text(table, **more)
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def anat(*subjects):
    return [f"sub-{s}/anat/sub-{s}_T1w.nii.gz" for s in subjects]


def ages(listing):
    return {scan.participant: scan.age for scan in listing.scans}


def reasons(listing):
    return sorted(drop.reason for drop in listing.dropped)


def test_a_plain_folder(tmp_path):
    table = "participant_id\tage\tsex\tsite\nsub-01\t61.5\tF\tParis\nsub-02\t58\tmale\tn/a\n"
    first, second = bids.read_bids(folder(tmp_path, table, anat("01", "02"))).scans
    assert first[1:6] == ("sub-01", "", 61.5, "F", "Paris")
    assert second[1:6] == ("sub-02", "", 58.0, "M", "n/a")


def test_every_drop_has_a_reason(tmp_path):
    rows = ["01\t61", "02\tn/a", "03\t18-38", "05\t0", "06\tforty", "07\t50"]
    table = "participant_id\tage\n" + "\n".join(f"sub-{row}" for row in rows)
    files = anat("01", "02", "03", "05", "06", "99")
    listing = bids.read_bids(folder(tmp_path, table, files))
    assert ages(listing) == {"sub-01": 61.0}
    assert reasons(listing) == ["age is a range", "age is impossible", "age is missing",
                                "age is not a number", "no T1w scan", "no row in participants.tsv"]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("\ufeffParticipant_ID\tAge\r\nsub-01\t61\r\n\r\n", 61.0),
        ("participant_id\tage\n01\t061Y\n", 61.0),
        ("participant_id\tage\n1\t61\n", 61.0),
        ("participant_id\tage\nsub-01\t26,9\n", 26.9),
        ("participant_id\tage\tgender\nsub-01\t24Y\tf\n", 24.0),
    ],
)
def test_tables_in_the_wild(tmp_path, table, expected):
    listing = bids.read_bids(folder(tmp_path, table, anat("01"), encoding="utf-8", newline=""))
    assert [scan.age for scan in listing.scans] == [expected]


def test_between_tabs_a_comma_can_only_be_decimal(tmp_path):
    table = "participant_id\tage\nsub-01\t26,9\nsub-02\t30\n"
    listing = bids.read_bids(folder(tmp_path, table, anat("01", "02")))
    assert ages(listing) == {"sub-01": 26.9, "sub-02": 30.0} and "decimal comma" in listing.notes[0]


def test_cap_89_and_strict(tmp_path):
    root = folder(tmp_path, "participant_id\tage\nsub-01\t89+\nsub-02\t60\n", anat("01", "02"))
    assert ages(bids.read_bids(root, cap_89=True)) == {"sub-01": 89.0, "sub-02": 60.0}
    with pytest.raises(UsageError, match=r"^cap_89 is False: .* holds ages written '89\+'; set it to True"):
        bids.read_bids(root)
    other = folder(tmp_path, "participant_id\tage\nsub-01\t18-38\nsub-02\t60\n")
    with pytest.raises(UsageError, match=r"age is a range"):
        bids.read_bids(other, strict=True)


def test_months_become_years(tmp_path):
    root = folder(tmp_path, "participant_id\tage\nsub-01\t18\n", anat("01"))
    (root / "participants.json").write_text(json.dumps({"age": {"Units": "months"}}))
    listing = bids.read_bids(root)
    assert ages(listing) == {"sub-01": 1.5} and "converted to years" in listing.notes[0]


def test_sessions_have_ages_of_their_own_and_the_lowest_run_counts(tmp_path):
    files = ["sub-01/ses-1/anat/sub-01_ses-1_run-2_T1w.nii.gz", "sub-01/ses-1/anat/sub-01_ses-1_run-10_T1w.nii.gz",
             "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"]  # fmt: skip
    root = folder(tmp_path, "participant_id\tage\nsub-01\t60\n", files)
    (root / "sub-01/sub-01_sessions.tsv").write_text("session_id\tage\nses-1\tn/a\nses-2\t63.5\n")
    listing = bids.read_bids(root)
    assert [(s.session, s.age, s.participant) for s in listing.scans] == [
        ("ses-1", 60.0, "sub-01"),
        ("ses-2", 63.5, "sub-01"),
    ]
    assert "run-2" in listing.scans[0].path.name and reasons(listing) == ["extra run or image"]


def test_people_are_neither_merged_nor_lost(tmp_path):
    table = "participant_id\tage\nsub-1\t40\nsub-01\t60\nsub-007\t70\nn/a\t50\n"
    listing = bids.read_bids(folder(tmp_path, table, anat("1", "01", "7", "001")))
    assert ages(listing) == {"sub-1": 40.0, "sub-01": 60.0, "sub-007": 70.0}
    assert reasons(listing) == ["id is missing", "no row in participants.tsv"]


def sessions_of(subject, labels):
    return [f"sub-{subject}/ses-{s}/anat/sub-{subject}_ses-{s}_T1w.nii.gz" for s in labels]


@pytest.mark.parametrize(
    ("labels", "first"),
    [
        (["1", "2"], "1"),
        (["9", "10"], "9"),
        (["2", "10"], "2"),
        (["20231104", "20190102"], "20190102"),
        (["M12", "M06"], "M06"),
        (["baseline"], "baseline"),
    ],
)
def test_the_age_of_a_person_is_that_of_the_first_session(tmp_path, labels, first):
    listing = bids.read_bids(folder(tmp_path, "participant_id\tage\nsub-01\t60\n", sessions_of("01", labels)))
    assert [(scan.session, scan.age) for scan in listing.scans] == [(f"ses-{first}", 60.0)]
    assert reasons(listing) == ["age at a later session is unknown"] * (len(labels) - 1) and not listing.notes


@pytest.mark.parametrize("labels", [["pre", "post"], ["initial", "followup"], ["a", "b"], ["v1", "w2"]])
def test_where_the_order_of_sessions_cannot_be_told_nobody_guesses(tmp_path, labels):
    files = [*sessions_of("01", labels), *anat("02")]
    listing = bids.read_bids(folder(tmp_path, "participant_id\tage\nsub-01\t60\nsub-02\t50\n", files))
    assert ages(listing) == {"sub-02": 50.0} and reasons(listing) == ["age at which session is unknown"] * 2


def test_a_first_session_that_is_not_read_is_still_the_first(tmp_path):
    files = ["sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01/ses-2/anat/sub-01_ses-2_space-MNI_T1w.nii.gz",
             "sub-02/ses-1/anat/sub-02_ses-1_space-MNI_T1w.nii.gz"]  # fmt: skip
    root = folder(tmp_path, "participant_id\tage\nsub-01\t60\nsub-02\t50\n", files)
    listing = bids.read_bids(root, space="MNI")
    assert ages(listing) == {"sub-02": 50.0} and "age at a later session is unknown" in reasons(listing)


def test_a_first_session_that_is_later_than_that_of_others_is_noted(tmp_path):
    files = [*sessions_of("01", ["01", "02"]), *sessions_of("02", ["02"])]
    listing = bids.read_bids(folder(tmp_path, "participant_id\tage\nsub-01\t60\nsub-02\t50\n", files))
    assert ages(listing) == {"sub-01": 60.0, "sub-02": 50.0}
    assert listing.notes == (
        "people without a scan of ses-01, 1 in number: the table's age was taken for their first scan",
    )


def test_units_that_nobody_knows_are_refused(tmp_path):
    root = folder(tmp_path, "participant_id\tage\nsub-01\t18\n", anat("01"))
    (root / "participants.json").write_text(json.dumps({"age": {"Units": "minutes"}}))
    with pytest.raises(UsageError, match="gives age in 'minutes'"):
        bids.read_bids(root)


def test_mixed_spaces_are_noted(tmp_path):
    files = [f"sub-0{i}/anat/sub-0{i}_space-MNI{i}_desc-preproc_T1w.nii.gz" for i in (1, 2)]
    listing = bids.read_bids(folder(tmp_path, "participant_id\tage\nsub-01\t60\nsub-02\t61\n", files))
    assert "different spaces (MNI1, MNI2)" in listing.notes[0]


def test_an_unfetched_mask_is_not_overlooked(tmp_path):
    scan = "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
    root = folder(tmp_path, "participant_id\tage\nsub-01\t60\n", [scan])
    (root / "sub-01/anat/sub-01_desc-brain_mask.nii.gz").symlink_to("../../.git/annex/objects/x")
    assert bids.read_bids(root).scans[0].mask is not None


def test_what_is_not_raw_is_not_walked(tmp_path):
    files = [*anat("01"), "derivatives/x/" + anat("01")[0], "sourcedata/" + anat("01")[0], ".git/" + anat("01")[0],
             *anat("02"), "sub-01/anat/sub-01_T2w.nii.gz", "sub-01/anat/sub-01_T1w.json", "sub-01/anat/sub-01_T1w.img"]  # fmt: skip
    root = folder(tmp_path, "participant_id\tage\nsub-01\t60\nsub-02\t50\n", files)
    (root / ".bidsignore").write_text("# comment\nsub-02/\n")
    listing = bids.read_bids(root)
    assert [scan.path.relative_to(root).as_posix() for scan in listing.scans] == anat("01")


def test_derivatives_with_their_mask(tmp_path):
    raw = folder(tmp_path / "raw", "participant_id\tage\nsub-01\t60\n")
    derived = raw / "derivatives/smriprep"
    stem = "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_res-2_desc-"
    for name in (stem + "preproc_T1w.nii.gz", stem + "brain_mask.nii.gz", "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"):
        (derived / name).parent.mkdir(parents=True, exist_ok=True)
        (derived / name).touch()
    (scan,) = bids.read_bids(derived).scans
    assert scan.path == derived / (stem + "preproc_T1w.nii.gz")
    assert scan.mask == derived / (stem + "brain_mask.nii.gz")
    with pytest.raises(UsageError, match="no T1w scan with space-MNI305"):
        bids.read_bids(derived, space="MNI305")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("participant_id\tweight\nsub-01\t70\n", r"no column for the age; it has: participant_id, weight"),
        ("participant_id\tage\tage\nsub-01\t1\t2\n", "repeated column name"),
        ("participant_id,age\nsub-01,60\n", "separated otherwise than by tabs"),
        ("participant_id\tage\nsub-01\t60\n01\t61\n", "gives sub-01 the age 60 in one row and 61 in another"),
        ("participant_id\tage\nsub-01\t60\tx\n", "row 2, has 3 cells under 2 columns"),
        ("participant_id\tage\nsub-01\tn/a\n", r"no scan is left \(1 x age is missing\)"),
        ("", "is empty"),
    ],
)
def test_refusals_name_the_file_and_the_remedy(tmp_path, table, message):
    root = folder(tmp_path, table, anat("01"))
    with pytest.raises(UsageError, match=message) as refusal:
        bids.read_bids(root)
    assert str(root) in str(refusal.value)


def test_missing_folders_and_files(tmp_path):
    with pytest.raises(UsageError, match="^root is .*: there is no such folder"):
        bids.read_bids(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"has no participants.tsv"):
        bids.read_bids(tmp_path)
    with pytest.raises(UsageError, match="^root is .*: it holds no T1w scan"):
        bids.read_bids(folder(tmp_path, "participant_id\tage\nsub-01\t60\n"))


def test_linked_folders_are_entered_and_links_that_lead_back_are_not(tmp_path):
    real = folder(tmp_path / "real", "participant_id\tage\nsub-01\t60\nsub-02\t61\n", anat("01", "02"))
    virtual = folder(tmp_path / "virtual", (real / "participants.tsv").read_text())
    (virtual / "sub-01").symlink_to(real / "sub-01")
    (virtual / "sub-02").mkdir()
    (virtual / "sub-02" / "anat").symlink_to(real / "sub-02" / "anat")
    (real / "sub-01" / "anat" / "around").symlink_to(real)
    (virtual / "sub-02" / "up").symlink_to(virtual)
    assert ages(bids.read_bids(real)) == ages(bids.read_bids(virtual)) == {"sub-01": 60.0, "sub-02": 61.0}
    listing = bids.read_bids(virtual)
    assert len(listing.scans) == 2 and not listing.dropped


def test_a_folder_of_derivatives_is_known_from_wherever_it_is_named(tmp_path, monkeypatch):
    raw = folder(tmp_path / "raw", "participant_id\tage\nsub-01\t60\n")
    (raw / "derivatives").mkdir()
    derived = folder(raw / "derivatives" / "fmriprep", "", anat("01"))
    (derived / "participants.tsv").unlink()
    monkeypatch.chdir(raw / "derivatives")
    assert ages(bids.read_bids("fmriprep")) == {"sub-01": 60.0}
    monkeypatch.chdir(derived)
    assert ages(bids.read_bids(".")) == {"sub-01": 60.0}


def test_refusals_point_to_the_other_ways_of_reading(tmp_path):
    root = folder(tmp_path / "bids", "participant_id\tage\n01\t60\n")
    with pytest.raises(
        UsageError, match="^root is .*holds no T1w scan .*read from a table of paths, with data.source=table"
    ):
        bids.read_bids(root)
    with pytest.raises(UsageError, match="^root is .*it is a file; to read a table of scans set data.source to table"):
        bids.read_bids(root / "participants.tsv")
    (root / "participants.tsv").unlink()
    with pytest.raises(
        UsageError, match="^participants is None: .*has no participants.tsv; add one .*or set it to another table"
    ):
        bids.read_bids(root)

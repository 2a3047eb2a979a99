"""Ages at sessions: wherever BIDS lets them stand, in whatever unit, and never two different ones in silence."""

import json

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data import bids

PEOPLE = ("01", "02", "03")


def write(file, *lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def scans(root, sessions=("01", "02"), middle=""):
    for sub in PEOPLE:
        for ses in sessions:
            file = root / f"sub-{sub}/ses-{ses}/anat/sub-{sub}_ses-{ses}{middle}_T1w.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def own_tables(root, ages):
    """A table a person; ``ages`` are those of the sessions 01 and 02 of the first person, the next is a year older."""
    for more, sub in enumerate(PEOPLE):
        lines = [f"ses-{ses}\t{age + more}" for ses, age in zip(("01", "02"), ages, strict=True)]
        write(root / f"sub-{sub}/sub-{sub}_sessions.tsv", "session_id\tage", *lines)


def root_table(root, ages):
    pairs = [(sub, ses, ages[i] + k) for k, sub in enumerate(PEOPLE) for i, ses in enumerate(("01", "02"))]
    lines = [f"sub-{sub}\tses-{ses}\t{age}" for sub, ses, age in pairs]
    write(root / "sessions.tsv", "participant_id\tsession_id\tage", *lines)


def participants(root, *ages):
    head, rows = ("participant_id\tage", [f"\t{age}" for age in ages]) if ages else ("participant_id", [""] * 3)
    write(root / "participants.tsv", head, *(f"sub-{sub}{row}" for sub, row in zip(PEOPLE, rows)))


def read(root, **options):
    listing = bids.read_bids(root, **options)
    return {(scan.participant, scan.session): round(scan.age, 2) for scan in listing.scans}, listing


EXPECTED = {
    (f"sub-{sub}", f"ses-{ses}"): age + k for k, sub in enumerate(PEOPLE) for ses, age in (("01", 50), ("02", 60))
}


@pytest.mark.parametrize("tables", [own_tables, root_table])
@pytest.mark.parametrize("at_baseline", [(), (50, 51, 52)])
def test_one_table_a_person_or_one_for_all_with_or_without_an_age_of_the_person(tmp_path, tables, at_baseline):
    scans(tmp_path)
    participants(tmp_path, *at_baseline)
    tables(tmp_path, (50, 60))
    assert read(tmp_path)[0] == EXPECTED


@pytest.mark.parametrize("tables", [own_tables, root_table])
def test_of_derivatives_the_tables_of_the_raw_folder_count(tmp_path, tables):
    derivatives = tmp_path / "derivatives/fmriprep"
    scans(derivatives, sessions=("02",), middle="_space-MNI152NLin2009cAsym_desc-preproc")
    participants(tmp_path, 50, 51, 52)
    tables(tmp_path, (50, 60))
    ages, listing = read(derivatives)
    assert ages == {who: age for who, age in EXPECTED.items() if who[1] == "ses-02"}
    assert not listing.notes  # that the age was taken for the first scan's would be said where it was


@pytest.mark.parametrize("place", ["beside", "inherited", "root table"])
def test_the_unit_stands_beside_the_table_or_once_at_the_root(tmp_path, place):
    scans(tmp_path)
    participants(tmp_path, 61, 62, 63)
    unit = json.dumps({"age": {"Units": "months"}})
    write(tmp_path / "participants.json", unit)
    (root_table if place == "root table" else own_tables)(tmp_path, (61, 84))
    if place == "beside":
        write(tmp_path / "sessions.json", json.dumps({"age": {"Units": "days"}}))  # the nearer one counts
        for sub in PEOPLE:
            write(tmp_path / f"sub-{sub}/sub-{sub}_sessions.json", unit)
    else:
        write(tmp_path / "sessions.json", unit)
    ages, _ = read(tmp_path)
    assert ages["sub-01", "ses-01"] == round(61 / 12, 2) and ages["sub-03", "ses-02"] == round(86 / 12, 2)


def test_ages_that_tables_give_differently_are_refused_with_both(tmp_path):
    scans(tmp_path)
    participants(tmp_path, 50, 51, 70)
    own_tables(tmp_path, (50, 60))
    with pytest.raises(UsageError, match=r"^The age of sub-03 at ses-01 is 70 years \('70' in .*participants.tsv\), and 52 years \('52' in .*sub-03_sessions.tsv\); mend one of the two, or its unit"):  # fmt: skip
        read(tmp_path)
    participants(tmp_path, 50, 51, 52)
    root_table(tmp_path, (50, 61))
    with pytest.raises(UsageError, match=r"sub-01 at ses-02 is 61 years .*sessions.tsv\), and 60 years .*sub-01_sess"):
        read(tmp_path)


def test_a_unit_that_is_not_said_shows_by_the_other_table(tmp_path):
    """Months in the tables of sessions, and nobody says so: refused, where they once were taken for years."""
    scans(tmp_path)
    participants(tmp_path, 5.1, 5.2, 5.3)
    own_tables(tmp_path, (61, 84))
    with pytest.raises(UsageError, match=r"'5.1' in .*'61' in .*or its unit"):
        read(tmp_path)


def test_whole_years_of_a_person_agree_with_an_exact_age_at_a_session(tmp_path):
    scans(tmp_path, sessions=("01",))
    participants(tmp_path, 50, 51, 52)
    own_tables(tmp_path, (50.9, 60.9))
    assert read(tmp_path)[0]["sub-01", "ses-01"] == 50.9


def test_an_age_of_an_earlier_session_that_no_table_has_is_no_contradiction(tmp_path):
    scans(tmp_path)
    participants(tmp_path, 50, 51, 52)
    own_tables(tmp_path, (50, 60))
    for sub in PEOPLE:
        file = tmp_path / f"sub-{sub}/sub-{sub}_sessions.tsv"
        file.write_text("\n".join(line for line in file.read_text().splitlines() if "ses-01" not in line) + "\n")
    assert read(tmp_path)[0] == EXPECTED


def test_lost_zeros_of_people_and_sessions_are_forgiven(tmp_path):
    scans(tmp_path)
    write(tmp_path / "participants.tsv", "participant_id", "1", "2", "3")
    lines = [f"{k}\t{ses}\t{age}" for k in (1, 2, 3) for ses, age in ((1, 49 + k), (2, 59 + k))]
    write(tmp_path / "sessions.tsv", "participant_id\tsession_id\tage", *lines)
    ages, _ = read(tmp_path)
    assert ages == {(f"sub-{int(who[4:])}", ses): age for (who, ses), age in EXPECTED.items()}


def test_without_any_age_the_missing_column_is_named(tmp_path):
    scans(tmp_path)
    participants(tmp_path)
    with pytest.raises(UsageError, match="participants.tsv has no column for the age"):
        read(tmp_path)


def test_a_session_without_an_age_is_dropped_with_its_reason(tmp_path):
    scans(tmp_path)
    participants(tmp_path)
    own_tables(tmp_path, (50, 60))
    write(tmp_path / "sub-02/sub-02_sessions.tsv", "session_id\tage", "ses-01\t51", "ses-02\t18-38")
    ages, listing = read(tmp_path)
    assert ("sub-02", "ses-02") not in ages and ages["sub-02", "ses-01"] == 51
    assert [drop.reason for drop in listing.dropped] == ["age is a range"]

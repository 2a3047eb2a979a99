"""Sources of scans: each lists what is there, and says which options it takes."""

import inspect

import pytest

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data import scan_sources

SMALL = dict(people=2, shape=(8, 8, 8))


def no_progress(items, description, total):
    return items


@pytest.mark.parametrize("name", scan_sources.SCAN_SOURCES)
def test_every_source_lists_what_its_options_say(name):
    source = scan_sources.SCAN_SOURCES[name]
    assert list(inspect.signature(source.list_scans).parameters) == ["root", "cache", "progress", "options"]
    assert len(inspect.signature(source.options_of).parameters) > 1


def test_the_phantom_lies_in_the_cache_under_the_name_of_its_options(tmp_path):
    def folder_of(**options):
        listing = scan_sources.list_phantom("", tmp_path, no_progress, **SMALL, **options)
        (folder,) = {scan.path.relative_to(tmp_path).parts[0] for scan in listing.scans}
        assert folder.startswith("phantom-") and len(listing.scans) == 2
        return folder

    assert folder_of() == folder_of() == folder_of(workers=2)  # threads change nothing
    assert folder_of() != folder_of(seed=4)


def test_the_phantom_lies_where_it_is_told_to(tmp_path):
    listing = scan_sources.list_phantom(str(tmp_path / "mine"), tmp_path / "cache", no_progress, **SMALL)
    assert all(scan.path.is_relative_to(tmp_path / "mine") for scan in listing.scans)
    assert not (tmp_path / "cache").exists()


def test_folders_and_tables_are_read_with_their_options(tmp_path):
    (tmp_path / "t.csv").write_text("id,years,path\na,60,x.nii\n")
    listing = scan_sources.list_table(str(tmp_path / "t.csv"), tmp_path, no_progress, age_col="years")
    assert [(scan.participant, scan.age) for scan in listing.scans] == [("sub-a", 60.0)]
    scan = tmp_path / "sub-01" / "anat" / "sub-01_space-A_T1w.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.touch()
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t61.5\n")
    listing = scan_sources.list_bids(str(tmp_path), tmp_path, no_progress, space="A")
    assert [(scan.participant, scan.age) for scan in listing.scans] == [("sub-01", 61.5)]


@pytest.mark.parametrize(("name", "what"), [("bids", "BIDS folder"), ("table", "CSV or TSV file")])
def test_without_a_root_there_is_nothing_to_read(tmp_path, name, what):
    with pytest.raises(ArgumentError, match=f"^root is '': set it to the {what} to read"):
        scan_sources.SCAN_SOURCES[name].list_scans("", tmp_path, no_progress)

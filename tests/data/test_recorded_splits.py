"""Who trains and who is tested, by the user's own record."""

import numpy as np
import pytest

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data.recorded_splits import recorded_test
from fedsparse_jax.data.scan_tables import read_table

ROWS = [("1", "train"), ("2", "internal_test"), ("3", "Training"), ("4", "validation"), ("5", "n/a"), ("6", "test")]


def table(folder, rows=ROWS):
    lines = [f"{name},{60 + int(name)},{name}.nii,{word}" for name, word in rows]
    (folder / "t.csv").write_text("\n".join(["id,age,path,split", *lines]) + "\n")
    return folder / "t.csv"


def parts(listing):
    return {scan.participant: scan.test_set for scan in listing.scans}


SETS = {"sub-1": "", "sub-2": "internal_test", "sub-3": "", "sub-6": "test"}


def test_a_column_says_who_is_tested_and_who_is_in_neither_set_is_listed(tmp_path):
    listing = read_table(table(tmp_path), splits="split")
    assert parts(listing) == SETS
    assert [(drop.reason, drop.detail) for drop in listing.dropped] == [
        ("split is neither train nor test", "validation"), ("split is neither train nor test", "n/a"),
    ]  # fmt: skip
    assert recorded_test(listing.scans).tolist() == [1, 3]


def test_a_table_of_its_own_says_the_same(tmp_path):
    source = table(tmp_path)
    (tmp_path / "s.tsv").write_text("subject_id\tsplit\n" + "".join(f"00{name}\t{word}\n" for name, word in ROWS[:5]))
    listing = read_table(source, splits=str(tmp_path / "s.tsv"))
    assert parts(listing) == {name: word for name, word in SETS.items() if name != "sub-6"}
    assert listing.dropped[-1].detail == "sub-6"


def test_without_the_option_the_column_is_not_used_and_that_is_said(tmp_path):
    listing = read_table(table(tmp_path))
    assert set(parts(listing).values()) == {""} and recorded_test(listing.scans) is None
    assert "column 'split' was not used; with data.options.splits=split it says who is tested" in listing.notes[-1]


def test_records_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(
        ArgumentError, match="^splits is 'fold': it is no table, and no column of .* id, age, path, split"
    ):
        read_table(table(tmp_path), splits="fold")
    (tmp_path / "s.tsv").write_text("id\tset\n1\ttrain\n")
    with pytest.raises(ArgumentError, match="the table has no column 'split'; it has: id, set"):
        read_table(table(tmp_path), splits=str(tmp_path / "s.tsv"))
    (tmp_path / "t.csv").write_text("id,age,path,split\n1,60,a.nii,train\n1,61,b.nii,test\n")
    with pytest.raises(UsageError, match="has sub-1 in 'train' and in 'test'; nobody may be in two sets"):
        read_table(tmp_path / "t.csv", splits="split")
    for word, other in (("train", "test"), ("test", "train")):
        with pytest.raises(ArgumentError, match=f"^splits is 'split': it leaves nobody in the set '{other}'"):
            read_table(table(tmp_path, [("1", word), ("2", word)]), splits="split")


def test_the_places_are_those_of_the_names_in_order(tmp_path):
    scans = read_table(table(tmp_path, [("9", "train"), ("10", "test"), ("2", "test")]), splits="split").scans
    names = np.unique([scan.participant for scan in scans])
    assert set(names[recorded_test(scans)]) == {"sub-10", "sub-2"}


def test_nobody_is_in_two_sets(tmp_path):
    scans = read_table(table(tmp_path, [("1", "train"), ("2", "internal_test")]), splits="split").scans
    both = (*scans, scans[1]._replace(test_set="external_test"))
    with pytest.raises(
        UsageError, match="^sub-2 is in the internal_test set and the external_test set; mend the table"
    ):
        recorded_test(both)

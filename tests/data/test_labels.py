"""What is predicted: by the name of a column, whatever table it stands in."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data import bids, scan_tables
from fedsparse_jax.data.labels import Label, classes_of, targets_of, with_labels
from fedsparse_jax.data.tables import Listing, NothingLeft, Scan


def scan(name, sex="n/a", **columns):
    return Scan(Path(f"{name}.nii.gz"), f"sub-{name}", "", 50.0, sex, "n/a", columns=columns)


LISTING = Listing(
    (scan("a", "F", iq="101", dx="CN"), scan("b", "M", iq="99,5", dx="AD"), scan("c", iq="n/a", dx="MCI"))
)


def labelled(**of):
    label = Label(**of)
    listing = with_labels(LISTING, label)
    classes = classes_of(listing.scans, label)
    return targets_of(listing.scans, label, classes).tolist(), classes, [drop.reason for drop in listing.dropped]


def test_the_age_is_what_it_was():
    assert labelled() == ([50.0, 50.0, 50.0], (), [])


def test_another_number_with_a_comma_too_and_who_has_none_is_dropped():
    assert labelled(column="IQ") == ([101.0, 99.5], (), ["IQ is missing"])


def test_classes_are_numbered_by_name_or_as_asked():
    assert labelled(column="dx", classified=True) == ([1.0, 0.0, 2.0], ("AD", "CN", "MCI"), [])
    asked = labelled(column="dx", classified=True, classes=("CN", "AD"))
    assert asked == ([0.0, 1.0], ("CN", "AD"), ["dx is none of data.classes"])


def test_the_sex_is_as_the_reader_understood_it():
    assert labelled(column="sex", classified=True) == ([0.0, 1.0], ("F", "M"), ["sex is missing"])


@pytest.mark.parametrize(
    ("of", "kind", "message"),
    [
        (dict(column="bmi"), ArgumentError, r"label is 'bmi': .*they have: dx, iq, sex"),
        (
            dict(column="dx"),
            NothingLeft,
            r"no scan has a label in the column 'dx' \(3 x dx is not a number; for classes set --config.task=classification\)",
        ),
        (dict(column="dx", classified=True, classes=("CN",)), ArgumentError, r"it has 1 values? \(CN\)"),
    ],
)
def test_what_is_no_label_is_said(of, kind, message):
    with pytest.raises(kind, match=message):
        labelled(**of)


def test_a_column_of_numbers_is_not_taken_for_hundreds_of_classes():
    many = Listing(tuple(scan(str(i), iq=str(i)) for i in range(60)))
    with pytest.raises(
        ArgumentError, match=r"it has 60 values \(0, 1, 10, ...\); choose a column with 2 to 50 classes"
    ):
        classes_of(many.scans, Label("iq", classified=True))


@pytest.mark.parametrize("with_ages", [True, False])
def test_nobody_needs_an_age_where_something_else_is_predicted(tmp_path, with_ages):
    """A table of scans, a BIDS folder: with and without a column of ages, half of them missing."""
    (tmp_path / "sub-1/anat").mkdir(parents=True)
    for name in ("1", "2"):
        folder = tmp_path / f"sub-{name}/anat"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"sub-{name}_T1w.nii.gz").write_bytes(b"")
    head, rows = "participant_id\tdx", ["sub-1\tCN", "sub-2\tAD"]
    if with_ages:
        head, rows = head + "\tage", [rows[0] + "\t61", rows[1] + "\tn/a"]
    (tmp_path / "participants.tsv").write_text("\n".join([head, *rows]) + "\n")
    table = tmp_path / "scans.tsv"
    paths = [f"sub-{i}/anat/sub-{i}_T1w.nii.gz" for i in (1, 2)]
    table.write_text("\n".join([head + "\tpath", *(f"{row}\t{path}" for row, path in zip(rows, paths))]) + "\n")
    label = Label("dx", classified=True)
    for listing in (bids.read_bids(tmp_path, need_age=False), scan_tables.read_table(table, need_age=False)):
        assert [one.columns["dx"] for one in with_labels(listing, label).scans] == ["CN", "AD"]
        ages = [one.age for one in listing.scans]
        np.testing.assert_equal(ages, [61.0, np.nan] if with_ages else [np.nan, np.nan])
    with pytest.raises(ArgumentError, match="no column for the age") if not with_ages else contextlib.nullcontext():
        assert len(bids.read_bids(tmp_path).scans) == 1

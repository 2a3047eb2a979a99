"""Where the name of a scanner is found: in the columns of the cohorts' tables, and in BIDS sidecars."""

from pathlib import Path

import pytest

from fedsparse_jax.data.scanners import scanner_of
from fedsparse_jax.data.tables import Scan


def scan(path="a.nii", **columns):
    return Scan(Path(path), "sub-1", "", 40.0, "F", "n/a", columns=columns)


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (dict(scanner_manufacturer="Philips", scanner_model="", field_strength="1.5"), "Philips, 1.5 T"),
        (dict(magnetic_field_strength="3.0"), "3 T"),
        (dict(manufacturer="SIEMENS", manufacturersmodelname="Siemens Prisma", magneticfieldstrength="2.8936"),
         "Siemens Prisma, 2.89 T"),
        (dict(manufacturer="n/a", scanner_model="Trio"), "Trio"),
        (dict(site="A"), "n/a"),
    ],
)  # fmt: skip
def test_the_columns_of_cohorts(columns, name):
    assert scanner_of(scan(**columns)) == name


def test_sidecars_are_inherited_and_the_nearest_wins(tmp_path):
    anat = tmp_path / "sub-1/ses-a/anat"
    anat.mkdir(parents=True)
    of = scan(anat / "sub-1_ses-a_T1w.nii.gz")
    assert scanner_of(of) == "n/a"
    (tmp_path / "T1w.json").write_text('{"Manufacturer": "GE", "MagneticFieldStrength": 3}')
    assert scanner_of(of) == "GE, 3 T"
    (anat / "sub-1_ses-a_T1w.json").write_text('{"ManufacturersModelName": "MR750", "MagneticFieldStrength": 1.5}')
    assert scanner_of(of) == "GE MR750, 1.5 T"
    assert scanner_of(of._replace(columns={"field_strength": "7"})) == "GE MR750, 7 T"
    (anat / "sub-1_ses-a_T1w.json").write_text("{broken")
    (tmp_path / "T1w.json").write_text("[]")
    assert scanner_of(of) == "n/a"

"""ABIDE I and II: people with autism and controls of many sites, with one table of phenotypes.

Files are found by the number of a person (``SUB_ID``, five digits, or seven with zeros before) anywhere in their path,
so that INDI's raw folders (``NYU/0050952/session_1/anat_1/mprage.nii.gz``), its BIDS folders and what pipelines make of
both are read alike.
"""

import re
from pathlib import Path

from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.table_files import read_rows
from fedsparse_jax.data.tables import Drop, Listing

_NUMBER = re.compile(r"(?<!\d)(?:00)?([235]\d{4})(?!\d)")  # 50002 and on in ABIDE I, 28675 and on in ABIDE II


def read_abide(
    root: str | Path,
    *,
    participants: str | None = None,
    controls: bool = False,
    contains: str | None = None,
    strict: bool = False,
) -> Listing:
    """The scans of ABIDE.

    Args:
        root: the folder of the scans.
        participants: the table of phenotypes; None for ``Phenotypic*.csv`` or ``ABIDEII*.csv`` in the folder.
        controls: leave out people with autism (``DX_GROUP`` 1).
        contains: what the file's name must hold, where there are several files of a person, such as ``mprage``.
        strict: refuse the folder as soon as an age cannot be read.

    Raises:
        UsageError: no such folder or table, or no scan with such a number.
    """
    root = joining.check_folder(Path(root), "folder of ABIDE's scans")
    table = read_rows(joining.find_table(root, participants, "Phenotypic*.csv", "ABIDEII*.csv"))
    age = next((column for column in table.columns if column.startswith("age_at_scan")), None)
    joining.need_rows(root, table, "sub_id", age or "age_at_scan", *(["dx_group"] if controls else []))
    autism = {_label(row["sub_id"]) for row in table.rows if controls and row["dx_group"] != "2"}
    for row in table.rows:
        row["sub_id"] = _label(row["sub_id"])
    table = table._replace(rows=[row for row in table.rows if row["sub_id"] not in autism])
    found, dropped = [], []
    for path in joining.files_below(root):
        numbers = _NUMBER.findall(path.relative_to(root).as_posix())
        if not numbers or (contains and contains not in path.name):
            continue
        person = _label(numbers[-1])
        if person in autism:
            dropped.append(Drop(str(path), "not a control", person))
        else:
            found.append(joining.Found(path, person))
    site = "site_id" if "site_id" in table.columns else None
    roles = joining.Roles(id="sub_id", age=age, site=site, sex="sex", missing=("-9999", "-9999.0", "`"))
    return joining.join_table(
        root, found, table, roles, names="image with the number of a person in its path", strict=strict, dropped=dropped
    )


def _label(number: str) -> str:
    """The number of a person as folders have it, seven digits."""
    return f"{int(number):07d}" if number.isdigit() else number

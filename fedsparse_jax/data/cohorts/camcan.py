"""Cam-CAN: about 650 people from 18 to 88 years of one scanner (Taylor et al., NeuroImage 2017).

Files are found by the person's code (``CC110033``) in their names, so that the release's BIDS folder and what pipelines
make of it are read alike.
"""

import re
from pathlib import Path

from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.table_files import read_rows
from fedsparse_jax.data.tables import Listing, OtherLayout

_CODE = re.compile(r"CC\d{6}")
_IDS = ("participant_id", "ccid", "observations", "subject", "subject_id", "id")


def read_camcan(
    root: str | Path, *, participants: str | None = None, contains: str = "T1w", strict: bool = False
) -> Listing:
    """The T1w scans of Cam-CAN.

    Args:
        root: the folder of the scans, such as ``.../release004/BIDS_20190411/anat``.
        participants: the table of ages; None for ``participants.tsv`` or ``participant_data.csv`` in the folder.
        contains: what the file's name must hold beside the code.
        strict: refuse the folder as soon as an age cannot be read.

    Raises:
        UsageError: no such folder or table, or no scan with such a code.
    """
    root = joining.check_folder(Path(root), "folder of Cam-CAN's scans")
    table = read_rows(joining.find_table(root, participants, "participants.tsv", "participant_data.csv"))
    id_ = next((column for column in _IDS if column in table.columns), None)
    if id_ is None:
        rule = f"{table.path} has no column {_IDS[0]!r}, nor {' or '.join(_IDS[1:3])}; take Cam-CAN's table"
        raise OtherLayout("root", str(root), rule)
    joining.need_rows(root, table, "age")
    sex = next((column for column in ("gender_code", "gender_text") if column in table.columns), None)
    found = [
        joining.Found(path, match[0], site="CamCAN")
        for path in joining.files_below(root)
        if (match := _CODE.search(path.name)) and contains in path.name
    ]
    roles = joining.Roles(id=id_, age="age", sex=sex)
    return joining.join_table(root, found, table, roles, names="image such as sub-CC110033_T1w.nii.gz", strict=strict)

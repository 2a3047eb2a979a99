"""IXI: about 580 healthy people of three London hospitals, whose file names say the hospital.

The ages stand in a spreadsheet, ``IXI.xls``. It has 26 people twice, mostly once with zeros; whose ages really differ
is left out.
"""

import re
from pathlib import Path

from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.table_files import read_rows
from fedsparse_jax.data.tables import Listing

_NAME = re.compile(r"IXI(\d+)-(Guys|HH|IOP)-\d+-T1(?![0-9])")


def read_ixi(
    root: str | Path, *, participants: str | None = None, ending: str | None = None, strict: bool = False
) -> Listing:
    """The T1w scans of a folder with IXI's names, such as ``IXI002-Guys-0828-T1.nii.gz``, at any depth.

    Args:
        root: the folder.
        participants: the table of ages; None for ``IXI.xls``, ``IXI.xlsx``, ``IXI.csv`` or ``IXI.tsv`` in the folder.
        ending: how the wanted files end before ``.nii.gz``, where there are several of a person, such as
            ``T1_brain_mni``; None for the first.
        strict: refuse the folder as soon as an age cannot be read.

    Raises:
        UsageError: no such folder or table, or no scan of that name.
    """
    root = joining.check_folder(Path(root), "folder of IXI, which holds IXI002-Guys-0828-T1.nii.gz and the like")
    table = read_rows(joining.find_table(root, participants, "IXI.xls", "IXI.xlsx", "IXI.csv", "IXI.tsv"))
    joining.need_rows(root, table, "ixi_id", "age")
    sex = next((name for name in table.columns if name.startswith("sex")), None)
    for row in table.rows:
        number = row["ixi_id"].removeprefix("IXI")
        row["ixi_id"] = f"IXI{int(number):03d}" if number.isdigit() else row["ixi_id"]
    found = []
    for path in joining.files_below(root):
        match = _NAME.search(path.name)
        if match and (not ending or joining.stem_of(path.name).endswith(ending)):
            found.append(joining.Found(path, f"IXI{int(match[1]):03d}", site=match[2]))
    roles = joining.Roles(id="ixi_id", age="age", sex=sex, missing=("0", "0.0"))
    return joining.join_table(root, found, table, roles, names="IXI002-Guys-0828-T1.nii.gz or the like", strict=strict)

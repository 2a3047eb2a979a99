"""OASIS-1: 416 people from 18 to 96 years (Marcus et al., J Cogn Neurosci 2007), as tissue maps or as images.

Two layouts are read: the grey- and white-matter maps that nilearn fetches (``OAS1_0001_MR1/mwrc1OAS1_0001_MR1_...``),
and the discs of the project, whose images are pairs of ``.hdr`` and ``.img``.
"""

import re
from pathlib import Path

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.table_files import read_rows
from fedsparse_jax.data.tables import Drop, Listing

_IMAGES = {
    "grey": re.compile(r"mwr?c1OAS1_(\d{4})_MR(\d)_mpr_anon\w*"),
    "white": re.compile(r"mwr?c2OAS1_(\d{4})_MR(\d)_mpr_anon\w*"),
    "brain": re.compile(r"OAS1_(\d{4})_MR(\d)_mpr_n\d_anon_111_t88_masked_gfc"),
    "head": re.compile(r"OAS1_(\d{4})_MR(\d)_mpr_n\d_anon_111_t88_gfc"),
}


def read_oasis1(
    root: str | Path,
    *,
    images: str = "grey",
    healthy: bool = False,
    participants: str | None = None,
    strict: bool = False,
) -> Listing:
    """The scans of OASIS-1.

    Args:
        root: the folder that holds ``OAS1_0001_MR1`` and the like, at any depth.
        images: ``grey`` or ``white``, tissue maps in MNI space; ``brain``, skull-stripped images in Talairach space
            (the template of Washington University, whose headers do not say how they lie); ``head``, the same with the
            skull. Joined by a comma, such as ``grey,white``, they are the channels.
        healthy: leave out people with a clinical dementia rating above 0.
        participants: the table of ages; None for ``oasis_cross-sectional*`` (csv or xlsx) in the folder.
        strict: refuse the folder as soon as an age cannot be read.

    Raises:
        UsageError: another option, no such folder or table, or no scan of that name.
    """
    kinds = images.replace(" ", "").split(",")
    for kind in kinds:
        joining.refuse_unknown("images", kind, _IMAGES)
    if len({*kinds} & {"grey", "white"}) not in (0, len(kinds)):
        raise ArgumentError("images", images, "tissue maps and images lie in different spaces; choose of one")
    root = joining.check_folder(Path(root), "folder of OASIS-1, which holds OAS1_0001_MR1 and the like")
    table = read_rows(joining.find_table(root, participants, "oasis_cross-sectional*"))
    joining.need_rows(root, table, "id", "age", "m/f", *(["cdr"] if healthy else []))
    demented = {row["id"]: row["cdr"] for row in table.rows if healthy and _is_positive(row["cdr"])}
    table = table._replace(rows=[row for row in table.rows if row["id"] not in demented])
    for row in table.rows:
        row["id"], row["_session"] = row["id"].rsplit("_", 1) if row["id"].count("_") == 2 else (row["id"], "MR1")
    of: dict[str, dict[str, Path]] = {kind: {} for kind in kinds}
    for path in joining.files_below(root):
        for kind in kinds:
            match = _IMAGES[kind].fullmatch(joining.stem_of(path.name))
            if match:
                of[kind].setdefault(f"OAS1_{match[1]}_MR{match[2]}", path)
    found, dropped = [], []
    for name, path in of[kinds[0]].items():
        person, session = name.rsplit("_", 1)
        others = [of[kind].get(name) for kind in kinds[1:]]
        lacking = [kind for kind, other in zip(kinds[1:], others, strict=True) if other is None]
        if name in demented:
            dropped.append(Drop(str(path), "dementia", f"CDR {demented[name]}"))
        elif lacking:
            dropped.append(Drop(str(path), f"no image of {lacking[0]}", name))
        else:
            channels = tuple(other for other in others if other)
            found.append(joining.Found(path, person, session, channels=channels))
    roles = joining.Roles(id="id", age="age", sex="m/f", session="_session")
    return joining.join_table(
        root, found, table, roles, names=f"OAS1_0001_MR1_* of {kinds[0]}", strict=strict, dropped=dropped
    )


def _is_positive(text: str) -> bool:
    """Whether a rating says that there is something."""
    try:
        return float(text) > 0
    except ValueError:
        return False

"""Subject folders of FreeSurfer and FastSurfer: ``SUBJECTS_DIR/<subject>/mri/norm.mgz``, with a table of ages."""

import re
from collections.abc import Iterator
from pathlib import Path

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.tables import Drop, Listing

_STRIPPED = {"norm": (), "brain": (), "brainmask": (), "orig_nu": ("mask", "brainmask"), "nu": ("mask", "brainmask")}
_NO_SUBJECT = re.compile(r"fsaverage\w*|[lr]h\.EC_average|bert\.average")


def read_freesurfer(
    root: str | Path,
    *,
    participants: str | None = None,
    image: str = "norm",
    id_pattern: str | None = None,
    id_col: str | None = None,
    age_col: str | None = None,
    site_col: str | None = None,
    cap_89: bool = False,
    strict: bool = False,
    need_age: bool = True,
) -> Listing:
    """The scans of a folder of subjects.

    Args:
        root: ``SUBJECTS_DIR``.
        participants: the table of ages; None for ``participants.tsv`` or ``.csv`` in the folder.
        image: ``norm``, ``brain`` or ``brainmask``, which have no skull; ``orig_nu`` or ``nu``, of which the mask in
            the same folder (``mask.mgz``, else ``brainmask.mgz``) takes it away.
        id_pattern: a regular expression whose group is the id in a subject's name; None for the ids of BIDS, or the
            whole name.
        id_col, age_col, site_col: columns of the table, if not found by their usual names.
        cap_89, strict, need_age: as in `scan_tables.read_table`.

    Raises:
        UsageError: another option, no such folder or table, or no subject with that image.
    """
    joining.refuse_unknown("image", image, _STRIPPED)
    root = joining.check_folder(Path(root), "SUBJECTS_DIR, which holds a folder a subject")
    table = joining.read_ages(root, participants, need_age)
    found: list[joining.Found] = []
    dropped: list[Drop] = []
    for outcome in _subjects(root, image, id_pattern):
        found += [outcome] if isinstance(outcome, joining.Found) else []
        dropped += [outcome] if isinstance(outcome, Drop) else []
    if not found and any(drop.reason == f"no mri/{image}.mgz" for drop in dropped):
        others = [name for name in _STRIPPED if any(root.glob(f"*/mri/{name}.mgz"))]
        rule = f"no subject of {root} has mri/{image}.mgz; there is: {', '.join(others) or 'none of its kind'}"
        raise ArgumentError("image", image, rule)
    roles = joining.usual_roles(table, id_col, age_col, site_col)
    how = dict(names=f"<subject>/mri/{image}.mgz", cap_89=cap_89, strict=strict, need_age=need_age, dropped=dropped)
    return joining.join_table(root, found, table, roles, **how)  # type: ignore[arg-type]


def _subjects(root: Path, image: str, id_pattern: str | None) -> Iterator[joining.Found | Drop]:
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name.startswith(".") or _NO_SUBJECT.fullmatch(folder.name):
            continue
        path = folder / "mri" / f"{image}.mgz"
        if not (folder / "mri").is_dir():
            yield Drop(str(folder), "no folder mri")
        elif ".long." in folder.name:
            yield Drop(str(folder), "of the longitudinal stream", "its cross-sectional scan is read")
        elif not path.is_file():
            yield Drop(str(folder), f"no mri/{image}.mgz")
        elif (who := joining.person_and_session(folder.name, id_pattern)) is None:
            yield Drop(str(folder), "name without an id", f"id_pattern is {id_pattern}")
        else:
            masks = [folder / "mri" / f"{name}.mgz" for name in _STRIPPED[image]]
            mask = next((mask for mask in masks if mask.is_file()), None)
            if _STRIPPED[image] and mask is None:
                yield Drop(str(folder), "no brain mask", f"{image}.mgz has the skull")
            else:
                yield joining.Found(path, *who, mask=mask)

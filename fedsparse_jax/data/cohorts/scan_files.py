"""Scans whose names are ids, in a folder or by a pattern, with a table of ages."""

import glob
import itertools
from pathlib import Path

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.grids import grid_of_option
from fedsparse_jax.data.tables import Drop, Listing, check_volumes


def read_files(
    root: str | Path,
    *,
    participants: str | None = None,
    id_pattern: str | None = None,
    affine=None,
    volumes: int = 1,
    id_col: str | None = None,
    age_col: str | None = None,
    site_col: str | None = None,
    cap_89: bool = False,
    strict: bool = False,
    need_age: bool = True,
) -> Listing:
    """The scans of a folder, or those that a pattern such as ``scans/*_brain.nii.gz`` names.

    Args:
        root: the folder, read to any depth, or the pattern.
        participants: the table of ages; None for ``participants.tsv`` or ``.csv`` in the folder.
        id_pattern: a regular expression whose group is the id in a file's name; None for the ids of BIDS, or the whole
            name.
        affine: how arrays (``.npy``) lie: a member of ``grids.GRIDS``, or the numbers of the matrix.
        volumes: of a four-dimensional file, which are then its channels.
        id_col, age_col, site_col: columns of the table, if not found by their usual names.
        cap_89, strict, need_age: as in `scan_tables.read_table`.

    Raises:
        UsageError: no such folder or table, no file, or an array of which nobody says how it lies.
    """
    check_volumes(volumes)
    folder, paths = _files(str(root))
    table = joining.read_ages(folder, participants, need_age)
    found, dropped = [], []
    for path in paths:
        who = joining.person_and_session(joining.stem_of(path.name), id_pattern)
        if who is None:
            dropped.append(Drop(str(path), "name without an id", f"id_pattern is {id_pattern}"))
        else:
            found.append(joining.Found(path, *who, volumes=volumes, grid=grid_of_option(affine, path)))
    roles = joining.usual_roles(table, id_col, age_col, site_col)
    how = dict(names="image", cap_89=cap_89, strict=strict, need_age=need_age, dropped=dropped)
    return joining.join_table(folder, found, table, roles, **how)  # type: ignore[arg-type]


def _files(root: str) -> tuple[Path, list[Path]]:
    """The folder, and the files of a folder or a pattern."""
    if Path(root).is_dir():
        return Path(root), list(joining.files_below(Path(root)))
    if not glob.has_magic(root):
        raise ArgumentError("root", root, "there is no such folder; set it to the folder of the scans, or to a pattern")
    paths = [path for path in map(Path, sorted(glob.glob(root, recursive=True))) if joining.is_image(path.name)]
    if not paths:
        raise ArgumentError(
            "root", root, "no image has such a name; set it to the folder of the scans, or to a pattern"
        )
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), Path(root).parts)
    return Path(*plain), paths

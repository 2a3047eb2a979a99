"""OpenBHB: 3,984 healthy people of 62 sites, as NumPy arrays (Dufumier et al., NeuroImage 2022, 263:119637).

The arrays do not say how they lie; the data set's templates do, or, where ``resource/`` was not fetched, their known
affines. Both spaces are MNI's, so that nothing is registered here.
"""

import re
from pathlib import Path
from typing import NamedTuple

import nibabel as nib

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.grids import GRIDS, Grid
from fedsparse_jax.data.table_files import read_rows
from fedsparse_jax.data.tables import Drop, Listing, OtherLayout


class _Space(NamedTuple):
    name: re.Pattern  # of its files
    template: str  # in resource/
    grid: str  # of the template, where it was not fetched


_SPACES = {
    "quasiraw": _Space(
        re.compile(r"sub-(\w+?)_preproc-quasiraw_T1w\.npy"), "quasiraw_space-MNI152_desc-brain_T1w.nii.gz", "mni182"
    ),
    "vbm": _Space(
        re.compile(r"sub-(\w+?)_preproc-cat12vbm_desc-gm_T1w\.npy"),
        "cat12vbm_space-MNI152_desc-gm_TPM.nii.gz",
        "mni121",
    ),
}
_PARTS = {"train": "", "internal_test": "internal", "external_test": "external"}
_TESTS = {"internal": {"internal"}, "external": {"external"}, "both": {"internal", "external"}}
_SITES = ("site", "sitexacq", "study")


def read_openbhb(
    root: str | Path, *, space: str = "quasiraw", test: str = "both", site_col: str = "site", strict: bool = False
) -> Listing:
    """The scans of an OpenBHB folder.

    Args:
        root: the folder that holds ``participants.tsv``, with ``train/`` and ``val/`` beside it.
        space: ``quasiraw``, skull-stripped T1w images at 1 mm, or ``vbm``, grey-matter maps of CAT12 at 1.5 mm.
        test: which of the two test sets is the test set: ``internal``, of the sites of the training; ``external``, of
            sites that the training never saw; ``both`` as one. Whoever is in the other one is left out.
        site_col: ``site``, or ``siteXacq``, which tells the protocols of a site apart, or ``study``.
        strict: refuse the folder as soon as an age cannot be read.

    Raises:
        UsageError: another option, no such folder, or a table without the columns of OpenBHB.
    """
    joining.refuse_unknown("space", space, _SPACES)
    joining.refuse_unknown("test", test, _TESTS)
    joining.refuse_unknown("site_col", site_col.lower(), _SITES)
    root = joining.check_folder(Path(root), "folder of OpenBHB, which holds participants.tsv")
    if not (root / "participants.tsv").is_file():
        raise OtherLayout("root", str(root), "it holds no participants.tsv; set it to the folder of OpenBHB")
    table = read_rows(root / "participants.tsv")
    joining.need_rows(root, table, "participant_id", "age", "split", site_col.lower())
    tested_of = {row["participant_id"].removeprefix("sub-"): _part(table.path, row["split"]) for row in table.rows}
    grid = _grid_of(root / "resource", _SPACES[space])
    found, dropped = [], []
    for path in joining.files_below(root):
        match = _SPACES[space].name.fullmatch(path.name)
        if match is None:
            continue
        tested = tested_of.get(match[1], "")
        if tested and tested not in _TESTS[test]:
            dropped.append(Drop(str(path), f"of the {tested} test set", f"test is {test}"))
            continue
        folder = path.parent.name
        session = folder[4:] if folder.startswith("ses-") else ""
        found.append(joining.Found(path, match[1], session, grid=grid, test_set=tested))
    asked = {"", *_TESTS[test]}
    table = table._replace(rows=[row for row in table.rows if _PARTS[row["split"]] in asked])
    roles = joining.Roles(id="participant_id", age="age", site=site_col.lower())
    return joining.join_table(
        root, found, table, roles, names=f"sub-*_preproc-*_T1w.npy of {space}", strict=strict, dropped=dropped
    )


def _part(table: Path, split: str) -> str:
    """The test set of a row; empty for the training."""
    if split not in _PARTS:
        raise UsageError(f"{table} has {split!r} in its column split; it must be one of {', '.join(_PARTS)}.")
    return _PARTS[split]


def _grid_of(resource: Path, space: _Space) -> Grid:
    """How the arrays of a space lie: as its template does."""
    template, known = resource / space.template, GRIDS[space.grid]
    if not template.is_file():
        return known
    try:
        image = nib.Nifti1Image.from_filename(template)
    except Exception as error:  # nibabel raises many types for a bad header
        raise UsageError(
            f"{template} cannot be read ({error}); fetch it again, or remove it, as its affine is known."
        ) from error
    return Grid(tuple(tuple(float(number) for number in row) for row in image.affine), tuple(image.shape[:3]))

"""How the voxels of an array lie in space, for files that do not say it themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import ArgumentError


class Grid(NamedTuple):
    """How the voxels of an array lie in space."""

    affine: tuple[tuple[float, ...], ...]  # four rows of four, voxel to RAS mm
    shape: tuple[int, ...] | None = None  # of every array that lies so; None for any


def is_array(path: Path) -> bool:
    """Whether a file holds an array without its place in space."""
    return path.suffix.lower() == ".npy"


def grid_of_option(affine, path: Path) -> Grid | None:
    """The grid that an option ``affine`` means for a file; None for an image, which says it itself.

    Args:
        affine: a member of ``GRIDS``, or three or four rows of four numbers, voxel to RAS mm; None or
            empty for neither.
        path: the file.

    Raises:
        ArgumentError: it is neither, or it is needed and not given.
    """
    affine = affine or None if isinstance(affine, str) else affine
    if isinstance(affine, str) and affine not in GRIDS:
        raise ArgumentError("affine", affine, f"it must be one of {', '.join(GRIDS)}, or the numbers of the matrix")
    grid = GRIDS[affine] if isinstance(affine, str) else None if affine is None else Grid(_rows_of(affine))
    if grid is None and is_array(path):
        rule = f"{path} is an array that does not say how its voxels lie; set it to one of {', '.join(GRIDS)}"
        raise ArgumentError("affine", affine, rule)
    return grid if is_array(path) else None


def _rows_of(numbers: Sequence) -> tuple[tuple[float, ...], ...]:
    try:
        rows = np.array(numbers, float)
        rows = rows.reshape(-1, 4)[:3] if rows.size in (12, 16) else rows
        matrix = np.vstack([rows, [0, 0, 0, 1]])
        invertible = matrix.shape == (4, 4) and np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-9
    except (TypeError, ValueError):
        invertible = False
    if not invertible:
        rule = f"it must be one of {', '.join(GRIDS)}, or three rows of four numbers, voxel to RAS mm"
        raise ArgumentError("affine", numbers, rule)
    return tuple(tuple(map(float, row)) for row in matrix)


def _grid(voxel: float, origin: tuple[float, float, float], shape: tuple[int, int, int], left: bool) -> Grid:
    """A grid with its axes along those of space; ``left``: the first runs from right to left, as FSL and SPM write."""
    x, y, z = origin
    rows = ((-voxel if left else voxel, 0.0, 0.0, x), (0.0, voxel, 0.0, y), (0.0, 0.0, voxel, z), (0.0, 0.0, 0.0, 1.0))
    return Grid(rows, shape)


GRIDS: dict[str, Grid] = {
    "mni182": _grid(1.0, (90.0, -126.0, -72.0), (182, 218, 182), left=True),  # FSL's MNI152, 1 mm
    "mni91": _grid(2.0, (90.0, -126.0, -72.0), (91, 109, 91), left=True),  # the same, 2 mm
    "mni121": _grid(1.5, (90.0, -126.0, -72.0), (121, 145, 121), left=True),  # SPM and CAT12, 1.5 mm
    "mni193": _grid(1.0, (-96.0, -132.0, -78.0), (193, 229, 193), left=False),  # MNI152NLin2009cAsym, 1 mm
}

"""One scan to what training reads of it: an image or several, each a channel, from image files or NumPy arrays.

A ``.npy`` file does not say how its voxels lie. The source of the scans does (the template of the data set, or an
option); without that an array is refused, because left and right would be a guess.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data import nifti
from fedsparse_jax.data.grids import Grid, is_array
from fedsparse_jax.data.nifti import Image, Quality, ScanError
from fedsparse_jax.data.tables import Scan

MAX_ITEM = 8  # bytes of a voxel in an array file


def load_volume(path: Path, grid: Grid | None = None, volume: int | None = None, volumes: int = 1) -> Image:
    """Reads and checks a volume, by what its name says it is: `load_array` for ``.npy``, else `nifti.load_image`."""
    return load_array(path, grid) if is_array(path) else nifti.load_image(path, volume, volumes)


def load_array(path: Path, grid: Grid | None) -> Image:
    """Reads and checks the one volume of a ``.npy`` file; axes of length 1 do not count.

    Args:
        path: the file, which is memory-mapped; nothing in it is unpickled.
        grid: how it lies; None is refused.

    Raises:
        ScanError: it is no array of numbers with three axes, of another shape than the grid's, or implausible.
    """
    nifti.check_file(path)
    if grid is None:
        raise ScanError(path, "an array without an affine", "save it as NIfTI with its affine")
    array = _volume_of(path)
    if grid.shape is not None and array.shape != tuple(grid.shape):
        sides = " x ".join(map(str, grid.shape))
        raise ScanError(path, "an array of another shape", f"it has {array.shape}, its grid {sides} voxels")
    affine = np.array(grid.affine, float)
    nifti.check_field_of_view(path, array.shape, affine)
    try:
        values = np.array(array, np.float32, order="C")
    except OSError as error:
        raise ScanError(path, "unreadable data", f"fetch it again ({nifti.short_text(error)})") from error
    data, warnings = nifti.clean_values(path, values)
    return nifti.in_ras(data, affine, tuple(warnings))


def _volume_of(path: Path) -> np.ndarray:
    """The array of three axes in a file, memory-mapped."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # no array, a pickle, fewer bytes than its header claims, ...
        raise ScanError(path, "no NumPy array", f"save it by numpy.save ({nifti.short_text(error)})") from error
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > MAX_ITEM:
        raise ScanError(path, f"an array of {array.dtype}", "save the grey levels as float32")
    sides = [side for side in array.shape if side != 1]
    if len(sides) != 3:
        raise ScanError(path, f"an array of {len(sides)} axes", f"its shape is {array.shape}; give one volume a file")
    if math.prod(sides) * max(4, array.dtype.itemsize) > nifti.MAX_BYTES:
        raise ScanError(path, "implausible size", f"its shape is {array.shape}; give one volume a file")
    return array.reshape(sides)


def prepare_channels(
    scan: Scan, shape, align: str, normalise: str, kept: Path | None = None
) -> tuple[np.ndarray, Quality]:
    """A scan to ``f32[*shape, channels]`` as training sees it, and what a person should know about it.

    Every channel is brought onto the grid by its own affine, and normalised by itself. The quality is that of the first
    channel, with the warnings of all. One image alone may be registered, which is kept in the file ``kept``.

    Raises:
        ScanError: a file cannot be used, or nothing of it falls onto the grid.
    """
    prepared = []
    for channel in range(scan.num_channels):
        path = scan.path if scan.volumes > 1 else (scan.path, *scan.channels)[channel]
        load: Callable[[Path], Image] = nifti.load_image
        if scan.volumes > 1 or is_array(path):
            volume = channel if scan.volumes > 1 else None
            load = functools.partial(load_volume, grid=scan.grid, volume=volume, volumes=scan.volumes)
        prepared.append(nifti.prepare_scan(path, scan.mask, shape, align, normalise, load, kept))
    first, *others = prepared
    if not others:
        return first[0][..., np.newaxis], first[1]
    more = [f"channel {i}: {warning}" for i, (_, of) in enumerate(others, 2) for warning in of.warnings]
    quality = first[1]._replace(warnings=(*first[1].warnings, *more))
    return np.stack([values for values, _ in prepared], -1), quality


def count_channels(scans: Sequence[Scan]) -> int:
    """How many images each head has.

    Raises:
        UsageError: not all have as many.
    """
    counts = {scan.num_channels: scan for scan in scans}
    if len(counts) > 1:
        told = ", ".join(f"{scan.path} has {count}" for count, scan in sorted(counts.items()))
        raise UsageError(f"Not all scans have as many channels ({told}); leave out those that lack one.")
    return next(iter(counts))

"""Volumes onto other grids, linearly and without aliasing; grids are given by affines, voxel to RAS mm."""

import itertools
import math

import numpy as np
from scipy import ndimage


def resample(data: np.ndarray, to_voxel: np.ndarray, shape) -> np.ndarray:
    """``data`` where ``to_voxel`` takes the voxels of a grid of ``shape``; linear, 0 outside, ``f32[*shape]``.

    Where that grid is coarser than the volume, a Gaussian goes first whose width (FWHM) makes up the difference in
    quadrature.
    """
    steps = np.linalg.norm(to_voxel[:3, :3], axis=1)  # voxels of the volume for one of the grid, along its axes
    sigma = np.sqrt(np.maximum(steps**2 - 1, 0)) / (2 * math.sqrt(2 * math.log(2)))
    smooth = ndimage.gaussian_filter(data, sigma) if sigma.any() else data
    return ndimage.affine_transform(
        smooth, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=tuple(shape), order=1, output=np.float32
    )


def resample_evenly(data: np.ndarray, affine: np.ndarray, step: float, fit: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A volume on a grid along RAS with ``step`` mm between voxels, over all of its extent.

    Args:
        data: ``f32[X, Y, Z]``.
        affine: ``f64[4, 4]``; it may be oblique or sheared.
        step: mm.
        fit: each side becomes a multiple of so many voxels.

    Returns:
        ``(f32[X', Y', Z'], affine f64[4, 4])``
    """
    corners = np.array(list(itertools.product(*[(0, size - 1) for size in data.shape]))) @ affine[:3, :3].T
    low, high = corners.min(0) + affine[:3, 3], corners.max(0) + affine[:3, 3]
    shape = -(-(np.ceil((high - low) / step).astype(int) + 1) // fit) * fit
    target = np.diag([step, step, step, 1.0])
    target[:3, 3] = (low + high) / 2 - (shape - 1) * step / 2
    return resample(data, np.linalg.inv(affine) @ target, shape), target


def halve(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of blocks of 2 x 2 x 2 voxels, and their affine; an odd last voxel is left out.

    >>> coarse, affine = halve(np.arange(8.0).reshape(2, 2, 2), np.eye(4))
    >>> coarse.ravel().tolist(), affine[:, 3].tolist()
    ([3.5], [0.5, 0.5, 0.5, 1.0])
    """
    x, y, z = (size // 2 for size in data.shape)
    means = data[: 2 * x, : 2 * y, : 2 * z].reshape(x, 2, y, 2, z, 2).mean((1, 3, 5))
    return means, affine @ np.array([[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0.5], [0, 0, 0, 1]])

"""Do raw scans land where the template is? Each scan twice, as it is and moved by a known turn and shift."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from fedsparse_jax.data import bids, nifti
from fedsparse_jax.data.coarse_brain import BRAIN_CENTRE
from fedsparse_jax.data.registration import brain_on_grid, register
from fedsparse_jax.data.resampling import resample
from fedsparse_jax.data.templates import load_template
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.reporting.plots_scans import registration_sheet

PICTURE_GRID = (91, 109, 91)  # 2 mm
TURN, SHIFT = 20.0, 25.0  # degrees about a random axis, and mm in a random direction
RIGHT = (0.9, 3.0)  # least Dice, and most mm between the scan and its moved copy
EDGE = 70.0  # mm from the template's centre: where two registrations are compared, in six directions


class Landing(NamedTuple):
    """How one scan landed."""

    name: str
    overlap: float
    correlation: float
    rotation: float  # degrees
    scale: float
    off: float  # mm between the scan and its moved copy, mean over six places at the edge of the brain
    volume: np.ndarray  # f32[*PICTURE_GRID]

    @property
    def right(self) -> bool:
        """Whether it counts as landed."""
        return self.overlap >= RIGHT[0] and self.off <= RIGHT[1]


def judge_registration(
    root: Path, workers: int = 1, progress: Callable = lambda items, description, total: items
) -> list[Landing]:
    """Registers every scan of a BIDS folder twice.

    Args:
        root: the folder.
        workers: scans at a time.
        progress: progress, ``(items, description, total) -> items``.
    """
    load_template()
    scans = bids.read_bids(root).scans
    with ThreadPoolExecutor(workers) as pool:
        landings = pool.map(lambda entry: _judge(entry[1].participant, entry[1].path, entry[0]), enumerate(scans))
        return list(progress(landings, "Registering scans", len(scans)))


def _judge(name: str, path: Path, seed: int) -> Landing:
    image = nifti.load_image(path)
    found = register(image.data, image.affine)
    moved = _known_move(seed)
    again = register(image.data, moved @ image.affine)
    places = np.concatenate([EDGE * np.eye(3), -EDGE * np.eye(3)]) + BRAIN_CENTRE
    homogeneous = np.concatenate([places, np.ones((6, 1))], axis=1).T
    apart = (np.linalg.inv(moved) @ again.move - found.move) @ homogeneous
    affine = nifti.grid_affine(PICTURE_GRID)
    volume = nifti.to_grid(found.unbias(image.data, image.affine), image.affine, PICTURE_GRID, move=found.move)
    volume = np.where(brain_on_grid(affine, PICTURE_GRID, found.head), volume, 0)
    off = float(np.linalg.norm(apart[:3], axis=0).mean())
    return Landing(name, off=off, volume=volume, **found.figures)


def _known_move(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    axis, direction = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(TURN * axis, degrees=True).as_matrix()
    move[:3, 3] = SHIFT * direction
    return move


def landings_table(landings: list[Landing]) -> str:
    """A row a scan, as Markdown, and the count of those that landed."""
    head = ("scan", "Dice", "correlation", "turned by", "template scaled by", "moved copy off by", "right")
    rows = [
        (one.name, f"{one.overlap:.3f}", f"{one.correlation:.2f}", f"{one.rotation:.1f}°", f"{one.scale:.2f}",
         f"{one.off:.2f} mm", "yes" if one.right else "no")
        for one in landings
    ]  # fmt: skip
    return markdown_table(head, rows) + f"\n{sum(one.right for one in landings)} of {len(landings)} landed right."


def landings_figure(landings: list[Landing]):
    """Slices of every registered scan under the outline of the template's brain."""
    template = load_template()
    to_voxel = np.linalg.inv(template.affine) @ nifti.grid_affine(PICTURE_GRID)
    outline = resample(template.inside.astype(np.float32), to_voxel, PICTURE_GRID)
    own = resample(template.intensity, to_voxel, PICTURE_GRID)
    titles = ["template", *(one.name for one in landings)]
    return registration_sheet([own, *(one.volume for one in landings)], outline, titles)

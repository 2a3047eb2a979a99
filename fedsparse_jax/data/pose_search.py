"""Where in a head the brain is, and which way up: the coarse template tried at every place, turned in many ways.

The score of a place is the correlation of the template with what lies under it, over the template's brain and a rim of
8 mm. All places of one turn are scored at once by Fourier transforms (masked normalised cross-correlation; Padfield,
IEEE TIP 2012, https://doi.org/10.1109/TIP.2011.2181402). No start has to be near.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from fedsparse_jax.data.coarse_brain import BRAIN_CENTRE, about_centre, load_coarse_brain, orientations

STEP = 8.0  # mm, of the scan and of the template
REACH = 13  # voxels from the template's centre that hold it, however it is turned
HEADER_BONUS = 0.05  # of correlation: another orientation than the header's must be better by so much
RIVAL = 0.1  # of correlation: a second orientation that is worse by more is not looked at
PITCHES, ROLLS, TRIED_SCALES = (-24, -12, 0, 12, 24), (-12, 0, 12), (0.88, 1.0)  # degrees, degrees, factors


class Pose(NamedTuple):
    """A place of the template in a scan."""

    score: float  # correlation, less `HEADER_BONUS` where the header's orientation is not kept
    move: np.ndarray  # f64[4, 4], template mm to scan mm


def search_poses(coarse: np.ndarray, affine: np.ndarray) -> list[Pose]:
    """The places where the template fits, the best first.

    Args:
        coarse: ``f32[X, Y, Z]``, a scan in RAS order with voxels of 8 mm.
        affine: ``f64[4, 4]``, voxel to RAS mm, without rotation.
    """
    field = _Field(coarse, affine)
    first = [field.best(turn, 1.0, HEADER_BONUS * (i > 0)) for i, turn in enumerate(orientations())]
    scores = np.array([pose.score for pose in first])
    order = [i for i in np.argsort(-scores, kind="stable")[:2] if scores[i] > scores.max() - RIVAL]
    finer = [
        field.best(_tilt(pitch, roll) @ orientations()[i], scale, HEADER_BONUS * (i > 0))
        for i in order for pitch in PITCHES for roll in ROLLS for scale in TRIED_SCALES
    ]  # fmt: skip
    return sorted(finer, key=lambda pose: -pose.score)


def _tilt(pitch: float, roll: float) -> np.ndarray:
    return Rotation.from_euler("xyz", [pitch, roll, 0], degrees=True).as_matrix()


class _Field:
    """A scan with its Fourier transforms, to be searched for the template."""

    def __init__(self, coarse: np.ndarray, affine: np.ndarray):
        brightest = np.percentile(coarse[coarse > 0.05 * coarse.max()], 98)
        padded = np.pad(np.minimum(coarse, brightest) / brightest, REACH + 1).astype(np.float32)
        self.places = tuple(size - 2 * REACH for size in padded.shape)
        self.corner = affine[:3, 3] - STEP  # mm of the template's centre at the first place
        self.sides = [fft.next_fast_len(size, real=True) for size in padded.shape]
        self.values, self.squares = (fft.rfftn(values, self.sides) for values in (padded, padded**2))

    def best(self, turn: np.ndarray, scale: float, malus: float) -> Pose:
        """The best place of the template, turned and scaled."""
        template, rim = _turned_template(turn, scale)
        count = rim.sum()
        centred = np.where(rim, template - template[rim].mean(), 0)
        product = self._under(self.values, centred / np.linalg.norm(centred))
        total, squares = self._under(self.values, rim), self._under(self.squares, rim)
        spread = np.sqrt(np.maximum(squares - total**2 / count, 0.01 * squares.max()))
        score = product / spread
        place = np.unravel_index(score.argmax(), score.shape)
        centre = self.corner + STEP * np.array(place)
        return Pose(float(score[place]) - malus, about_centre(turn, scale, centre))

    def _under(self, transformed, kernel: np.ndarray) -> np.ndarray:
        """Sums of scan times kernel, for every place of the kernel that lies within the padded scan."""
        other = np.conj(fft.rfftn(kernel.astype(np.float32), self.sides))
        x, y, z = self.places
        return fft.irfftn(transformed * other, self.sides)[:x, :y, :z]


def _turned_template(turn: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The template about its centre on a cube of 8 mm voxels, and its brain with the rim."""
    coarse = load_coarse_brain()
    side = 2 * REACH + 1
    cube = np.diag([STEP, STEP, STEP, 1.0])
    cube[:3, 3] = -REACH * STEP
    to_voxel = np.linalg.inv(coarse.affine) @ about_centre(turn.T, 1 / scale) @ _shift(BRAIN_CENTRE) @ cube
    near = ndimage.binary_dilation(coarse.inside > 0.5).astype(np.float32)
    template, rim = (_lookup(values, to_voxel, side) for values in (coarse.intensity, near))
    return template, rim > 0.5


def _shift(millimetres) -> np.ndarray:
    move = np.eye(4)
    move[:3, 3] = millimetres
    return move


def _lookup(values: np.ndarray, to_voxel: np.ndarray, side: int) -> np.ndarray:
    return ndimage.affine_transform(values, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=(side,) * 3, order=1)

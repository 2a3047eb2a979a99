"""A brain in 8,000 bytes: how bright it is on average, 8 mm at a time, and where it is.

``coarse_brain.npz`` is the ICBM 152 nonlinear symmetric template (release 2009a) and its brain mask, averaged over
blocks of 8 mm by ``scripts/make_coarse_brain.py``; `templates.LICENCE` is its licence. It suffices to tell whether a
volume is a brain, and which way up it lies.
"""

import functools
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.data.resampling import resample

COARSE_FILE = Path(__file__).with_name("coarse_brain.npz")
BRAIN_CENTRE = (0.0, -22.0, 9.5)  # RAS mm, centre of mass of the template's brain
BRAIN_ENDS_SHARE = 0.02  # of the template's brain that lies beyond each of the ends
BRAIN_ENDS = ((-61.3, -92.3, -51.7), (60.9, 59.1, 69.0))  # RAS mm: left, back and bottom; right, front and top


class CoarseBrain(NamedTuple):
    """The template, 8 mm at a time."""

    intensity: np.ndarray  # f32[25, 30, 24], 0 outside the brain, 1 where it is brightest
    inside: np.ndarray  # f32[25, 30, 24], share of each box that is brain
    affine: np.ndarray  # f64[4, 4], voxel to RAS mm


@functools.cache
def load_coarse_brain() -> CoarseBrain:
    """The template that the package brings with it."""
    with np.load(COARSE_FILE) as stored:
        intensity, inside = (stored[name].astype(np.float32) / 255 for name in ("intensity", "inside"))
        return CoarseBrain(intensity, inside, stored["affine"])


def onto_coarse_brain(volume: np.ndarray, affine: np.ndarray, move: np.ndarray | None = None) -> np.ndarray:
    """A volume on the coarse template's grid; ``move`` (none: nothing) takes the template's mm to the volume's."""
    template = load_coarse_brain()
    to_mm = template.affine if move is None else move @ template.affine
    return resample(volume, np.linalg.inv(affine) @ to_mm, template.intensity.shape)


@functools.cache
def orientations() -> tuple[np.ndarray, ...]:
    """The 24 ways to lay down a cube, as rotations ``f64[3, 3]``; the first turns nothing."""
    turns = []
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.zeros((3, 3))
            turn[range(3), axes] = signs
            if np.linalg.det(turn) > 0:
                turns.append(turn)
    return tuple(sorted(turns, key=lambda turn: -np.trace(turn)))


def about_centre(turn: np.ndarray, scale: float = 1.0, centre=BRAIN_CENTRE) -> np.ndarray:
    """Template mm to mm, ``f64[4, 4]``: turned and scaled about the template's centre, which goes to ``centre``."""
    move = np.eye(4)
    move[:3, :3] = scale * turn
    move[:3, 3] = np.asarray(centre) - scale * turn @ BRAIN_CENTRE
    return move


@functools.cache
def turned_brains() -> np.ndarray:
    """The coarse template in each of the `orientations`, ``f32[24, 18000]``, each of mean 0 and length 1."""
    template = load_coarse_brain()
    brain = template.intensity * (template.inside > 0.5)
    rows = np.array([onto_coarse_brain(brain, template.affine, about_centre(turn.T)) for turn in orientations()])
    return unit_rows(rows.reshape(len(rows), -1))


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows without their mean and of length 1, so that products of two are correlations."""
    centred = rows - rows.mean(-1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-12)

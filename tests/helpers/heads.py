"""Heads whose place is known: the template itself, made to look like a scan, in its own space or moved."""

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fedsparse_jax.data.templates import load_template

SCALP, MARROW, FLUID = (9, 16, 0.9), (5, 9, 0.13), (0, 3, 0.11)  # mm from the brain, and how bright


def template_brain(seed=0):
    """A stripped brain with another contrast, noise and a bias that doubles from back to front: ``(data, affine)``."""
    template = load_template()
    bias = np.exp(np.linspace(-0.35, 0.35, template.inside.shape[1]))[:, None]
    noise = 0.03 * np.random.default_rng(seed).standard_normal(template.inside.shape)
    brain = np.where(template.inside, template.intensity**0.9 * bias + noise, 0).clip(0)
    return (900 * brain).astype(np.float32), template.affine


def with_skull(brain, affine, pad=10):
    """The same within a skull with marrow, under a scalp."""
    data = np.pad(brain, pad)
    grid = affine @ np.array([[1, 0, 0, -pad], [0, 1, 0, -pad], [0, 0, 1, -pad], [0, 0, 0, 1]])
    filled = ndimage.binary_closing(data > 0, iterations=3)
    away = ndimage.distance_transform_edt(~filled, sampling=np.abs(np.diag(affine))[:3])
    for low, high, bright in (SCALP, MARROW, FLUID):
        data = data + np.where((away > low) & (away <= high), bright * np.percentile(brain[brain > 0], 90), 0)
    return data.astype(np.float32), grid


def rigid(turns, shift, scale=1.0):
    """A move, ``f64[4, 4]``: degrees about x, y and z, mm, and a factor."""
    move = np.eye(4)
    move[:3, :3] = scale * Rotation.from_euler("xyz", turns, degrees=True).as_matrix()
    move[:3, 3] = shift
    return move


def distances(one, other):
    """Millimetres between two moves, at the centre of the brain and at six places at its edge."""
    places = np.concatenate([np.zeros((1, 3)), 65 * np.eye(3), -65 * np.eye(3)]) + (0, -22, 9.5)
    apart = (one - other) @ np.concatenate([places, np.ones((7, 1))], axis=1).T
    return np.linalg.norm(apart[:3], axis=0)

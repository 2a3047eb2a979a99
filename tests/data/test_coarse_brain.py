"""The coarse brain that the package brings with it, and the grids that volumes are brought onto."""

import numpy as np
import pytest

from fedsparse_jax.data import coarse_brain, resampling


def test_it_is_small_and_lies_where_it_says():
    template = coarse_brain.load_coarse_brain()
    assert coarse_brain.COARSE_FILE.stat().st_size < 10_000
    assert template.intensity.shape == template.inside.shape == (25, 30, 24)
    where = np.indices(template.inside.shape).reshape(3, -1)
    centre = (where * template.inside.ravel()).sum(1) / template.inside.sum() * 8 + template.affine[:3, 3]
    np.testing.assert_allclose(centre, coarse_brain.BRAIN_CENTRE, atol=0.1)
    assert template.inside.sum() * 0.512e-3 == pytest.approx(1.883, abs=0.01)  # litres of the template's mask


def test_there_are_24_orientations_each_with_an_inverse_among_them():
    turns = coarse_brain.orientations()
    assert len(turns) == 24 and (turns[0] == np.eye(3)).all()
    assert len({turn.tobytes() for turn in turns}) == 24
    for turn in turns:
        assert np.linalg.det(turn) == 1 and any((turn @ other == np.eye(3)).all() for other in turns)


def test_a_turn_about_the_centre_leaves_the_centre():
    turn = coarse_brain.orientations()[7]
    move = coarse_brain.about_centre(turn, 1.3, (1, 2, 3))
    np.testing.assert_allclose(move @ (*coarse_brain.BRAIN_CENTRE, 1), (1, 2, 3, 1))
    assert np.linalg.det(move) == pytest.approx(1.3**3)


def test_the_turned_brains_are_like_themselves_and_less_like_the_others():
    brains = coarse_brain.turned_brains()
    alike = brains @ brains.T
    np.testing.assert_allclose(np.diag(alike), 1, atol=1e-5)
    assert (alike - np.eye(24)).max() < 0.95


def ball(affine, shape):
    where = np.indices(shape).transpose(1, 2, 3, 0) @ affine[:3, :3].T + affine[:3, 3]
    return (np.linalg.norm(where - (10, -20, 5), axis=-1) < 40).astype(np.float32)


def test_an_oblique_volume_goes_onto_an_even_grid_where_it_is():
    oblique = np.array([[2.6, 0.8, 0, -70], [-0.8, 2.6, 0, -60], [0, 0.5, 3, -70], [0, 0, 0, 1]])
    data = ball(oblique, (60, 40, 50))
    even, grid = resampling.resample_evenly(data, oblique, 4.0, fit=4)
    assert all(side % 4 == 0 for side in even.shape) and (np.diag(grid)[:3] == 4).all()
    where = np.indices(even.shape).reshape(3, -1)
    centre = (where * even.ravel()).sum(1) / even.sum() * 4 + grid[:3, 3]
    np.testing.assert_allclose(centre, (10, -20, 5), atol=0.3)
    assert even.sum() * 64 == pytest.approx(data.sum() * np.linalg.det(oblique), rel=0.02)


def test_halves_keep_the_mean_and_the_place():
    data = np.random.default_rng(0).normal(size=(9, 8, 6)).astype(np.float32)
    affine = np.array([[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1.0]])
    half, grid = resampling.halve(data, affine)
    assert half.shape == (4, 4, 3) and half.mean() == pytest.approx(data[:8].mean(), abs=1e-6)
    np.testing.assert_allclose(half[1, 2, 0], data[2:4, 4:6, :2].mean(), rtol=1e-5)
    np.testing.assert_allclose(grid @ (0, 0, 0, 1), (affine @ (0, 0, 0, 1) + affine @ (1, 1, 1, 1)) / 2)

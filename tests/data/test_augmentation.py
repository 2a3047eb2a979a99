"""Augmentation by hand: what moves where, what is drawn from what, and that nothing is left of it at an amount of 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data.augmentation import (
    AUGMENTATIONS,
    basic_augmentation,
    gaussian_noise,
    random_flip,
    random_intensity,
    random_rotation,
    random_shift,
    turn_example,
)
from tests.helpers.count_traces import count_traces

VOLUMES = np.random.default_rng(0).normal(size=(6, 7, 6, 5, 2)).astype(np.float32)
IMAGES = VOLUMES[:, :, :, 0]
KEY = jax.random.key(3)


@pytest.mark.parametrize("inputs", [VOLUMES, IMAGES], ids=["volumes", "images"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
class TestContract:
    def test_shape_type_one_trace_and_the_key_alone(self, name, inputs):
        augment, traces = count_traces(AUGMENTATIONS[name]())
        once = augment(KEY, jnp.asarray(inputs))
        assert once.shape == inputs.shape and once.dtype == jnp.float32 and bool(jnp.isfinite(once).all())
        np.testing.assert_array_equal(once, augment(KEY, jnp.asarray(inputs)))
        assert bool((once != inputs).any()) and bool((augment(jax.random.key(4), jnp.asarray(inputs)) != once).any())
        assert traces() == 1

    def test_an_example_does_not_hang_on_those_beside_it(self, name, inputs):
        augment = jax.jit(AUGMENTATIONS[name]())
        others = jnp.asarray(inputs).at[2:].set(jnp.nan)
        np.testing.assert_array_equal(augment(KEY, others)[:2], augment(KEY, jnp.asarray(inputs))[:2])
        np.testing.assert_allclose(augment(KEY, jnp.asarray(inputs[:2])), augment(KEY, others)[:2], atol=1e-6)
        same = augment(KEY, jnp.broadcast_to(inputs[:1], inputs.shape))
        assert len(np.unique(np.asarray(same).reshape(len(same), -1), axis=0)) > 1  # each draws for itself


def shifted(volume, steps):
    """With NumPy: every voxel is read ``steps`` before, the edge beyond it."""
    padded = np.pad(volume, [(9, 9)] * len(steps) + [(0, 0)], mode="edge")
    return padded[tuple(slice(9 - s, 9 - s + n) for s, n in zip(steps, volume.shape))]


@pytest.mark.parametrize("inputs", [VOLUMES, IMAGES], ids=["volumes", "images"])
def test_a_shift_is_one_of_those_there_are_and_repeats_the_edge(inputs):
    axes, found = inputs.ndim - 2, set()
    for seed in range(8):
        for before, after in zip(inputs, random_shift(1)(jax.random.key(seed), jnp.asarray(inputs))):
            fits = [s for s in np.ndindex(*(3,) * axes) if np.array_equal(shifted(before, np.array(s) - 1), after)]
            assert len(fits) == 1
            found.add(fits[0])
    assert len(found) > 3**axes / 2 and {s[0] for s in found} == {0, 1, 2}


@pytest.mark.parametrize(("inputs", "axis"), [(VOLUMES, 1), (IMAGES, 2)], ids=["volumes", "images"])
def test_a_flip_mirrors_left_and_right(inputs, axis):
    np.testing.assert_array_equal(random_flip(1.0)(KEY, jnp.asarray(inputs)), np.flip(inputs, axis))
    np.testing.assert_array_equal(random_flip(0.0)(KEY, jnp.asarray(inputs)), inputs)
    many = jnp.broadcast_to(inputs[0], (400, *inputs[0].shape))
    mirrored = (np.asarray(random_flip(0.25)(KEY, many)) != inputs[0]).any(tuple(range(1, inputs.ndim)))
    assert 70 < mirrored.sum() < 130  # of 400 with chance 1/4: 100, standard deviation 9


def test_intensities_are_a_line_of_the_old_ones_for_each_channel():
    lines = []
    for before, after in zip(VOLUMES, np.asarray(random_intensity(0.2, 0.3)(KEY, jnp.asarray(VOLUMES)))):
        for channel in range(2):
            slope, offset = np.polyfit(before[..., channel].ravel(), after[..., channel].ravel(), 1)
            np.testing.assert_allclose(slope * before[..., channel] + offset, after[..., channel], atol=1e-5)
            lines.append((slope, offset))
    slopes, offsets = np.array(lines).T
    assert (abs(slopes - 1) < 0.2).all() and (abs(offsets) < 0.3).all() and np.ptp(slopes) > 0.1 < np.ptp(offsets)


def test_noise_has_the_standard_deviation_that_was_asked_for():
    inputs = jnp.zeros((20, 10, 10, 10, 1))
    noise = np.asarray(gaussian_noise(0.5)(KEY, inputs))
    assert noise.std() == pytest.approx(0.5, rel=0.02) and abs(noise.mean()) < 0.02  # 20000 values
    assert len(np.unique(noise)) > 19000


@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 2)])
def test_a_quarter_turn_is_that_of_numpy(axes):
    cube = VOLUMES[0, :5, :5, :5]
    turn = np.eye(3, dtype=np.float32)
    turn[np.ix_(axes, axes)] = [[0, -1], [1, 0]]
    np.testing.assert_allclose(turn_example(jnp.asarray(cube), jnp.asarray(turn)), np.rot90(cube, 1, axes), atol=1e-5)


def test_a_small_turn_agrees_with_scipy():
    angle = np.deg2rad(7.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    centre = (np.array(VOLUMES.shape[1:4]) - 1) / 2
    expected = ndimage.affine_transform(
        VOLUMES[0, ..., 0].astype(float), turn.T, centre - turn.T @ centre, order=1, mode="nearest"
    )
    got = turn_example(jnp.asarray(VOLUMES[0]), jnp.asarray(turn, jnp.float32))
    np.testing.assert_allclose(got[..., 0], expected, atol=1e-4)


@pytest.mark.parametrize("inputs", [VOLUMES, IMAGES], ids=["volumes", "images"])
def test_amounts_of_0_change_nothing(inputs):
    inputs = jnp.asarray(inputs)
    for augment in (random_shift(0), random_flip(0.0), random_intensity(0.0, 0.0), gaussian_noise(0.0)):
        np.testing.assert_array_equal(augment(KEY, inputs), inputs)
    np.testing.assert_array_equal(basic_augmentation(0, 0.0, 0.0, 0.0, 0.0, 0.0)(KEY, inputs), inputs)
    np.testing.assert_allclose(random_rotation(0.0)(KEY, inputs), inputs, atol=1e-5)


def test_a_basic_one_is_the_chosen_ones_one_after_another():
    both = basic_augmentation(shift=1, flip=0.0, scale=0.0, offset=0.0, noise=0.2)(KEY, jnp.asarray(VOLUMES))
    moved = random_shift(1)(jax.random.fold_in(KEY, 1), jnp.asarray(VOLUMES))
    np.testing.assert_array_equal(both, gaussian_noise(0.2)(jax.random.fold_in(KEY, 4), moved))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (random_shift, dict(voxels=-1)),
        (random_shift, dict(voxels=1.5)),
        (random_flip, dict(chance=1.1)),
        (random_intensity, dict(scale=1.5)),
        (random_intensity, dict(offset=-1.0)),
        (gaussian_noise, dict(std=float("nan"))),
        (random_rotation, dict(degrees=-3.0)),
        (basic_augmentation, dict(shift=-1)),
        (basic_augmentation, dict(flip=2.0)),
        (basic_augmentation, dict(noise=-1.0)),
        (basic_augmentation, dict(rotation=200.0)),
    ],
)
def test_amounts_that_cannot_be_are_refused_by_their_names(make, options):
    ((name, value),) = options.items()
    with pytest.raises(ArgumentError, match=f"^{name} is {value}: it"):
        make(**options)

"""Convolution by tiles and Winograd's against XLA's, forward and backward, in float64; and the layout by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.models import layers
from fedsparse_jax.models.conv import tiles, winograd
from tests.helpers.xla_layers import agree, random, xla_conv


@pytest.mark.parametrize("shape", [(6, 4, 2), (1, 3, 5)])
@pytest.mark.parametrize("how", ["winograd", "direct"])
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_formulations_in_three_dimensions(float64, shape, how, channels):
    args = random(2, *shape, channels), random(3, 3, 3, channels, 4, seed=1), random(4, seed=2)
    agree(lambda *a: layers.convolve(*a, how=how), xla_conv, *args)


@pytest.mark.parametrize("shape", [(6,), (5, 8)])
@pytest.mark.parametrize("how", ["winograd", "direct"])
def test_fewer_dimensions_agree_with_columns(float64, shape, how):
    args = random(2, *shape, 3), random(*[3] * len(shape), 3, 4, seed=1), random(4, seed=2)
    agree(lambda *a: layers.convolve(*a, how=how), lambda *a: layers.convolve(*a, how="columns"), *args)


@pytest.mark.parametrize("how", [pytest.param("winograd", marks=pytest.mark.slow), "direct"])
def test_under_vmap_over_kernels(float64, how):
    inputs, kernels, bias = random(3, 2, 4, 5, 6, 2), random(3, 3, 3, 3, 2, 4, seed=1), random(4, seed=2)
    together = jax.vmap(lambda x, k: layers.convolve(x, k, bias, how))(inputs, kernels)
    for i in range(3):
        np.testing.assert_allclose(together[i], xla_conv(inputs[i], kernels[i], bias), atol=1e-12)


@pytest.mark.parametrize("how", ["winograd", "direct"])
def test_second_derivatives_of_a_block(float64, how):
    # GraSP differentiates the squared norm of a gradient.
    inputs, kernel = random(1, 6, 5, 2), random(3, 3, 2, 3, seed=1)

    def squared_norm(k, how):
        slope = jax.grad(lambda k: (jnp.tanh(layers.normed_pool(inputs, k, how)) ** 2).sum())(k)
        return (slope**2).sum()

    curved = [jax.jit(jax.grad(squared_norm), static_argnums=1)(kernel, way) for way in (how, "columns")]
    np.testing.assert_allclose(*curved, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_a_block_shares_the_gradient_among_equal_voxels(float64):
    # A constant image is one tie; its kernel's gradient is that of the mean of the equals: zero after the norm.
    inputs, kernel = jnp.ones((1, 6, 6, 6, 1)), random(3, 3, 3, 1, 2)
    slopes = [
        jax.jit(jax.grad(lambda k, how=how: layers.normed_pool(inputs, k, how)[0, 1, 1, 1].sum()))(kernel)
        for how in ("direct", "winograd", "columns")
    ]
    for slope in slopes[:2]:
        np.testing.assert_allclose(slope, slopes[2], atol=1e-10)


# --- the layout ---------------------------------------------------------------------------------


def test_tiles_by_hand():
    # A row of 5 has 3 tiles; the last hangs over the edge, and what it holds beyond is cut off.
    assert tiles.counts((5, 4)) == (3, 2)
    row = jnp.array([[[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [99.0]]])[jnp.newaxis]
    assert tiles.untile(row, (5,)).ravel().tolist() == [1, 2, 3, 4, 5]
    assert tiles.pool_tiles(row, (5,)).ravel().tolist() == [2, 4]
    mean, variance = tiles.moments(row, (5,))
    assert float(mean.squeeze()) == 3 and float(variance.squeeze()) == 2
    assert mean.shape == variance.shape == (1, 1, 1)


def test_a_row_of_inputs_padded_for_its_tiles():
    # One zero before; behind it one where the side is even, two where it is odd. Each tile of 2 reads 4.
    row = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    assert tiles.pad(row).ravel().tolist() == [0, 1, 2, 3, 0, 0]
    assert [copy.ravel().tolist() for copy in tiles.reads(row)] == [[0, 2], [1, 3], [2, 0], [3, 0]]
    assert tiles.pad(row[:, :2]).ravel().tolist() == [0, 1, 2, 0]


@pytest.mark.slow
@pytest.mark.parametrize("space", [(6, 4, 2), (3, 4, 5), (5,), (3, 3)])
@pytest.mark.parametrize("convolve", [tiles.direct, winograd.tiled])
def test_moments_are_those_of_the_image(float64, convolve, space):
    inputs, kernel = random(2, *space, 2), random(*[3] * len(space), 2, 4, seed=1)
    tiled, axes = convolve(inputs, kernel), tuple(range(1, len(space) + 1))
    image = np.asarray(tiles.untile(tiled, space))
    expected = image.mean(axes, keepdims=True), image.var(axes, keepdims=True)
    measured = tiles.moments(tiled, space), tiles.moments_of_inputs(inputs, kernel)
    for moments, which in itertools.product(measured, range(2)):
        np.testing.assert_allclose(moments[which], expected[which], rtol=1e-9, atol=1e-12)

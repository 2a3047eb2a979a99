"""Layers against XLA's own convolution and pooling, forward and backward, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.models import layers
from tests.helpers.xla_layers import agree, random, xla_conv, xla_pool


@pytest.mark.parametrize(("size", "channels", "out"), [(3, 1, 2), (3, 3, 2), (1, 3, 4)])
def test_convolution_agrees_with_xla(float64, size, channels, out):
    kernel = random(size, size, size, channels, out, seed=1)
    agree(layers.convolve, xla_conv, random(2, 4, 5, 3, channels), kernel, random(out, seed=2))


def test_the_choice_of_formulation():
    shapes = lambda b, side, i, o, k=3: (jnp.zeros((b, side, side, side, i)), jnp.zeros((k, k, k, i, o)))
    assert layers.formulation(*shapes(4, 16, 32, 64)) == "winograd"
    assert layers.formulation(*shapes(4, 32, 1, 32)) == "direct"  # one channel
    assert layers.formulation(*shapes(4, 16, 8, 16)) == "columns"  # few channels
    assert layers.formulation(*shapes(4, 2, 256, 256)) == "columns"  # four tiles
    assert layers.formulation(*shapes(4, 16, 32, 64, 1)) == "columns"


def test_an_unknown_formulation_is_refused():
    for known in ("auto", *layers.FORMULATIONS):
        layers.check_formulation(known)
    with pytest.raises(ArgumentError, match=r"^convolution is 'fft': it must be one of auto, columns"):
        layers.check_formulation("fft")


def xla_block(inputs, kernel):
    convolved = xla_conv(inputs, kernel, 0.0)
    axes = (1, 2, 3)
    mean, variance = convolved.mean(axes, keepdims=True), convolved.var(axes, keepdims=True)
    return xla_pool((convolved - mean) / jnp.sqrt(variance + 1e-3))


@pytest.mark.slow
@pytest.mark.parametrize("how", layers.FORMULATIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [(6, 4, 2), pytest.param((5, 4, 6), marks=pytest.mark.slow), pytest.param((3, 5, 7), marks=pytest.mark.slow)],
)
def test_convolution_norm_and_pooling_as_one_block(float64, shape, channels, how):
    args = random(2, *shape, channels), random(3, 3, 3, channels, 4, seed=1)
    agree(lambda *a: layers.normed_pool(*a, how=how), xla_block, *args)


@pytest.mark.parametrize("shape", [(4, 6, 2), (5, 7, 3)])
def test_pooling_agrees_with_xla(float64, shape):
    agree(layers.max_pool, xla_pool, random(2, *shape, 3))


def test_pooling_by_hand():
    image = jnp.array([[1.0, 5.0, 9.0], [3.0, 2.0, 9.0], [9.0, 9.0, 9.0]]).reshape(1, 3, 3, 1)
    assert layers.max_pool(image).ravel().tolist() == [5.0]  # the odd row and column are left out


def test_instance_norm_by_hand(float64):
    # Values 1 and 3 in one channel: mean 2, variance 1.
    inputs = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1, 1)
    expected = np.array([-1.0, 1.0]) / np.sqrt(1.001)
    np.testing.assert_allclose(layers.instance_norm(inputs).ravel(), expected, rtol=1e-12)


def test_instance_norm_ignores_scale_and_shift(float64):
    inputs = 100 * random(2, 4, 4, 4, 3)
    np.testing.assert_allclose(layers.instance_norm(inputs), layers.instance_norm(7 * inputs + 5), atol=1e-5)


def test_a_shape_must_survive_its_poolings():
    layers.check_poolings((4, 5, 4), 2)
    with pytest.raises(ArgumentError, match=r"^shape is \(4, 3, 4\): .*2 poolings.*at least 4 voxels"):
        layers.check_poolings((4, 3, 4), 2)

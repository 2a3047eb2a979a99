"""Layers against XLA's own convolution and pooling, forward and backward, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.models import layers
from fedsparse_jax.models.brain_age_cnn import brain_age_cnn
from fedsparse_jax.types import UsageError


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def xla_conv(inputs, kernel, bias):
    names = ("NXYZC", "XYZIO", "NXYZC")
    return jax.lax.conv_general_dilated(inputs, kernel, (1, 1, 1), "SAME", dimension_numbers=names) + bias


def xla_pool(inputs):
    return jax.lax.reduce_window(inputs, -jnp.inf, jax.lax.max, (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), "VALID")


def agree(ours, theirs, *args):
    """Values and gradients (of a random projection) agree for all arguments."""
    ours, theirs = jax.jit(ours), jax.jit(theirs)
    weights = random(*jax.eval_shape(theirs, *args).shape, seed=9)
    np.testing.assert_allclose(ours(*args), theirs(*args), atol=1e-12)
    numbers = tuple(range(len(args)))
    slope = lambda function: jax.jit(jax.grad(lambda *a: (function(*a) * weights).sum(), numbers))
    ours_grad, theirs_grad = slope(ours)(*args), slope(theirs)(*args)
    for a, b in zip(ours_grad, theirs_grad):
        np.testing.assert_allclose(a, b, atol=1e-11)


@pytest.mark.parametrize(("size", "channels", "out"), [(3, 1, 2), (3, 3, 2), (1, 3, 4)])
def test_convolve(float64, size, channels, out):
    kernel = random(size, size, size, channels, out, seed=1)
    agree(layers.convolve, xla_conv, random(2, 4, 5, 3, channels), kernel, random(out, seed=2))


def test_a_large_image_of_one_channel(float64, monkeypatch):
    monkeypatch.setattr(layers, "MIN_STACKED", 1)
    agree(layers.convolve, xla_conv, random(2, 4, 5, 3, 1), random(3, 3, 3, 1, 2, seed=1), random(2, seed=2))


@pytest.mark.parametrize("shape", [(6, 4, 2), (1, 3, 5)])
def test_winograd_in_three_dimensions(float64, shape):
    args = random(2, *shape, 3), random(3, 3, 3, 3, 4, seed=1), random(4, seed=2)
    agree(lambda *a: layers.convolve(*a, how="winograd"), xla_conv, *args)


@pytest.mark.parametrize("shape", [(6,), (5, 8)])
def test_winograd_in_fewer_dimensions_agrees_with_columns(float64, shape):
    args = random(2, *shape, 3), random(*[3] * len(shape), 3, 4, seed=1), random(4, seed=2)
    agree(
        lambda *a: layers.convolve(*a, how="winograd"), lambda *a: layers.convolve(*a, how="columns"), *args
    )


def test_winograd_under_vmap_over_kernels(float64):
    inputs, kernels, bias = random(3, 2, 4, 5, 6, 2), random(3, 3, 3, 3, 2, 4, seed=1), random(4, seed=2)
    together = jax.vmap(lambda x, k: layers.convolve(x, k, bias, "winograd"))(inputs, kernels)
    for i in range(3):
        np.testing.assert_allclose(together[i], xla_conv(inputs[i], kernels[i], bias), atol=1e-12)


def test_the_choice_of_formulation():
    shapes = lambda b, side, i, o, k=3: (jnp.zeros((b, side, side, side, i)), jnp.zeros((k, k, k, i, o)))
    assert layers.formulation(*shapes(4, 16, 32, 64)) == "winograd"
    assert layers.formulation(*shapes(4, 32, 1, 32)) == "columns"  # one channel
    assert layers.formulation(*shapes(4, 2, 256, 256)) == "columns"  # four tiles
    assert layers.formulation(*shapes(4, 16, 32, 64, 1)) == "columns"


def test_an_unknown_formulation_is_refused():
    with pytest.raises(UsageError, match="model.convolution is 'fft'"):
        brain_age_cnn((32, 32, 32), convolution="fft")


@pytest.mark.parametrize("shape", [(4, 6, 2), (5, 7, 3)])
def test_max_pool(float64, shape):
    agree(layers.max_pool, xla_pool, random(2, *shape, 3))


def test_instance_norm_by_hand(float64):
    # Values 1 and 3 in one channel: mean 2, variance 1.
    inputs = jnp.array([1.0, 3.0]).reshape(1, 2, 1, 1, 1)
    expected = np.array([-1.0, 1.0]) / np.sqrt(1.001)
    np.testing.assert_allclose(layers.instance_norm(inputs).ravel(), expected, rtol=1e-12)


def test_instance_norm_ignores_scale_and_shift(float64):
    inputs = 100 * random(2, 4, 4, 4, 3)
    np.testing.assert_allclose(layers.instance_norm(inputs), layers.instance_norm(7 * inputs + 5), atol=1e-5)

"""Layers against XLA's own convolution and pooling, forward and backward, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.core.types import UsageError
from fedsparse_jax.models import layers
from fedsparse_jax.models.brain_age_cnn import brain_age_cnn


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


@pytest.mark.parametrize("shape", [(6, 4, 2), (1, 3, 5)])
@pytest.mark.parametrize("how", ["winograd", "direct"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formulations_in_three_dimensions(float64, shape, how, channels):
    args = random(2, *shape, channels), random(3, 3, 3, channels, 4, seed=1), random(4, seed=2)
    agree(lambda *a: layers.convolve(*a, how=how), xla_conv, *args)


@pytest.mark.parametrize("shape", [(6,), (5, 8)])
@pytest.mark.parametrize("how", ["winograd", "direct"])
def test_fewer_dimensions_agree_with_columns(float64, shape, how):
    args = random(2, *shape, 3), random(*[3] * len(shape), 3, 4, seed=1), random(4, seed=2)
    agree(lambda *a: layers.convolve(*a, how=how), lambda *a: layers.convolve(*a, how="columns"), *args)


@pytest.mark.parametrize("how", ["winograd", "direct"])
def test_under_vmap_over_kernels(float64, how):
    inputs, kernels, bias = random(3, 2, 4, 5, 6, 2), random(3, 3, 3, 3, 2, 4, seed=1), random(4, seed=2)
    together = jax.vmap(lambda x, k: layers.convolve(x, k, bias, how))(inputs, kernels)
    for i in range(3):
        np.testing.assert_allclose(together[i], xla_conv(inputs[i], kernels[i], bias), atol=1e-12)


def test_the_choice_of_formulation():
    shapes = lambda b, side, i, o, k=3: (jnp.zeros((b, side, side, side, i)), jnp.zeros((k, k, k, i, o)))
    assert layers.formulation(*shapes(4, 16, 32, 64)) == "winograd"
    assert layers.formulation(*shapes(4, 32, 1, 32)) == "direct"  # one channel
    assert layers.formulation(*shapes(4, 16, 8, 16)) == "columns"  # few channels
    assert layers.formulation(*shapes(4, 2, 256, 256)) == "columns"  # four tiles
    assert layers.formulation(*shapes(4, 16, 32, 64, 1)) == "columns"


def xla_block(inputs, kernel):
    convolved = xla_conv(inputs, kernel, 0.0)
    axes = (1, 2, 3)
    mean, variance = convolved.mean(axes, keepdims=True), convolved.var(axes, keepdims=True)
    return xla_pool((convolved - mean) / jnp.sqrt(variance + 1e-3))


@pytest.mark.parametrize("how", layers.FORMULATIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(6, 4, 2), (5, 4, 6), (3, 5, 7)])
def test_convolution_norm_and_pooling_as_one_block(float64, shape, channels, how):
    args = random(2, *shape, channels), random(3, 3, 3, channels, 4, seed=1)
    agree(lambda *a: layers.normed_pool(*a, how=how), xla_block, *args)


@pytest.mark.parametrize("how", ["winograd", "direct"])
def test_second_derivatives_of_a_block(float64, how):
    # GraSP differentiates the squared norm of a gradient.
    inputs, kernel = random(1, 6, 5, 2), random(3, 3, 2, 3, seed=1)

    def squared_norm(k, how):
        slope = jax.grad(lambda k: (jnp.tanh(layers.normed_pool(inputs, k, how)) ** 2).sum())(k)
        return (slope**2).sum()

    curved = [jax.jit(jax.grad(squared_norm), static_argnums=1)(kernel, one) for one in (how, "columns")]
    np.testing.assert_allclose(*curved, rtol=1e-8, atol=1e-8)


def test_a_block_shares_the_gradient_among_equal_voxels(float64):
    # A constant image is one tie; its kernel's gradient is that of the mean of the equals: zero after the norm.
    inputs, kernel = jnp.ones((1, 6, 6, 6, 1)), random(3, 3, 3, 1, 2)
    slopes = [
        jax.jit(jax.grad(lambda k, how=how: layers.normed_pool(inputs, k, how)[0, 1, 1, 1].sum()))(kernel)
        for how in ("direct", "winograd", "columns")
    ]
    for slope in slopes[:2]:
        np.testing.assert_allclose(slope, slopes[2], atol=1e-10)


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

"""Layers against XLA's own convolution and pooling, forward and backward, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.models import layers


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
    weights = random(*jax.eval_shape(theirs, *args).shape, seed=9)
    np.testing.assert_allclose(ours(*args), theirs(*args), atol=1e-12)
    numbers = tuple(range(len(args)))
    ours_grad = jax.grad(lambda *a: (ours(*a) * weights).sum(), numbers)(*args)
    theirs_grad = jax.grad(lambda *a: (theirs(*a) * weights).sum(), numbers)(*args)
    for a, b in zip(ours_grad, theirs_grad):
        np.testing.assert_allclose(a, b, atol=1e-11)


@pytest.mark.parametrize(("size", "channels", "out"), [(3, 1, 2), (3, 3, 2), (1, 3, 4)])
def test_convolve(float64, size, channels, out):
    kernel = random(size, size, size, channels, out, seed=1)
    agree(layers.convolve, xla_conv, random(2, 4, 5, 3, channels), kernel, random(out, seed=2))


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

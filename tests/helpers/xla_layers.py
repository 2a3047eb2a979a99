"""XLA's own convolution and pooling, and whether two functions have the same values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def xla_conv(inputs, kernel, bias):
    names = ("NXYZC", "XYZIO", "NXYZC")
    convolved = jax.lax.conv_general_dilated(inputs, kernel, (1, 1, 1), "SAME", dimension_numbers=names)
    return convolved + jnp.reshape(bias, (1, 1, 1, 1, -1))


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

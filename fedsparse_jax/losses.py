"""Losses of one example each; the mean over the valid ones."""

import jax.numpy as jnp

from fedsparse_jax.types import Array


def squared(predictions: Array, targets: Array) -> Array:
    """``(prediction - target)**2``, elementwise: years squared for ages."""
    return jnp.square(predictions - targets)


def absolute(predictions: Array, targets: Array) -> Array:
    """``|prediction - target|``, elementwise: years for ages."""
    return jnp.abs(predictions - targets)


def masked_mean(values: Array, valid: Array) -> Array:
    """Mean of the valid values; 0 if there are none. What is not valid may be anything, NaN included."""
    return jnp.where(valid, values, 0).sum() / jnp.maximum(valid.sum(), 1)


LOSSES = {
    "squared": squared,
    "absolute": absolute,
}

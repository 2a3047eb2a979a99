"""Losses of one example each; the mean over the valid ones."""

import jax.numpy as jnp
import optax

from fedsparse_jax.core.types import Array


def squared(predictions: Array, targets: Array) -> Array:
    """``(prediction - target)**2``, elementwise: years squared for ages."""
    return jnp.square(predictions - targets)


def absolute(predictions: Array, targets: Array) -> Array:
    """``|prediction - target|``, elementwise: years for ages."""
    return jnp.abs(predictions - targets)


def cross_entropy(predictions: Array, targets: Array) -> Array:
    """``-log softmax(logits)[target]``, in nats: logits ``[B, K]``, targets ``[B]`` whole numbers below K."""
    return optax.softmax_cross_entropy_with_integer_labels(predictions, targets.astype(jnp.int32))


def is_correct(predictions: Array, targets: Array) -> Array:
    """1 where the largest of the logits ``[B, K]`` is the target's, else 0: ``f32[B]``."""
    return (predictions.argmax(-1) == targets.astype(jnp.int32)).astype(jnp.float32)


def zero_invalid(values: Array, valid: Array) -> Array:
    """``[B, ...]`` with zeros where ``valid bool[B]`` is not, so that not even NaN in padding reaches a gradient."""
    return jnp.where(valid.reshape(-1, *[1] * (values.ndim - 1)), values, 0)


def masked_mean(values: Array, valid: Array) -> Array:
    """Mean of the valid values; 0 if there are none. What is not valid may be anything, NaN included."""
    return jnp.where(valid, values, 0).sum() / jnp.maximum(valid.sum(), 1).astype(values.dtype)


LOSSES = {"squared": squared, "absolute": absolute, "cross_entropy": cross_entropy}

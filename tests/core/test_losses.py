"""Losses by hand, and means that ignore what is not valid."""

import jax.numpy as jnp
import numpy as np

from fedsparse_jax.core import losses


def test_squared_and_absolute_by_hand():
    predictions, targets = jnp.array([60.0, 71.0]), jnp.array([63.0, 70.0])
    assert losses.squared(predictions, targets).tolist() == [9.0, 1.0]
    assert losses.absolute(predictions, targets).tolist() == [3.0, 1.0]


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]))
    targets = jnp.array([1.0, 0.0])
    np.testing.assert_allclose(losses.cross_entropy(logits, targets), -np.log([0.5, 0.1]), rtol=1e-6)
    assert losses.is_correct(logits, targets).tolist() == [1.0, 0.0]


def test_the_mean_ignores_what_is_not_valid():
    values = jnp.array([1.0, jnp.nan, 3.0, jnp.inf])
    assert float(losses.masked_mean(values, jnp.array([True, False, True, False]))) == 2.0
    assert float(losses.masked_mean(values, jnp.zeros(4, bool))) == 0.0

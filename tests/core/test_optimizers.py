"""A step of an optimizer by hand, and its state without the moments of pruned weights."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.core.optimizers import mask_optimizer_state, optimizer_step

PARAMS, GRADIENT = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([4.0, -2.0])}
MASK = {"w": jnp.array([True, False])}


def test_steps_with_momentum_by_hand():
    tx = optax.sgd(0.1, momentum=0.5)
    params, state = optimizer_step(tx, GRADIENT, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(params["w"], [0.6, 2.2], rtol=1e-6)  # 1 - .1 * 4, 2 + .1 * 2
    params, state = optimizer_step(tx, GRADIENT, state, params)
    np.testing.assert_allclose(params["w"], [0.0, 2.5], atol=1e-6)  # momentum 4 + .5 * 4 = 6, and -3


@pytest.mark.parametrize("make", [optax.adam, optax.adafactor, optax.yogi])
def test_optimizers_that_mix_types_make_their_step(make):
    tx = make(0.1)
    params, _ = optimizer_step(tx, GRADIENT, tx.init(PARAMS), PARAMS)
    assert params["w"].dtype == jnp.float32 and bool(jnp.isfinite(params["w"]).all())


def test_moments_of_pruned_weights_are_forgotten():
    tx = optax.adam(0.1)
    _, state = optimizer_step(tx, GRADIENT, tx.init(PARAMS), PARAMS)
    masked = mask_optimizer_state(tx, state, MASK)[0]
    np.testing.assert_allclose(masked.mu["w"], [0.4, 0.0], rtol=1e-5)  # (1 - .9) * 4
    np.testing.assert_allclose(masked.nu["w"], [0.016, 0.0], rtol=1e-5)  # (1 - .999) * 4**2
    assert int(masked.count) == 1


def test_statistics_of_rows_and_columns_stay_as_they_are():
    tx = optax.adafactor(0.1, min_dim_size_to_factor=2)
    params = {"w": jnp.ones((2, 3))}
    state = optimizer_step(tx, params, tx.init(params), params)[1]
    masked = mask_optimizer_state(tx, state, {"w": jnp.zeros((2, 3), bool)})
    for before, after in zip(state[0].v_row.values(), masked[0].v_row.values(), strict=True):
        assert before.tolist() == after.tolist() and bool((after != 0).all())

"""Aggregation rules by hand and against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax import aggregation
from tests import reference

PARAMS = {"w": jnp.array([[1.0, 0.0, 3.0], [3.0, 4.0, 0.0], [0.0, 0.0, 6.0]])}
MASKS = {"w": jnp.array([[True, False, True], [True, True, False], [False, False, True]])}
WEIGHTS = jnp.array([1.0, 1.0, 2.0])


def test_mean_by_hand():
    params, masks = aggregation.mean(PARAMS, MASKS, WEIGHTS)
    assert params["w"].tolist() == [1.0, 1.0, 3.75]  # (1+3)/4, 4/4, (3+12)/4
    assert masks["w"].tolist() == [True, True, True]


def test_majority_vote_by_hand():
    params, masks = aggregation.majority_vote(PARAMS, MASKS, WEIGHTS)
    assert masks["w"].tolist() == [True, False, True]  # votes 2, 1, 2 of 3
    assert params["w"].tolist() == [1.0, 0.0, 3.75]


def test_an_absent_client_has_no_vote():
    params, masks = aggregation.majority_vote(PARAMS, MASKS, jnp.array([1.0, 0.0, 2.0]))
    assert masks["w"].tolist() == [True, False, True]  # votes 1, 0, 2 of 2: half is enough
    np.testing.assert_allclose(params["w"], [1 / 3, 0.0, 5.0], rtol=1e-6)


def test_an_absent_client_may_be_nan():
    params, _ = aggregation.mean(
        {"w": jnp.array([[1.0], [jnp.nan]])}, {"w": jnp.ones((2, 1), bool)}, jnp.array([2.0, 0.0])
    )
    assert params["w"].tolist() == [1.0]


@pytest.mark.parametrize("quorum", [0.25, 0.5, 0.75, 1.0])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_majority_vote_agrees_with_numpy(quorum, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((5, 4, 3)) < 0.5
    params = np.where(masks, rng.normal(size=(5, 4, 3)), 0).astype(np.float32)
    weights = rng.integers(0, 4, 5).astype(np.float32)
    weights[0] = 1
    expected = reference.majority_vote(params, masks, weights, quorum)
    found = aggregation.majority_vote(
        {"w": jnp.array(params)}, {"w": jnp.array(masks)}, jnp.array(weights), quorum=quorum
    )
    np.testing.assert_array_equal(found[1]["w"], expected[1])
    np.testing.assert_allclose(found[0]["w"], expected[0], atol=1e-6)

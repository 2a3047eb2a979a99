"""The algebra of masks by hand: what is kept, how masks differ, and how far clients agree."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.core import masks
from tests.helpers.ballots import of_masks

MASK = {"b": jnp.array([True, False, False]), "w": jnp.array([[True, False, True], [True, True, False]])}
EVERYBODY = jnp.ones(3, bool)


def test_nothing_is_pruned_in_a_mask_of_ones():
    full = masks.ones({"b": jnp.zeros(3), "w": jnp.zeros((2, 3), jnp.bfloat16)})
    assert full["b"].tolist() == [True] * 3 and full["w"].tolist() == [[True] * 3] * 2


def test_what_is_pruned_becomes_zero_even_where_it_is_not_a_number():
    weights = {"b": jnp.array([1.0, jnp.nan, jnp.inf]), "w": jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])}
    pruned = masks.apply(MASK, weights)
    assert pruned["b"].tolist() == [1, 0, 0] and pruned["w"].tolist() == [[1, 0, 3], [4, 5, 0]]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_masking_keeps_the_type(dtype):
    assert masks.apply({"w": jnp.array([True, False])}, {"w": jnp.ones(2, dtype)})["w"].dtype == dtype


def test_kept_weights_are_counted_leaf_by_leaf():
    assert masks.count_kept(MASK).tolist() == [1, 4]


def test_the_distance_of_two_masks_counts_weights_that_one_keeps():
    other = {"b": jnp.array([True, True, False]), "w": jnp.array([[False, True, True], [True, True, False]])}
    assert int(masks.hamming(MASK, other)) == 1 + 2
    assert int(masks.hamming(MASK, MASK)) == 0


def test_channels_that_no_weight_leads_to():
    # Leaves of one axis have none; the last channel of the first kernel has no weight, and two of the second.
    mask = {
        "bias": jnp.zeros(3, bool),
        "conv": jnp.array([[[True, True, False], [False, True, False]]]),
        "head": jnp.array([[False, False, True]]),
    }
    assert masks.dead_channels(mask).tolist() == [0, 1, 2]


# --- of many clients ----------------------------------------------------------------------------

BALLOTS = {"w": jnp.array([[True, True, False, False], [True, False, True, False], [True, True, True, False]])}


def test_votes_are_those_of_present_clients():
    assert masks.votes(BALLOTS, EVERYBODY)["w"].tolist() == [3, 2, 2, 0]
    assert masks.votes(BALLOTS, jnp.array([True, False, True]))["w"].tolist() == [2, 2, 1, 0]
    assert masks.votes(BALLOTS, EVERYBODY)["w"].dtype == jnp.int32


def test_votes_have_the_shape_of_the_leaf():
    ballots = {"k": jnp.array([[[True, False], [False, True]], [[True, True], [False, False]]])}
    assert masks.votes(ballots, jnp.ones(2, bool))["k"].tolist() == [[2, 1], [0, 1]]


def test_agreement_by_hand():
    # Pairs: 1 of 3 in common, 2 of 3, and 2 of 3; pooled, 5 of 9.
    np.testing.assert_allclose(of_masks(masks.agreement, BALLOTS, EVERYBODY), 5 / 9, rtol=1e-6)
    # Without the second client one pair is left: 2 of 3.
    np.testing.assert_allclose(of_masks(masks.agreement, BALLOTS, jnp.array([True, False, True])), 2 / 3, rtol=1e-6)


def test_agreement_is_pooled_over_leaves():
    # 1 of 1 in the first leaf and 1 of 3 in the second: 2 of 4.
    ballots = {"a": jnp.array([[True], [True]]), "b": jnp.array([[True, True, False], [False, True, True]])}
    assert float(of_masks(masks.agreement, ballots, jnp.ones(2, bool))) == 0.5


@pytest.mark.parametrize("present", [[True, False, False], [False, False, True]])
def test_a_single_client_agrees_with_itself(present):
    assert float(of_masks(masks.agreement, BALLOTS, jnp.array(present))) == 1.0


def test_clients_that_keep_nothing_agree():
    assert float(of_masks(masks.agreement, {"w": jnp.zeros((3, 4), bool)}, EVERYBODY)) == 1.0

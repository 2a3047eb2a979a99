"""Exact selection against a sort: by hand, with ties, signs and numbers that are none, and to the weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.sparsity import selection
from tests.helpers import numpy_reference

keep_largest = jax.jit(selection.keep_largest)


def test_the_smallest_go_by_hand():
    # |w| = 3 1 2 1 5, prune two: the two ones.
    keep = keep_largest(jnp.array([3.0, 1.0, 2.0, 1.0, 5.0]), jnp.ones(5, bool), 2)
    assert keep.tolist() == [True, False, True, False, True]


def test_ties_go_by_position():
    assert keep_largest(jnp.ones(5), jnp.ones(5, bool), 3).tolist() == [False] * 3 + [True] * 2


def test_pruned_weights_count_and_never_return():
    alive = jnp.array([False, True, False, True, True])
    scores = jnp.array([9.0, 1.0, 9.0, 0.0, 2.0])
    assert keep_largest(scores, alive, 1).tolist() == alive.tolist()  # two are gone already
    assert keep_largest(scores, alive, 3).tolist() == [False, True, False, False, True]
    assert keep_largest(scores, alive, 5).tolist() == [False] * 5


def test_scores_of_either_sign_and_what_is_no_number():
    scores = jnp.array([-1.0, 2.0, -jnp.inf, 0.0, -0.0, jnp.nan, jnp.inf, -3.0])
    for num_pruned, gone in enumerate([5, 2, 7, 0, 3, 4, 1, 6]):  # in this order
        keep = keep_largest(scores, jnp.ones(8, bool), num_pruned + 1)
        before = keep_largest(scores, jnp.ones(8, bool), num_pruned)
        assert (before & ~keep).nonzero()[0].tolist() == [gone]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([-2.0, -1e-40, 0.0, 1e-40, 1e-3, 1.0, 1.5, 3e38]), st.booleans()),
        min_size=8,
        max_size=8,
    ),
    st.integers(0, 8),
)
def test_agrees_with_a_sort_when_scores_tie(pairs, num_pruned):
    scores, alive = (np.array(column) for column in zip(*pairs))
    scores = scores.astype(np.float32)
    expected = numpy_reference.keep_mask(scores, alive, num_pruned)
    assert keep_largest(scores, alive, num_pruned).tolist() == expected.tolist()


@pytest.mark.parametrize("num_pruned", [0, 1, 70_000, 95_000, 99_999, 100_000])
def test_agrees_with_a_sort_on_many(num_pruned):
    scores = np.abs(np.random.default_rng(0).normal(size=100_000)).astype(np.float32)
    keep = np.asarray(keep_largest(scores, np.ones(100_000, bool), num_pruned))
    assert keep.sum() == 100_000 - num_pruned
    if 0 < num_pruned < 100_000:
        assert scores[keep].min() >= scores[~keep].max()


@pytest.mark.parametrize("count", [1, 46_097, 2_948_801, 50_000_000, 2**30 - 1])
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.1, 0.5, 0.95, 0.999, 1.0])
def test_share_is_exact(share, count):
    fixed = round(float(np.float32(share)) * 2**24)
    assert int(selection.share_of(jnp.float32(share), count)) == pytest.approx(fixed * count / 2**24, abs=0.502)


@pytest.mark.parametrize("count", [2_948_801, 2**29])
def test_a_small_share_is_near_the_nearest(count):
    exact = round(float(np.float32(0.001)) * count)
    assert abs(int(selection.share_of(jnp.float32(0.001), count)) - exact) <= 1 + count / 2**25


def test_more_weights_than_can_be_counted_are_refused():
    with pytest.raises(ArgumentError, match="^count is 1073741824"):
        selection.share_of(0.5, 2**30)


def test_share_of_the_paper():
    assert int(selection.share_of(0.95, 2_948_801)) == 2_801_361

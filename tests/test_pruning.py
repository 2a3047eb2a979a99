"""Selection and scopes against a sort, by hand and on random trees with ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax import criteria, masks, pruning, schedules
from tests import reference

keep_largest = jax.jit(pruning.keep_largest)


def test_by_hand():
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


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1e-40, 1e-3, 1.0, 1.5, 3e38]), st.booleans()), min_size=8, max_size=8
    ),
    st.integers(0, 8),
)
def test_agrees_with_a_sort_when_scores_tie(pairs, num_pruned):
    scores, alive = (np.array(column) for column in zip(*pairs))
    scores = scores.astype(np.float32)
    expected = reference.keep_mask(scores, alive, num_pruned)
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
    assert int(pruning.share_of(jnp.float32(share), count)) == pytest.approx(fixed * count / 2**24, abs=0.502)


def test_share_of_the_paper():
    assert int(pruning.share_of(0.95, 2_948_801)) == 2_801_361


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_global_scope_agrees_with_numpy(seed, sparsity):
    rng = np.random.default_rng(seed)
    params = {"a": rng.integers(-3, 4, (3, 5)).astype(np.float32), "b": rng.normal(size=7).astype(np.float32)}
    alive = {"a": rng.random((3, 5)) < 0.7, "b": np.ones(7, bool)}
    everything = {"a": True, "b": True}
    found = pruning.global_(criteria.magnitude(params), alive, jnp.float32(sparsity), everything)
    expected = reference.global_magnitude(params, alive, sparsity)
    for name in params:
        np.testing.assert_array_equal(found[name], expected[name])


def test_biases_stay_whole_when_only_kernels_are_prunable():
    params = {"bias": jnp.zeros(4), "kernel": jnp.arange(12.0).reshape(3, 4)}
    found = pruning.global_(criteria.magnitude(params), masks.ones(params), 0.5, pruning.kernels(params))
    assert found["bias"].all() and int(found["kernel"].sum()) == 6


def test_pruner_puts_the_parts_together():
    params = {"w": jnp.array([4.0, -1.0, 3.0, 2.0])}
    prune = pruning.pruner(criteria.magnitude, pruning.global_, schedules.one_shot(0.5, at=2), {"w": True})
    first = prune(params, masks.ones(params), 1, None)
    second = prune(params, first, 2, None)
    assert first["w"].tolist() == [True] * 4
    assert second["w"].tolist() == [True, False, True, False]


def test_random_scores_nest():
    params = {"w": jnp.zeros(100), "v": jnp.zeros((5, 5))}
    scores = criteria.random(params, key=jax.random.key(1))
    everything = pruning.everything(params)
    low = pruning.global_(scores, masks.ones(params), 0.3, everything)
    high = pruning.global_(scores, masks.ones(params), 0.8, everything)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a | ~b).all()), low, high)))

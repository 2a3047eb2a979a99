"""Selection and scopes against a sort, by hand and on random trees with ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax.core import masks
from fedsparse_jax.sparsity import criteria, pruning
from tests.helpers import numpy_reference

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
    assert int(pruning.share_of(jnp.float32(share), count)) == pytest.approx(fixed * count / 2**24, abs=0.502)


def test_share_of_the_paper():
    assert int(pruning.share_of(0.95, 2_948_801)) == 2_801_361


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), sparsity=st.floats(0, 1))
@pytest.mark.parametrize("name", pruning.SCOPES)
def test_scopes_agree_with_numpy(name, seed, sparsity):
    rng = np.random.default_rng(seed)
    scores = {
        "a": rng.integers(-3, 4, (3, 5)).astype(np.float32),  # ties
        "b": rng.normal(size=7).astype(np.float32),
        "c": rng.normal(size=(2, 4, 3)).astype(np.float32),
    }
    alive = {name: rng.random(leaf.shape) < 0.7 for name, leaf in scores.items()}
    prunable = {"a": True, "b": bool(rng.random() < 0.5), "c": True}
    found = jax.jit(lambda *args: pruning.SCOPES[name](*args, prunable))(scores, alive, jnp.float32(sparsity))
    expected = numpy_reference.SCOPES[name](scores, alive, sparsity, prunable)
    for leaf in scores:
        np.testing.assert_array_equal(found[leaf], expected[leaf])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_erk_counts_are_exact_and_those_of_the_formula(shapes, share):
    sizes = [int(np.prod(shape)) for shape in shapes]
    total = round(share * sum(sizes))
    counts = [int(count) for count in pruning.erk_counts(shapes, jnp.int32(total))]
    assert sum(counts) == total and all(0 <= c <= size for c, size in zip(counts, sizes))
    expected = numpy_reference.erk_counts(shapes, total)
    assert all(abs(c - e) <= 1 for c, e in zip(counts, expected))  # float32 may round another remainder up


def test_erk_by_hand():
    # Sides 2+2 and 6+6 over 4 and 36 weights, 20 kept: a unit is 20/16, so 5 > 4 and the first leaf is full.
    masks_ = {"a": jnp.ones((2, 2), bool), "b": jnp.ones((6, 6), bool)}
    scores = {"a": jnp.arange(4.0).reshape(2, 2), "b": jnp.arange(36.0).reshape(6, 6)}
    found = pruning.erk(scores, masks_, jnp.float32(0.5), {"a": True, "b": True})
    assert found["a"].all() and found["b"].ravel().tolist() == [False] * 20 + [True] * 16


def test_erk_of_the_papers_network_is_exact():
    shapes = [(3, 3, 3, i, o) for i, o in ((1, 32), (32, 64), (64, 128), (128, 256), (256, 256))]
    total = 146_604
    counts = [int(count) for count in pruning.erk_counts(shapes, jnp.int32(total))]
    assert sum(counts) == total and counts[0] == 864  # the first layer is full


@pytest.mark.parametrize("scope", pruning.SCOPES)
def test_a_floor_per_layer_by_hand(scope):
    # The small scores of "a" would all go; a floor of 20 % keeps ceil(.2 * 6) = 2 of them.
    scores = {"a": jnp.array([0.1, 0.3, 0.2, 0.1, 0.1, 0.1]), "b": 1 + jnp.arange(14.0)}
    start, flags = masks.ones(scores), {"a": True, "b": True}
    plain = pruning.SCOPES[scope](scores, start, jnp.float32(0.5), flags)
    floored = pruning.with_floor(pruning.SCOPES[scope], 0.2)(scores, start, jnp.float32(0.5), flags)
    total = lambda m: int(m["a"].sum() + m["b"].sum())
    assert total(floored) == total(plain) == 10
    if scope == "global":
        assert not plain["a"].any() and floored["a"].tolist() == [False, True, True, False, False, False]
    empty = pruning.with_floor(pruning.SCOPES[scope], 0.2)(scores, start, jnp.float32(1.0), flags)
    assert (int(empty["a"].sum()), int(empty["b"].sum())) == (2, 3)


def test_a_floor_revives_nothing():
    scores = {"a": jnp.arange(1.0, 6.0)}
    alive = {"a": jnp.array([True, False, False, False, False])}
    found = pruning.with_floor(pruning.global_, 0.6)(scores, alive, jnp.float32(0.9), {"a": True})
    assert found["a"].tolist() == [True, False, False, False, False]


def test_scores_of_either_sign_and_what_is_no_number():
    scores = jnp.array([-1.0, 2.0, -jnp.inf, 0.0, -0.0, jnp.nan, jnp.inf, -3.0])
    for num_pruned, gone in enumerate([5, 2, 7, 0, 3, 4, 1, 6]):  # in this order
        keep = keep_largest(scores, jnp.ones(8, bool), num_pruned + 1)
        before = keep_largest(scores, jnp.ones(8, bool), num_pruned)
        assert (before & ~keep).nonzero()[0].tolist() == [gone]


def test_global_and_per_layer_by_hand():
    scores = {"a": jnp.array([1.0, 2.0, 3.0, 4.0]), "b": jnp.array([[5.0, 6.0], [7.0, 0.5]])}
    start, flags = masks.ones(scores), {"a": True, "b": True}
    jointly = pruning.global_(scores, start, jnp.float32(0.5), flags)  # the smallest four: .5, 1, 2, 3
    assert jointly["a"].tolist() == [False, False, False, True]
    assert jointly["b"].tolist() == [[True, True], [True, False]]
    apart = pruning.per_layer(scores, start, jnp.float32(0.5), flags)  # the smallest two of each
    assert apart["a"].tolist() == [False, False, True, True]
    assert apart["b"].tolist() == [[False, True], [True, False]]


def test_more_zeros_than_asked_stay_as_they_are():
    # 4 of 5 are gone and 40 % is asked: a published code then keeps everything.
    alive = {"a": jnp.array([False, True, False, False, False])}
    scores = {"a": jnp.arange(5.0)}
    for scope in pruning.SCOPES.values():
        found = scope(scores, alive, jnp.float32(0.4), {"a": True})
        assert found["a"].tolist() == alive["a"].tolist()


def test_biases_stay_whole_when_only_kernels_are_prunable():
    params = {"bias": jnp.zeros(4), "kernel": jnp.arange(12.0).reshape(3, 4)}
    found = pruning.global_(criteria.magnitude(params), masks.ones(params), 0.5, pruning.kernels(params))
    assert found["bias"].all() and int(found["kernel"].sum()) == 6


def test_random_scores_nest():
    params = {"w": jnp.zeros(100), "v": jnp.zeros((5, 5))}
    scores = criteria.random(params, key=jax.random.key(1))
    everything = pruning.everything(params)
    low = pruning.global_(scores, masks.ones(params), 0.3, everything)
    high = pruning.global_(scores, masks.ones(params), 0.8, everything)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a | ~b).all()), low, high)))

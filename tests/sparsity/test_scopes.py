"""Scopes by hand and against NumPy: how a budget is spread over the leaves, and which leaves take part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax.core import masks
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.sparsity import criteria, scopes
from tests.helpers import numpy_reference


def test_global_and_per_layer_by_hand():
    scores = {"a": jnp.array([1.0, 2.0, 3.0, 4.0]), "b": jnp.array([[5.0, 6.0], [7.0, 0.5]])}
    start, flags = masks.ones(scores), {"a": True, "b": True}
    jointly = scopes.global_(scores, start, jnp.float32(0.5), flags)  # the smallest four: .5, 1, 2, 3
    assert jointly["a"].tolist() == [False, False, False, True]
    assert jointly["b"].tolist() == [[True, True], [True, False]]
    apart = scopes.per_layer(scores, start, jnp.float32(0.5), flags)  # the smallest two of each
    assert apart["a"].tolist() == [False, False, True, True]
    assert apart["b"].tolist() == [[False, True], [True, False]]


@functools.cache
def compiled(name, b_too):
    return jax.jit(lambda *args: scopes.SCOPES[name](*args, {"a": True, "b": b_too, "c": True}))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), sparsity=st.floats(0, 1))
@pytest.mark.parametrize("name", scopes.SCOPES)
def test_scopes_agree_with_numpy(name, seed, sparsity):
    rng = np.random.default_rng(seed)
    scores = {
        "a": rng.integers(-3, 4, (3, 5)).astype(np.float32),  # ties
        "b": rng.normal(size=7).astype(np.float32),
        "c": rng.normal(size=(2, 4, 3)).astype(np.float32),
    }
    alive = {name: rng.random(leaf.shape) < 0.7 for name, leaf in scores.items()}
    prunable = {"a": True, "b": bool(rng.random() < 0.5), "c": True}
    pruned = compiled(name, prunable["b"])(scores, alive, jnp.float32(sparsity))
    expected = numpy_reference.SCOPES[name](scores, alive, sparsity, prunable)
    for leaf in scores:
        np.testing.assert_array_equal(pruned[leaf], expected[leaf])


def test_more_zeros_than_asked_stay_as_they_are():
    # 4 of 5 are gone and 40 % is asked: a published code then keeps everything.
    alive = {"a": jnp.array([False, True, False, False, False])}
    scores = {"a": jnp.arange(5.0)}
    for scope in scopes.SCOPES.values():
        pruned = scope(scores, alive, jnp.float32(0.4), {"a": True})
        assert pruned["a"].tolist() == alive["a"].tolist()


# --- ERK ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6), st.floats(0, 1)
)
def test_erk_counts_are_exact_and_those_of_the_formula(shapes, share):
    sizes = [int(np.prod(shape)) for shape in shapes]
    total = round(share * sum(sizes))
    counts = [int(count) for count in scopes.erk_counts(shapes, jnp.int32(total))]
    assert sum(counts) == total and all(0 <= c <= size for c, size in zip(counts, sizes))
    expected = numpy_reference.erk_counts(shapes, total)
    assert all(abs(c - e) <= 1 for c, e in zip(counts, expected))  # float32 may round another remainder up


def test_erk_by_hand():
    # Sides 2+2 and 6+6 over 4 and 36 weights, 20 kept: a unit is 20/16, so 5 > 4 and the first leaf is full.
    start = {"a": jnp.ones((2, 2), bool), "b": jnp.ones((6, 6), bool)}
    scores = {"a": jnp.arange(4.0).reshape(2, 2), "b": jnp.arange(36.0).reshape(6, 6)}
    pruned = scopes.erk(scores, start, jnp.float32(0.5), {"a": True, "b": True})
    assert pruned["a"].all() and pruned["b"].ravel().tolist() == [False] * 20 + [True] * 16


def test_erk_of_the_papers_network_is_exact():
    shapes = [(3, 3, 3, i, o) for i, o in ((1, 32), (32, 64), (64, 128), (128, 256), (256, 256))]
    total = 146_604
    counts = [int(count) for count in scopes.erk_counts(shapes, jnp.int32(total))]
    assert sum(counts) == total and counts[0] == 864  # the first layer is full


# --- a floor for every leaf ---------------------------------------------------------------------


@pytest.mark.parametrize("scope", scopes.SCOPES)
def test_a_floor_per_layer_by_hand(scope):
    # The small scores of "a" would all go; a floor of 20 % keeps ceil(.2 * 6) = 2 of them.
    scores = {"a": jnp.array([0.1, 0.3, 0.2, 0.1, 0.1, 0.1]), "b": 1 + jnp.arange(14.0)}
    start, flags = masks.ones(scores), {"a": True, "b": True}
    plain = scopes.SCOPES[scope](scores, start, jnp.float32(0.5), flags)
    floored = scopes.with_floor(scopes.SCOPES[scope], 0.2)(scores, start, jnp.float32(0.5), flags)
    total = lambda m: int(m["a"].sum() + m["b"].sum())
    assert total(floored) == total(plain) == 10
    if scope == "global":
        assert not plain["a"].any() and floored["a"].tolist() == [False, True, True, False, False, False]
    empty = scopes.with_floor(scopes.SCOPES[scope], 0.2)(scores, start, jnp.float32(1.0), flags)
    assert (int(empty["a"].sum()), int(empty["b"].sum())) == (2, 3)


def test_a_floor_revives_nothing():
    scores = {"a": jnp.arange(1.0, 6.0)}
    alive = {"a": jnp.array([True, False, False, False, False])}
    pruned = scopes.with_floor(scopes.global_, 0.6)(scores, alive, jnp.float32(0.9), {"a": True})
    assert pruned["a"].tolist() == [True, False, False, False, False]


def test_without_a_floor_the_scope_is_the_same():
    assert scopes.with_floor(scopes.global_, 0.0) is scopes.global_


@pytest.mark.parametrize("floor", [-0.1, 1.0, float("nan")])
def test_impossible_floors_are_refused(floor):
    with pytest.raises(ArgumentError, match=rf"^floor is {floor}: it is a share of each leaf"):
        scopes.with_floor(scopes.global_, floor)


# --- which leaves -------------------------------------------------------------------------------


def test_biases_stay_whole_when_only_kernels_are_prunable():
    params = {"bias": jnp.zeros(4), "kernel": jnp.arange(12.0).reshape(3, 4)}
    pruned = scopes.global_(criteria.magnitude(params), masks.ones(params), 0.5, scopes.kernels(params))
    assert pruned["bias"].all() and int(pruned["kernel"].sum()) == 6


@pytest.mark.parametrize("name", scopes.SCOPES)
def test_where_no_leaf_is_prunable_nothing_is_pruned(name):
    params = {"a": jnp.arange(4.0), "b": jnp.arange(3.0)}
    pruned = scopes.SCOPES[name](params, masks.ones(params), jnp.float32(0.9), scopes.kernels(params))
    assert pruned["a"].all() and pruned["b"].all()


def test_flat_leaves_go_back_to_their_places():
    # The prunable leaves one after another are 6 weights; the function keeps the last four.
    alive = {"a": jnp.ones(2, bool), "b": jnp.zeros(3, bool), "c": jnp.ones((2, 2), bool)}
    flags = {"a": True, "b": False, "c": True}
    last = scopes.apply_to_flat_leaves(lambda mask, order: order > 1, flags, alive, {
        "a": jnp.arange(2), "b": jnp.full(3, 9), "c": jnp.arange(2, 6).reshape(2, 2),
    })  # fmt: skip
    assert last["a"].tolist() == [False, False] and last["c"].tolist() == [[True, True], [True, True]]
    assert last["b"].tolist() == [False] * 3


def test_random_scores_nest():
    params = {"w": jnp.zeros(100), "v": jnp.zeros((5, 5))}
    scores = criteria.random(params, key=jax.random.key(1))
    everything = scopes.everything(params)
    low = scopes.global_(scores, masks.ones(params), 0.3, everything)
    high = scopes.global_(scores, masks.ones(params), 0.8, everything)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a | ~b).all()), low, high)))

"""Regrowth by hand and against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.sparsity import CRITERIA, regrowth
from tests.helpers import numpy_reference

WEIGHTS = {"w": jnp.array([4.0, -1.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0])}
KEPT = {"w": jnp.array([True] * 4 + [False] * 4)}
SCORES = {"w": jnp.array([9.0, 9.0, 9.0, 9.0, 1.0, 5.0, 2.0, 3.0])}
ALL = {"w": True}


def test_swap_by_hand():
    # Half of four at t = 0, the smallest: -1 and 2; the best two of the idle: 5 and 3.
    rule = regrowth.swap(fraction=0.5, end=10)
    assert rule(WEIGHTS, KEPT, SCORES, jnp.int32(0), 0.5, ALL)["w"].tolist() == [1, 0, 1, 0, 0, 1, 0, 1]
    # cos(pi / 2) = 0: a quarter of four at t = 5, none at the end.
    assert rule(WEIGHTS, KEPT, SCORES, jnp.int32(5), 0.5, ALL)["w"].tolist() == [1, 0, 1, 1, 0, 1, 0, 0]
    assert rule(WEIGHTS, KEPT, SCORES, jnp.int32(10), 0.5, ALL)["w"].tolist() == KEPT["w"].tolist()


def test_swap_of_rigl_and_set_by_hand():
    # Without annealing half of four goes at the end, too: -1 and 2. Their scores, 9, are the best two: nothing changes.
    rule = regrowth.swap(fraction=0.5, end=10, anneal=False, dropped_may_return=True)
    assert rule(WEIGHTS, KEPT, SCORES, jnp.int32(10), 0.5, ALL)["w"].tolist() == KEPT["w"].tolist()
    # Of signed scores the size counts: -7 and 6 beat 5 and the dropped ones' 1.
    signed = {"w": jnp.array([0.0, 1.0, 0.0, 1.0, -7.0, 5.0, 6.0, -3.0])}
    assert rule(WEIGHTS, KEPT, signed, jnp.int32(10), 0.5, ALL)["w"].tolist() == [1, 0, 1, 0, 1, 0, 1, 0]


def test_a_full_leaf_is_left_alone():
    full = {"w": jnp.ones(8, bool)}
    assert regrowth.swap(fraction=0.5)(WEIGHTS, full, SCORES, jnp.int32(0), 0.5, ALL)["w"].all()


def test_greedy_by_hand():
    # A quarter of four is freed, -1 with score 9. Held: 27 for a time of 3; nothing else is worth 27 / 3 = 9.
    rule = regrowth.greedy(fraction=0.25, fixed=0.0)
    regrown = rule(WEIGHTS, KEPT, SCORES, jnp.int32(0), 0.0, ALL)["w"]
    assert regrown.tolist() == [1, 0, 1, 1, 0, 0, 0, 0]
    # With a fixed cost of 8 a round: 27 / 11 = 2.5; 9 pays, then 36 / 12 = 3: 5 pays, 41 / 13 = 3.2: 3 does not.
    rule = regrowth.greedy(fraction=0.25, fixed=1.0)
    assert rule(WEIGHTS, KEPT, SCORES, jnp.int32(0), 0.0, ALL)["w"].tolist() == [1, 1, 1, 1, 0, 1, 0, 0]
    # Never denser than half: room for one more.
    assert rule(WEIGHTS, KEPT, SCORES, jnp.int32(0), 0.5, ALL)["w"].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_greedy_by_hand_with_a_cost():
    # As above with a fixed cost, but a weight costs 2: g^2 / c halves, and so does what a round's time buys. Nothing
    # changes, as costs count only beside one another.
    rule = regrowth.greedy(fraction=0.25, fixed=1.0, costs=(("w", 2.0),))
    assert rule(WEIGHTS, KEPT, SCORES, jnp.int32(0), 0.0, ALL)["w"].tolist() == [1, 1, 1, 1, 0, 1, 0, 0]
    # Two leaves, one weight held in "a" (score 4, time 1): "b" at cost 3 has 9 / 3 = 3 < 4 / 1, at cost 2 4.5 > 4.
    weights, mask = {"a": jnp.ones(1), "b": jnp.zeros(1)}, {"a": jnp.ones(1, bool), "b": jnp.zeros(1, bool)}
    scores, both = {"a": jnp.array([4.0]), "b": jnp.array([9.0])}, {"a": True, "b": True}
    for cost, grows in ((3.0, False), (2.0, True)):
        rule = regrowth.greedy(fraction=0.0, fixed=0.0, costs=(("b", cost),))
        assert bool(rule(weights, mask, scores, jnp.int32(0), 0.0, both)["b"][0]) is grows


def random_tree(seed):
    rng = np.random.default_rng(seed)
    masks = {"a": rng.random((4, 5)) < 0.5, "b": rng.random(6) < 0.5, "c": rng.random((3, 3)) < 0.9}
    weights = {n: np.where(m, rng.normal(size=m.shape), 0).astype(np.float32) for n, m in masks.items()}
    scores = {n: (rng.normal(size=m.shape) ** 2).astype(np.float32) for n, m in masks.items()}
    return weights, masks, scores, {"a": True, "b": bool(rng.random() < 0.5), "c": True}


@functools.cache
def compiled(make, b_too, **options):
    """A rule over the leaves of `random_tree`, compiled once."""
    rule = make(**options)
    return jax.jit(lambda *args: rule(*args, {"a": True, "b": b_too, "c": True}))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), t=st.integers(0, 12), fraction=st.sampled_from([0.0, 0.37, 1.0]))
def test_swap_agrees_with_numpy(seed, t, fraction):
    weights, masks, scores, prunable = random_tree(seed)
    rule = compiled(regrowth.swap, prunable["b"], fraction=fraction, end=10)
    swapped = rule(weights, masks, scores, jnp.int32(t), jnp.float32(0.5))
    expected = numpy_reference.swap(weights, masks, scores, t, prunable, fraction, 10)
    for leaf in masks:
        assert int(swapped[leaf].sum()) == int(masks[leaf].sum())
        if np.asarray(swapped[leaf]).tolist() != expected[leaf].tolist():  # a share within rounding of a half
            dropped = masks[leaf] & ~np.asarray(swapped[leaf])
            assert abs(dropped.sum() - (masks[leaf] & ~expected[leaf]).sum()) == 1


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    sparsity=st.floats(0, 1),
    options=st.sampled_from([(0.0, ()), (0.3, (("a", 3.0),)), (2.0, (("a", 0.5), ("c", 2.0)))]),
)
def test_greedy_agrees_with_numpy(seed, sparsity, options):
    fixed, costs = options
    weights, masks, scores, prunable = random_tree(seed)
    rule = compiled(regrowth.greedy, prunable["b"], fraction=0.3, fixed=fixed, costs=costs)
    regrown = rule(weights, masks, scores, jnp.int32(3), jnp.float32(sparsity))
    expected = numpy_reference.greedy(weights, masks, scores, 3, sparsity, prunable, 0.3, fixed=fixed, costs=costs)
    for leaf in masks:
        np.testing.assert_array_equal(regrown[leaf], expected[leaf])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: regrowth.swap(fraction=1.5), "^fraction is 1.5: it is a share of the kept weights, from 0 to 1"),
        (lambda: regrowth.greedy(fraction=-0.1), "^fraction is -0.1: it is a share of the kept weights"),
        (lambda: regrowth.greedy(fixed=-1.0), "^fixed is -1.0: fixed may not be negative"),
        (lambda: regrowth.greedy(halving=0), "^halving is 0: .*halving must be positive"),
    ],
)
def test_impossible_rules_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_the_rounds_in_which_weights_come_back():
    rule = regrowth.Regrowth(regrowth.swap(), CRITERIA["squared_gradient"], begin=3, every=2, end=7)
    assert [t for t in range(12) if bool(rule.due(jnp.int32(t)))] == [3, 5, 7]

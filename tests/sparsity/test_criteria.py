"""Criteria by hand, and against NumPy on a network of two linear layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax.core import losses
from fedsparse_jax.core.types import Chunk
from fedsparse_jax.federated.client_step import make_objective
from fedsparse_jax.sparsity import criteria, scopes
from tests.helpers import numpy_reference

# y = w x with w = 3, x = 2, target 4: error 2, gradient 2 * 2 * 2 = 8, Hessian 2 * x^2 = 8.
ONE = {"w": jnp.array([3.0])}
LINE = lambda p, x: x @ p["w"]
BATCH = Chunk(jnp.array([[2.0]]), jnp.array([4.0]), jnp.ones(1, bool))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("magnitude", 3.0),
        ("lamp", 1.0),  # the largest weight of its leaf
        ("snip", 3 * 8.0),
        ("salient_grads", 3 * 8.0),
        ("grasp", 3 * 8 * 8.0),
        ("synflow", 3 * 1.0),  # R = |w| for an input of one
        ("squared_gradient", 64.0),
        ("signed_gradient", 8.0),
    ],
)
def test_scores_by_hand(name, expected):
    objective = make_objective(LINE, losses.squared)
    scores = criteria.CRITERIA[name].score(ONE, key=jax.random.key(0), objective=objective, apply=LINE, batch=BATCH)
    assert scores["w"].tolist() == [expected]


def test_random_is_one_permutation_that_the_key_decides():
    params = {"a": jnp.zeros((4, 4)), "b": jnp.ones(7)}
    first, again, other = (criteria.random(params, key=jax.random.key(k)) for k in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), first, again))
    assert not bool((first["a"] == other["a"]).any())
    assert len(np.unique(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(first)]))) == 23


def two_layers(p, x):
    return (x @ p["w"] @ p["v"])[:, 0] + p["b"][0]


@pytest.mark.parametrize("name", ["magnitude", "lamp", "snip", "grasp", "synflow", "squared_gradient"])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_agrees_with_numpy(name, seed):
    rng = np.random.default_rng(seed)
    params = {"b": rng.normal(size=1), "v": rng.normal(size=(3, 1)), "w": rng.normal(size=(4, 3))}
    x, y = rng.normal(size=(6, 4)), rng.normal(size=6)
    expected = numpy_reference.score(name, params, x, y)
    objective = make_objective(two_layers, losses.squared)
    batch = Chunk(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), jnp.ones(6, bool))
    leaves = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    scores = criteria.CRITERIA[name].score(leaves, key=None, objective=objective, apply=two_layers, batch=batch)
    for leaf in params:
        scale = np.abs(expected[leaf]).max() + 1e-3
        np.testing.assert_allclose(scores[leaf], expected[leaf], atol=2e-4 * scale)


def test_only_criteria_that_differentiate_need_a_batch():
    on_data = {name for name, criterion in criteria.CRITERIA.items() if criterion.needs_batch}
    assert on_data == {"snip", "salient_grads", "grasp", "synflow", "squared_gradient", "signed_gradient"}
    assert {name for name, criterion in criteria.CRITERIA.items() if criterion.joined} == {"snip", "grasp"}


def test_every_criterion_has_a_number_worked_by_hand():
    named = {"snip", "salient_grads", "grasp", "synflow", "squared_gradient", "signed_gradient", "random"}
    assert set(criteria.CRITERIA) == named | {"magnitude", "lamp"}


def test_lamp_by_hand_keeps_the_best_of_a_small_leaf():
    """Squares 16, 9, 1, 0 over the sums of those at least as large: 16/16, 9/25, 1/26, 0."""
    params = {"wide": jnp.array([[3.0, -4.0], [0.0, 1.0]]), "small": jnp.array([0.01, 0.02]), "empty": jnp.zeros(3)}
    scores = criteria.lamp(params)
    np.testing.assert_allclose(scores["wide"], [[9 / 25, 1.0], [0.0, 1 / 26]], rtol=1e-6)
    np.testing.assert_allclose(scores["small"], [1 / 5, 1.0], rtol=1e-6)
    assert scores["empty"].tolist() == [0, 0, 0]
    dense = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    kept = lambda score: scopes.global_(score(params), dense, 6 / 9, scopes.everything(params))["small"].tolist()
    assert kept(criteria.magnitude) == [False, False]
    assert kept(criteria.lamp) == [False, True]

"""Trees of arrays by hand: names, sums over clients, rows taken out and put back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.core import tree

NAN = float("nan")


def test_leaves_are_named_by_their_path():
    nested = {"head": jnp.zeros(2), "conv1": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}, "steps": [0.0, 1.0]}
    assert tree.leaf_names(nested) == ("conv1/bias", "conv1/kernel", "head", "steps/0", "steps/1")


def test_the_size_is_that_of_all_leaves():
    assert tree.size({"a": jnp.zeros((2, 3)), "b": jnp.zeros(4), "c": jnp.zeros(())}) == 11


@pytest.mark.parametrize("condition", [True, False])
def test_where_takes_a_tree_whole_and_bit_for_bit(condition):
    chosen, other = {"a": jnp.array([-0.0, NAN])}, {"a": jnp.array([1.0, 2.0])}
    taken = np.asarray(tree.where(jnp.asarray(condition), chosen, other)["a"])
    assert taken.tobytes() == np.asarray((chosen if condition else other)["a"]).tobytes()


# --- over clients -------------------------------------------------------------------------------


def test_weighted_mean_by_hand():
    models = {"b": jnp.array([1.0, 5.0]), "w": jnp.array([[1.0, 2.0], [3.0, 6.0]])}
    mean = tree.weighted_mean(models, jnp.array([1.0, 3.0]))
    assert float(mean["b"]) == 4.0  # (1 + 3 * 5) / 4
    assert mean["w"].tolist() == [2.5, 5.0]  # (1 + 3 * 3) / 4, (2 + 3 * 6) / 4


def test_a_client_of_weight_0_is_ignored_even_where_it_is_not_a_number():
    models = {"w": jnp.array([[1.0, 2.0], [NAN, jnp.inf], [3.0, 6.0]])}
    mean = tree.weighted_mean(models, jnp.array([1.0, 0.0, 3.0]))
    assert mean["w"].tolist() == [2.5, 5.0]


def test_a_client_that_counts_passes_on_what_is_not_a_number():
    models = {"w": jnp.array([[1.0, 2.0], [NAN, 4.0]])}
    mean = tree.weighted_mean(models, jnp.array([1.0, 1.0]))
    assert np.isnan(mean["w"][0]) and float(mean["w"][1]) == 3.0


def test_weighted_sum_by_hand():
    models = {"w": jnp.array([[1.0, 2.0], [NAN, NAN], [3.0, 6.0]])}
    assert tree.weighted_sum(models, jnp.array([2.0, 0.0, -1.0]))["w"].tolist() == [-1.0, -2.0]


def test_rows_are_summed_as_numpy_sums_them():
    rows = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    weights = np.arange(5, dtype=np.float32)
    term = lambda row, weight: row * tree.per_row(weight, row)
    total = jax.jit(lambda *arrays: tree.sum_rows(term, *arrays))(rows, weights)
    np.testing.assert_allclose(total, (rows * weights[:, None, None]).sum(0), rtol=1e-6)


def test_one_value_a_row_gets_the_axes_of_the_leaf():
    values = jnp.array([1.0, 2.0])
    assert tree.per_row(values, jnp.zeros((2, 3, 4))).shape == (2, 1, 1)
    assert tree.per_row(values, jnp.zeros(2)).shape == (2,)


# --- rows ---------------------------------------------------------------------------------------

MEMORY = {"count": jnp.array([0, 10, 20, 30]), "mask": jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])}


def test_gather_takes_rows_or_a_single_one():
    rows = tree.gather(MEMORY, jnp.array([3, 1]))
    assert rows["count"].tolist() == [30, 10] and rows["mask"].tolist() == [[6, 7], [2, 3]]
    row = tree.gather(MEMORY, 2)
    assert row["count"].shape == () and int(row["count"]) == 20 and row["mask"].tolist() == [4, 5]


def test_scatter_puts_back_what_is_present():
    # Clients 3 and 0 have new rows; client 1 was absent, and keeps its own, whatever stands in its place.
    rows = {"count": jnp.array([31, 11, 1]), "mask": jnp.array([[60.0, 70.0], [NAN, NAN], [9.0, 8.0]])}
    new = tree.scatter(MEMORY, jnp.array([3, 1, 0]), rows, jnp.array([True, False, True]))
    assert new["count"].tolist() == [1, 10, 20, 31]
    assert new["mask"].tolist() == [[9, 8], [2, 3], [4, 5], [60, 70]]


def test_what_is_gathered_and_scattered_again_changes_nothing():
    index = jnp.array([2, 0])
    again = tree.scatter(MEMORY, index, tree.gather(MEMORY, index), jnp.ones(2, bool))
    jax.tree.map(np.testing.assert_array_equal, again, MEMORY)


def test_broadcast_gives_equal_copies():
    copies = tree.broadcast({"a": jnp.array([1.0, 2.0]), "b": jnp.array(3)}, 2)
    assert copies["a"].tolist() == [[1, 2], [1, 2]] and copies["b"].tolist() == [3, 3]


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (NAN, False), (float("inf"), False)])
def test_a_single_wrong_number_anywhere_is_seen(value, finite):
    assert bool(tree.all_finite({"a": jnp.zeros(3), "b": jnp.array([[0.0, value]])})) is finite


def test_zeros_have_shape_and_type_of_the_leaves():
    zeros = tree.zeros_like({"a": jnp.array([1.0, 2.0]), "b": jnp.array([[3]])})
    assert zeros["a"].tolist() == [0, 0] and zeros["a"].dtype == jnp.float32
    assert zeros["b"].tolist() == [[0]] and zeros["b"].dtype == jnp.int32


def test_keys_become_numbers_and_keys_again():
    state = {"key": jax.random.key(7), "kernel": jnp.ones((2, 3))}
    numbers = tree.keys_to_numbers(state)
    assert numbers["key"].dtype == jnp.uint32 and numbers["kernel"] is state["kernel"]
    again = tree.numbers_to_keys(numbers, jax.eval_shape(lambda: state))
    assert again["key"] == state["key"] and again["kernel"] is state["kernel"]
    assert tree.is_key(again["key"]) and not tree.is_key(again["kernel"])

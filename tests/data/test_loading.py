"""From plans to arrays on the device: the same examples from memory, from a file, ahead of time or in one chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.data import (
    BatchPlan,
    from_arrays,
    num_steps,
    plan_batches,
    predict_batches,
    prefetch_chunks,
    read_chunk,
    read_round,
    resident_reader,
    split_plan,
    streamed_reader,
)


def examples(count, start):
    numbers = np.arange(start, start + count, dtype=np.float32)
    return np.stack([numbers, -numbers], axis=1), 10 * numbers


def federation():
    return from_arrays([examples(7, 0), examples(2, 7), examples(4, 9)], test=examples(2, 13))


def mapped(array, tmp_path):
    np.save(tmp_path / "inputs.npy", array)
    return np.load(tmp_path / "inputs.npy", mmap_mode="r")


def test_a_chunk_holds_the_examples_of_its_plan():
    data, rows = federation(), np.array([[[3, 0]], [[8, 8]]])
    chunk = read_chunk(resident_reader(data.inputs), data.targets, BatchPlan(rows, rows != 8))
    assert chunk.inputs.tolist() == [[[[3, -3], [0, 0]]], [[[8, -8], [8, -8]]]]
    assert chunk.targets.tolist() == [[[30, 0]], [[80, 80]]]
    assert chunk.valid.tolist() == [[[True, True]], [[False, False]]]
    assert all(isinstance(leaf, jax.Array) for leaf in chunk)


def test_both_readers_give_the_same(tmp_path):
    inputs, index = federation().inputs, np.array([[5, 1], [12, 5]])
    expected = inputs[index]
    for read in (resident_reader(inputs), streamed_reader(inputs), streamed_reader(mapped(inputs, tmp_path))):
        np.testing.assert_array_equal(read(index), expected)
        np.testing.assert_array_equal(read(index), expected)  # pages that were given back are read again


def test_chunks_that_are_read_ahead_come_in_their_order():
    data = federation()
    read, plans = (
        resident_reader(data.inputs),
        [BatchPlan(np.full((1, 1, 1), i), np.ones((1, 1, 1), bool)) for i in range(5)],
    )
    assert [chunk.targets.item() for chunk in prefetch_chunks(read, data.targets, iter(plans))] == [0, 10, 20, 30, 40]
    assert list(prefetch_chunks(read, data.targets, iter([]))) == []


def test_what_goes_wrong_while_reading_ahead_is_raised():
    def broken(rows):
        raise OSError("the disk is gone")

    plan = BatchPlan(np.zeros((1, 1, 1), int), np.ones((1, 1, 1), bool))
    with pytest.raises(OSError, match="the disk is gone"):
        list(prefetch_chunks(broken, np.zeros(1), iter([plan])))


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_round_in_one_chunk_is_the_round_in_pieces(epochs):
    data, ids = federation(), [0, 2]
    whole = read_round(data, ids, seed=3, round_=5, batch_size=3, epochs=epochs)
    steps = num_steps(7, 3, epochs)  # of the larger of the two
    assert whole.inputs.shape == (2, steps, 3, 2) and whole.targets.shape == whole.valid.shape == (2, steps, 3)
    plan = plan_batches(3, 5, ids, data.members, batch_size=3, epochs=epochs, steps=steps)
    read = resident_reader(data.inputs)
    pieces = [read_chunk(read, data.targets, piece) for piece in split_plan(plan, 2)]
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1)[:, :steps], *pieces)
    jax.tree.map(np.testing.assert_array_equal, whole, joined)


def test_a_round_shows_every_client_its_own_examples():
    data = federation()
    chunk = read_round(data, [1, 2], seed=0, round_=1, batch_size=4)
    for client, rows in enumerate(data.members[1:]):
        valid = np.asarray(chunk.valid[client])
        assert sorted(np.asarray(chunk.targets[client])[valid]) == data.targets[rows].tolist()


@pytest.mark.parametrize("batch_size", [1, 4, 5, 99])
def test_predictions_come_in_the_order_of_the_index(batch_size):
    data, index = federation(), np.array([4, 0, 14, 3, 3])
    sizes = []

    def double(params, inputs):
        sizes.append(len(inputs))
        return params * inputs[:, 0]

    predictions = predict_batches(double, 2.0, resident_reader(data.inputs), index, batch_size)
    assert predictions.tolist() == [8, 0, 28, 6, 6]
    assert set(sizes) == {batch_size}  # equal batches: compiled once

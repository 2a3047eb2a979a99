"""Channels that are taken out change no prediction; the numbers of small networks by hand."""

import jax
import numpy as np
import pytest

from fedsparse_jax.core import tree
from fedsparse_jax.export import drop_dead_channels
from fedsparse_jax.models.chains import Block, LayerChain, apply_chain


def test_no_prediction_changes(network):
    small, inputs = network.small, np.random.default_rng(0).normal(size=(2, *network.shape)).astype(np.float32)
    expected = np.asarray(jax.jit(network.apply)(network.params, inputs))
    assert np.ptp(expected, axis=0).max() > 1e-3 and tree.size(small) < 0.9 * tree.size(network.params)
    found = jax.jit(lambda p, x: apply_chain(network.chain, p, x))(small, inputs)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=5e-6)


def test_what_is_left(one_network):
    left = {name: layer["bias"].size for name, layer in one_network("brain_age_cnn").small.items()}
    assert left["conv1"] == 5 - 3 and left["conv2"] <= 6 - 3 and left["top"] <= 6 - 3 and left["head"] == 1
    left = {name: layer["bias"].size for name, layer in one_network("image_cnn").small.items()}
    assert left["conv1"] == 5 - 3 + 1  # a channel of ones, because a convolution reads it
    assert left["conv2"] <= 6 - 3 and left["dense"] <= 8 - 3 and left["head"] == 4


IN_A_ROW = LayerChain((Block("a", norm=False, pool=False), Block("b", norm=False, pool=False)), False, ("c",), None)


def plain(kernel, bias):
    return {"kernel": np.asarray(kernel, np.float32), "bias": np.asarray(bias, np.float32)}


def test_a_constant_before_a_padded_convolution_stays_at_the_border():
    # Two channels of 2 and 3, read with weight 1 at each of three places: 15 inside, 10 at a border.
    params = {
        "a": plain(np.zeros((3, 1, 2)), [2, 3]),
        "b": plain(np.ones((3, 2, 1)), [0]),
        "c": plain(np.diag([1, 1, 1, 1]), np.zeros(4)),
    }
    small = drop_dead_channels(IN_A_ROW, params)
    assert small["a"]["kernel"].shape == (3, 1, 1) and small["b"]["kernel"].ravel().tolist() == [5, 5, 5]
    for some in (params, small):
        assert apply_chain(IN_A_ROW, some, np.ones((1, 4, 1), np.float32)).tolist() == [[10, 15, 15, 10]]


def test_a_channel_that_nobody_reads_takes_what_only_it_reads_along():
    params = {
        "a": plain(np.ones((1, 1, 3)), [0, 0, 0]),
        "b": plain([[[1, 0], [0, 1], [0, 0]]], [0, 0]),  # the third of a is read by none, the second by the second of b
        "c": plain([[1], [0], [1], [0]], [0.5]),  # two places, the second channel is read at none
    }
    small = drop_dead_channels(IN_A_ROW, params)
    assert [small[name]["kernel"].shape for name in "abc"] == [(1, 1, 1), (1, 1, 1), (2, 1)]
    assert apply_chain(IN_A_ROW, small, np.array([[[2.0], [3.0]]])).tolist() == [[5.5]]


@pytest.mark.parametrize("norm", [True, False])
def test_a_network_without_any_weight_keeps_a_channel_and_its_prediction(norm):
    chain = LayerChain((Block("a", norm=norm, pool=False),), True, ("c",), 2.0)
    params = {"a": plain(np.zeros((3, 1, 4)), [1, 2, 3, -4]), "c": plain(np.ones((4, 1)), [0.5])}
    small = drop_dead_channels(chain, params)
    assert small["a"]["bias"].size == 1
    expected = 1.0 if norm else 2 * (0.5 + 1 + 2 + 3)
    assert apply_chain(chain, small, np.ones((1, 4, 1), np.float32)).tolist() == [expected]

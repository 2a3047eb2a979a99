"""Operations counted by hand, and those of the paper's network."""

import jax
import jax.numpy as jnp
import pytest

from fedsparse_jax.models import MODELS, flops_per_example, multiply_adds_per_weight


def multiply_adds_of(name, shape):
    network = MODELS[name](shape)
    params = jax.eval_shape(network.init, jax.random.key(0))
    return multiply_adds_per_weight(network.apply, params, (*shape, 1)), params


def test_operations_are_counted_by_hand():
    # 8 x 8 pixels, 128 units, 10 classes: each weight of a dense layer is used once.
    multiply_adds, _ = multiply_adds_of("mlp", (8, 8))
    assert multiply_adds.tolist() == [0, 1, 0, 1]
    assert flops_per_example([128, 8192, 10, 1280], multiply_adds) == 2 * (8192 + 1280)
    # A 3x3 convolution is used at every pixel: 64, then 16 after pooling.
    assert multiply_adds_of("image_cnn", (8, 8))[0].tolist() == [0, 64, 0, 16, 0, 1, 0, 1]


def test_only_weights_that_are_kept_cost_something():
    multiply_adds, _ = multiply_adds_of("mlp", (8, 8))
    assert flops_per_example([4, 100, 2, 30], multiply_adds) == 2 * (100 + 30)
    assert flops_per_example([0, 0, 0, 0], multiply_adds) == 0


def test_without_a_count_there_is_no_answer():
    assert flops_per_example([1, 2], None) is None


def test_operations_of_the_papers_network():
    multiply_adds, params = multiply_adds_of("brain_age_cnn", (32, 40, 32))
    total = flops_per_example([leaf.size for leaf in jax.tree.leaves(params)], multiply_adds)
    assert 3 * total == pytest.approx(3.27e9, rel=1e-3)  # forward and twice that backward


def test_operations_inside_a_loop_and_of_lax_convolutions():
    def looped(p, x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ p["w"]), None), x, length=5)[0] @ p["v"].T

    leaves = {"v": jax.ShapeDtypeStruct((2, 4), "float32"), "w": jax.ShapeDtypeStruct((4, 4), "float32")}
    assert multiply_adds_per_weight(looped, leaves, (4,)).tolist() == [1, 5]
    convolved = lambda p, x: jax.lax.conv_general_dilated(x, p["k"], (1, 1), "SAME")
    kernel = {"k": jax.ShapeDtypeStruct((6, 3, 3, 3), "float32")}
    assert multiply_adds_per_weight(convolved, kernel, (3, 5, 7)).tolist() == [35]

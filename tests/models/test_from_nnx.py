"""A Flax module as two pure functions, and products in half precision with weights in whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.models import brain_age_cnn, flat_cnn, from_nnx, in_precision, mlp


def test_a_module_becomes_two_pure_functions():
    # y = 2 x + 1
    model = from_nnx(lambda rngs: nnx.Linear(1, 1, rngs=rngs))
    params = {"bias": jnp.array([1.0]), "kernel": jnp.array([[2.0]])}
    assert jax.tree.structure(model.init(jax.random.key(0))) == jax.tree.structure(params)
    assert model.apply(params, jnp.array([[3.0], [4.0]])).tolist() == [[7.0], [9.0]]


def test_the_key_decides_the_weights():
    first, again, other = (mlp((4, 4)).init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["dense1"]["kernel"], other["dense1"]["kernel"])


MODELS = {
    "brain_age_cnn": lambda: brain_age_cnn((8, 9, 8), widths=(4, 6, 4)),
    "flat_cnn": lambda: flat_cnn((8, 9, 8), widths=(4, 6), zero_head=False),
    "mlp": lambda: mlp((8, 9, 8)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_products_with_float32_weights(name):
    whole = MODELS[name]()
    half = in_precision(whole, "bfloat16")
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 9, 8, 1)), jnp.float32)
    params = jax.tree.map(lambda leaf: leaf + 0.01, whole.init(jax.random.key(0)))
    a, b = (jax.jit(model.apply)(params, inputs) for model in (whole, half))
    assert b.dtype == jnp.float32 and not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02)  # bfloat16 has 8 bits: 0.4 % a rounding
    slopes = jax.jit(jax.grad(lambda p: half.apply(p, inputs).sum()))(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(slopes))


def test_whole_precision_is_the_model_itself():
    model = mlp((4, 4))
    assert in_precision(model, "float32") is model


def test_an_unknown_precision_is_refused():
    with pytest.raises(ArgumentError, match="^precision is 'int4': it must be one of float32, bfloat16"):
        in_precision(mlp((4, 4)), "int4")

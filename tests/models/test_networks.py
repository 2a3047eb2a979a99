"""The paper's network to the weight, and shapes that cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.core import tree
from fedsparse_jax.core.types import UsageError
from fedsparse_jax.models import MODELS
from fedsparse_jax.models.brain_age_cnn import brain_age_cnn
from fedsparse_jax.models.flat_cnn import flat_cnn
from fedsparse_jax.models.from_nnx import in_precision
from fedsparse_jax.models.image_classifiers import mlp

PAPER = {
    "conv1": 896,
    "conv2": 55_360,
    "conv3": 221_312,
    "conv4": 884_992,
    "conv5": 1_769_728,
    "top": 16_448,
    "head": 65,
}


def test_the_papers_network_has_the_papers_weights():
    params = jax.eval_shape(brain_age_cnn((91, 109, 91)).init, jax.random.key(0))
    assert {name: tree.size(layer) for name, layer in params.items()} == PAPER
    assert tree.size(params) == 2_948_801


def test_the_papers_network_takes_the_papers_grid():
    model = brain_age_cnn((91, 109, 91))
    params = jax.eval_shape(model.init, jax.random.key(0))
    scans = jax.ShapeDtypeStruct((2, 91, 109, 91, 1), jnp.float32)
    assert jax.eval_shape(model.apply, params, scans).shape == (2,)


@pytest.mark.parametrize("shape", [(91, 31, 91), (24, 28, 24)])
def test_a_shape_that_does_not_survive_the_poolings_is_refused(shape):
    with pytest.raises(UsageError, match=r"does not survive 5 poolings.*32 voxels"):
        brain_age_cnn(shape)


def test_an_untrained_flat_cnn_predicts_the_mean():
    model = flat_cnn((8, 8, 8), widths=(2, 3), poolings=2, output_mean=61.0, output_scale=7.0)
    params = jax.jit(model.init)(jax.random.key(0))
    np.testing.assert_allclose(model.apply(params, jnp.ones((3, 8, 8, 8, 1))), 61.0, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_maps_scans_to_ages_or_images_to_logits(name):
    model = MODELS[name]((32, 32, 32))
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert all(type(layer) is dict for layer in params.values())
    predictions = jax.eval_shape(model.apply, params, jax.ShapeDtypeStruct((2, 32, 32, 32, 1), jnp.float32))
    assert predictions.shape == ((2, 10) if name in ("mlp", "image_cnn") else (2,))
    assert predictions.dtype == jnp.float32


SMALL = {
    "brain_age_cnn": lambda **options: brain_age_cnn((8, 9, 8), widths=(4, 6, 4), **options),
    "flat_cnn": lambda: flat_cnn((8, 9, 8), widths=(4, 6), zero_head=False),
    "mlp": lambda: mlp((8, 9, 8)),
}


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_products_with_float32_weights(name):
    whole = SMALL[name]()
    half, inputs = (
        in_precision(whole, "bfloat16"),
        jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 9, 8, 1))),
    )
    params = jax.tree.map(lambda leaf: leaf + 0.01, whole.init(jax.random.key(0)))
    a, b = (jax.jit(one.apply)(params, inputs.astype(jnp.float32)) for one in (whole, half))
    assert b.dtype == jnp.float32 and not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02)  # bfloat16 has 8 bits: 0.4 % a rounding
    slopes = jax.jit(jax.grad(lambda p: half.apply(p, inputs).sum()))(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(slopes))


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="precision is 'int4'"):
        in_precision(mlp((4, 4)), "int4")


def test_rematerialization_changes_no_gradient():
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 9, 8, 1)), jnp.float32)
    plain, again = (SMALL["brain_age_cnn"](remat=remat) for remat in (False, True))
    params = plain.init(jax.random.key(0))
    slopes = [jax.jit(jax.grad(lambda p, m=m: m.apply(p, inputs).sum()))(params) for m in (plain, again)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *slopes)
    counted = [
        str(jax.make_jaxpr(jax.grad(lambda p, m=m: m.apply(p, inputs).sum()))(params)) for m in (plain, again)
    ]
    assert "remat" not in counted[0] and "remat" in counted[1]

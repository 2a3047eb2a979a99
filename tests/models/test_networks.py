"""The paper's network to the weight, the others by what they map, and shapes that cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.models import MODELS, brain_age_cnn, flat_cnn

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
    with pytest.raises(ArgumentError, match=r"^shape is .* does not survive 5 poolings.*32 voxels"):
        brain_age_cnn(shape)


def test_an_unknown_formulation_is_refused():
    with pytest.raises(ArgumentError, match="^convolution is 'fft': "):
        brain_age_cnn((32, 32, 32), convolution="fft")


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


@pytest.mark.slow
def test_rematerialization_changes_no_gradient():
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 9, 8, 1)), jnp.float32)
    plain, again = (brain_age_cnn((8, 9, 8), widths=(4, 6, 4), remat=remat) for remat in (False, True))
    params = plain.init(jax.random.key(0))
    slope = lambda model: jax.grad(lambda p: model.apply(p, inputs).sum())
    gradients = [jax.jit(slope(model))(params) for model in (plain, again)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *gradients)
    programs = [str(jax.make_jaxpr(slope(model))(params)) for model in (plain, again)]
    assert "remat" not in programs[0] and "remat" in programs[1]

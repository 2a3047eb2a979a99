"""Every network taken apart computes what it computed."""

import jax
import numpy as np
import pytest

from fedsparse_jax.models import CHAINS, MODELS
from fedsparse_jax.models.chains import apply_chain

NETWORKS = {
    "brain_age_cnn": ((8, 8, 6), dict(widths=(4, 5, 3), output_scale=7.0, output_mean=60.0)),
    "flat_cnn": ((6, 6, 5), dict(poolings=1, zero_head=False, output_mean=60.0, output_scale=7.0, channels=2)),
    "mlp": ((5, 4), dict(hidden=(6, 5))),
    "image_cnn": ((9, 8), dict(widths=(3, 4), hidden=5)),
}


def test_every_network_is_tried():
    assert CHAINS.keys() == MODELS.keys() == NETWORKS.keys()


VARIANTS = [*((name, {}) for name in NETWORKS), ("flat_cnn", {"classes": 3}), ("brain_age_cnn", {"norm": "none"})]


@pytest.mark.parametrize(("name", "others"), VARIANTS)
def test_the_chain_computes_what_the_network_does(name, others):
    shape, options = NETWORKS[name]
    options = {**options, **others}
    model, chain = MODELS[name](shape, **options), CHAINS[name](shape, **options)
    shapes, rng = jax.eval_shape(model.init, jax.random.key(0)), np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)  # biases, too
    inputs = np.random.default_rng(0).normal(size=(2, *shape, options.get("channels", 1))).astype(np.float32)
    expected = np.asarray(jax.jit(model.apply)(params, inputs))
    assert np.ptp(expected, axis=0).max() > 1e-4
    found = jax.jit(lambda p, x: apply_chain(chain, p, x))(params, inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)

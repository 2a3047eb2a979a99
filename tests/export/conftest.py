"""Networks with sparse weights and with channels that are dead in every way; small, so that they compile in no time."""

import jax
import numpy as np
import pytest

from fedsparse_jax.export import Network
from fedsparse_jax.models import CHAINS, MODELS

NETWORKS = {
    "brain_age_cnn": ((8, 8, 6), dict(widths=(5, 6, 6), output_scale=8.0, output_mean=60.0)),
    "brain_age_cnn without norms": ((8, 8, 6), dict(widths=(7, 8, 8), output_scale=8.0, norm="none")),
    "flat_cnn": ((8, 8, 6), dict(zero_head=False, output_mean=60.0, output_scale=7.0, channels=2)),
    "mlp": ((5, 4), dict(hidden=(7, 6))),
    "image_cnn": ((9, 8), dict(widths=(5, 6), hidden=8, classes=4)),
}
DEAD = slice(1, 4)  # output channels of every hidden layer without a weight: their biases are above 0, above 0, below 0


def sparse_network(case: str) -> Network:
    """A network at about 50 % sparsity whose channels 1 to 3 have a bias and no weight."""
    (shape, options), name = NETWORKS[case], case.partition(" ")[0]
    rng = np.random.default_rng(2)
    model, chain = MODELS[name](shape, **options), CHAINS[name](shape, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    for layer in params.values():
        layer["kernel"] *= rng.random(layer["kernel"].shape) < 0.5
        if layer["bias"].size >= 5:
            layer["kernel"][..., DEAD] = 0
            layer["bias"][:] = rng.normal(size=layer["bias"].shape)
            layer["bias"][DEAD] = (0.7, 0.4, -0.5)
    masks = jax.tree.map(lambda leaf: leaf != 0, params)
    return Network(model.apply, params, masks, (*shape, options.get("channels", 1)), {"round": 3}, chain)


@pytest.fixture(params=NETWORKS)
def network(request) -> Network:
    return sparse_network(request.param)


@pytest.fixture
def one_network():
    """A network by its name."""
    return sparse_network

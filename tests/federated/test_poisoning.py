"""A contract over all poisons: honest clients stay as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.attacks import POISONS
from fedsparse_jax.core import losses
from fedsparse_jax.core.types import Chunk
from fedsparse_jax.federated import Recipe, build_algorithm, mean, poisoned
from tests.helpers.tiny_problem import tiny_model


@pytest.mark.parametrize("name", POISONS)
def test_only_the_malicious_lie(name):
    """What an honest client trains and sends is the same to the bit, whoever lies beside it."""
    recipe = Recipe(tiny_model(), losses.squared, optax.sgd(0.01), optax.sgd(1.0), mean, num_clients=3)
    honest = build_algorithm(recipe)
    rng = np.random.default_rng(1)
    chunk = Chunk(
        jnp.asarray(rng.uniform(size=(3, 2, 4, 5, 1, 1)), jnp.float32), jnp.ones((3, 2, 4)), jnp.ones((3, 2, 4), bool)
    )
    sent = []
    for algorithm in (honest, poisoned(honest, POISONS[name](), [1])):
        server = algorithm.init(jax.random.key(0))
        clients, _ = algorithm.local_steps(algorithm.start_clients(server, jnp.arange(3)), chunk)
        sent.append(algorithm.upload(server, clients))
        assert np.isfinite(algorithm.update_server(server, clients, jnp.ones(3))[0].params["w"]).all()
    plain, lied = (np.concatenate([np.reshape(leaf, (3, -1)) for leaf in jax.tree.leaves(one)], 1) for one in sent)
    assert (plain[[0, 2]] == lied[[0, 2]]).all() and (plain[1] != lied[1]).any()

"""Bounds on what a client who lies can send, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.core import losses
from fedsparse_jax.core.types import Payload
from fedsparse_jax.federated import Recipe, bound_updates, build_algorithm, mean, prune_at_init
from fedsparse_jax.federated.robust import within_sent_mask
from fedsparse_jax.sparsity import CRITERIA, Pruning, constant, global_
from tests.helpers.tiny_problem import tiny_model


@pytest.mark.parametrize("client_map", ["scan", "vmap"])
def test_an_update_is_scaled_to_the_bound_and_no_further(client_map):
    """Norms 1, 2, 3 and, absent, 1000: the median is 2, the bound of 1.25 times it 2.5."""
    start = {"w": jnp.array([1.0, 1.0])}
    sent = {"w": jnp.array([[2.0, 1.0], [1.0, 3.0], [4.0, 1.0], [1001.0, 1.0]])}
    masks = {"w": jnp.ones((4, 2), bool)}
    present = jnp.array([True, True, True, False])
    bounded = bound_updates(start, sent, masks, present, 1.25, client_map)["w"]
    np.testing.assert_allclose(bounded[:3], [[2.0, 1.0], [1.0, 3.0], [3.5, 1.0]], rtol=1e-6)


def test_what_a_client_has_pruned_counts_in_no_norm_and_stays_zero():
    start = {"w": jnp.array([100.0, 1.0])}
    sent = {"w": jnp.array([[0.0, 2.0], [0.0, 3.0], [0.0, 9.0]])}
    masks = {"w": jnp.array([[False, True]] * 3)}
    bounded = bound_updates(start, sent, masks, jnp.ones(3, bool), 1.0)["w"]
    np.testing.assert_allclose(bounded, [[0.0, 2.0], [0.0, 3.0], [0.0, 3.0]])


def test_nobody_revives_a_weight_that_was_not_sent():
    sent = {"w": jnp.array([True, False])}
    params, masks = within_sent_mask(sent, {"w": jnp.array([[1.0, 9.0]])}, {"w": jnp.array([[True, True]])})
    assert params["w"].tolist() == [[1.0, 0.0]] and masks["w"].tolist() == [[True, False]]


def test_a_round_keeps_the_pruned_pruned_whatever_a_client_claims():
    rule = Pruning(CRITERIA["magnitude"], global_, constant(0.5))
    recipe = Recipe(
        tiny_model(), losses.squared, optax.sgd(0.01), optax.sgd(1.0), mean, hooks=(prune_at_init(rule),), num_clients=2
    )
    algorithm = build_algorithm(recipe)
    server = algorithm.prune_at_init(algorithm.init(jax.random.key(0)))
    clients = algorithm.start_clients(server, jnp.arange(2))
    honest = algorithm.upload(server, clients)
    lie = jax.tree.map(lambda leaf: leaf.at[0].set(True), honest.masks)
    claimed = Payload(jax.tree.map(lambda leaf: leaf.at[0].set(1.0), honest.params), lie)
    new, _ = algorithm.update_server(server, clients, jnp.ones(2), None, claimed)
    for after, before in zip(jax.tree.leaves(new.masks), jax.tree.leaves(server.masks), strict=True):
        assert (np.asarray(after) == np.asarray(before)).all()

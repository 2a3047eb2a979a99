"""FedDIP's error feedback beside the golden rounds of tests/test_methods.py: one weight that comes back, by hand."""

import jax
import jax.numpy as jnp
import optax
import pytest

from fedsparse_jax.core import losses
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.types import Chunk, Model
from fedsparse_jax.federated import PrivateSteps, Recipe, build_algorithm, mean, prune_on_server
from fedsparse_jax.federated.error_feedback import error_feedback
from fedsparse_jax.sparsity import CRITERIA, Pruning, constant, global_

HALF = Pruning(CRITERIA["magnitude"], global_, constant(0.5))


def one_client(every=1, penalty=0.0, **changes):
    """``y = w x`` of two weights, the second pruned, one example ``x = (1, 2), y = 2``, rate .1, two steps."""
    model = Model(lambda key: {"w": jnp.array([0.5, 0.0])}, lambda p, x: x @ p["w"])
    hooks = (error_feedback(HALF, every=every, penalty=penalty, steps=2, end=2), prune_on_server(HALF))
    recipe = Recipe(model, losses.squared, optax.sgd(0.1), optax.sgd(1.0), mean, hooks, **changes)
    algorithm = build_algorithm(recipe._replace(initial_masks={"w": jnp.array([True, False])}))
    inputs = jnp.broadcast_to(jnp.array([1.0, 2.0]), (1, 2, 1, 2))
    return algorithm, Chunk(inputs, jnp.full((1, 2, 1), 2.0), jnp.ones((1, 2, 1), bool))


def after_a_round(algorithm, chunk, before=0):
    server = algorithm.init(jax.random.key(0))._replace(round=jnp.int32(before))
    clients, _ = algorithm.local_steps(algorithm.start_clients(server, jnp.arange(1)), chunk)
    return algorithm.update_server(server, clients, jnp.ones(1))[0]


def test_a_pruned_weight_that_has_moved_far_comes_back_with_its_value():
    # The prediction is w1 alone. Slopes 2 (w1 - 2): -3, then w1 = .8 and -2.4; that of w2 is twice as large.
    server = after_a_round(*one_client())
    assert server.params["w"].tolist() == [0, pytest.approx(0.1 * (2 * 3 + 2 * 2.4))]
    assert server.masks["w"].tolist() == [False, True]


def test_between_such_rounds_the_mask_stays():
    server = after_a_round(*one_client(every=2))
    assert server.params["w"].tolist() == [pytest.approx(0.8 + 0.24), 0]


def test_a_schedule_of_the_rate_scales_what_is_sent_of_pruned_weights():
    server = after_a_round(*one_client(client_rate=lambda step: 2.0))
    # Steps of .2: w1 is 1.1 after the first, with a slope of -1.8, and 1.46 in the end.
    assert server.params["w"].tolist() == [0, pytest.approx(0.2 * (2 * 3 + 2 * 1.8))]


def test_the_penalty_pulls_with_the_same_force_whatever_the_norm():
    # In the second of two steps w / |w| is 1 for the one kept weight: slopes -3 + 1, then w1 = .7 and -2.6 + 1.
    server = after_a_round(*one_client(every=3, penalty=1.0), before=1)
    assert server.params["w"].tolist() == [pytest.approx(0.5 + 0.2 + 0.16), 0]


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UsageError, match="error feedback needs those of pruned ones"):
        one_client(private=PrivateSteps(1.0, 1.0))
    with pytest.raises(ArgumentError, match="every"):
        error_feedback(HALF, every=0)

"""SCAFFOLD beside the golden rounds of tests/test_methods.py: its fixed point, absent clients, masks, bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.core import losses
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Chunk, Model
from fedsparse_jax.federated import Recipe, build_algorithm, keepers_mean, lottery_tickets, mean, regrow_on_server
from fedsparse_jax.federated.scaffold import scaffold
from fedsparse_jax.runs import jit_algorithm
from fedsparse_jax.sparsity import CRITERIA, Pruning, Regrowth, constant, global_, swap

RULE = Pruning(CRITERIA["magnitude"], global_, constant(0.0))
STEPS = 10


def scalar_problem(*hooks, num_clients=2, **changes):
    """``y = w x`` with one example a client: (1, 0) and (2, 2); the mean squared error of both is least at w = .8."""
    model = Model(lambda key: {"w": jnp.zeros(1)}, lambda p, x: x * p["w"])
    built = Recipe(
        model, losses.squared, optax.sgd(0.1), optax.sgd(1.0), mean, hooks, num_clients=num_clients, **changes
    )
    inputs, targets = jnp.array([1.0, 2.0]), jnp.array([0.0, 2.0])
    steps = lambda values: jnp.broadcast_to(values[:, None, None], (2, STEPS, 1))
    return jit_algorithm(build_algorithm(built)), Chunk(steps(inputs), steps(targets), jnp.ones((2, STEPS, 1), bool))


def after(rounds, *hooks, weights=(1.0, 1.0), **changes):
    algorithm, chunk = scalar_problem(*hooks, **changes)
    server = algorithm.init(jax.random.key(0))
    for _ in range(rounds):
        clients, _ = algorithm.local_steps(algorithm.start_clients(server, jnp.arange(2)), chunk)
        server, info = algorithm.update_server(server, clients, jnp.array(weights))
    return server, info


def test_it_ends_where_the_mean_loss_is_least_and_fedavg_does_not():
    drifted, _ = after(25)
    corrected, _ = after(25, scaffold(RULE))
    # FedAvg: after ten steps the clients are at .8**10 w and 1 - .2**10 (1 - w).
    near, far = 0.8**10, 0.2**10
    assert float(drifted.params["w"][0]) == pytest.approx((1 - far) / (2 - near - far), abs=1e-4)
    assert float(corrected.params["w"][0]) == pytest.approx(0.8, abs=1e-4)
    gradients = [2 * 0.8, 2 * 2 * (2 * 0.8 - 2)]  # of the two clients at .8, which add up to 0
    np.testing.assert_allclose(corrected.memory.state["w"][:, 0], gradients, atol=1e-3)
    assert float(corrected.hook_state["w"][0]) == pytest.approx(0, abs=1e-3)


def test_the_server_adds_the_share_of_those_who_came():
    """Of four clients one comes: the server's control variate is a quarter of its own, the other's stays zero."""
    server, info = after(1, scaffold(RULE), weights=(0.0, 3.0), num_clients=4)
    own = server.memory.state["w"][:, 0]
    w, gradients = 0.0, []
    for _ in range(STEPS):
        gradients.append(4 * (2 * w - 2))
        w -= 0.1 * gradients[-1]
    assert own.tolist() == [0, pytest.approx(np.mean(gradients), rel=1e-5), 0, 0]
    assert float(server.hook_state["w"][0]) == pytest.approx(np.mean(gradients) / 4, rel=1e-5)
    assert info.params_down.tolist() == [0, 2] and info.params_up.tolist() == [0, 2]


def test_a_client_without_a_step_keeps_its_control_variate():
    algorithm, chunk = scalar_problem(scaffold(RULE))
    server, _ = after(2, scaffold(RULE))
    idle = chunk._replace(valid=chunk.valid.at[0].set(False))
    clients, _ = algorithm.local_steps(algorithm.start_clients(server, jnp.arange(2)), idle)
    new, _ = algorithm.update_server(server, clients, jnp.ones(2))
    assert new.memory.state["w"][0] == server.memory.state["w"][0] and new.memory.state["w"][1] != 0


def test_what_is_pruned_has_no_control_variate():
    model = Model(lambda key: {"w": jnp.ones(3)}, lambda p, x: x @ p["w"])
    mask = {"w": jnp.array([True, False, True])}
    made = Recipe(model, losses.squared, optax.sgd(0.1), optax.sgd(1.0), keepers_mean, (scaffold(RULE),), num_clients=2)
    algorithm = build_algorithm(made._replace(initial_masks=mask))
    server = algorithm.init(jax.random.key(0))
    chunk = Chunk(jnp.ones((2, 2, 1, 3)), jnp.array([[[0.0]] * 2, [[9.0]] * 2]), jnp.ones((2, 2, 1), bool))
    for _ in range(2):
        clients, _ = algorithm.local_steps(algorithm.start_clients(server, jnp.arange(2)), chunk)
        assert bool((algorithm.upload(server, clients).scores[0]["w"][:, 1] == 0).all())
        server, info = algorithm.update_server(server, clients, jnp.ones(2))
    for values in (server.params["w"], server.hook_state["w"], *server.memory.state["w"]):
        assert values[1] == 0 and values[0] != 0
    assert info.params_up.tolist() == [4, 4]


def test_parts_that_do_not_go_together_are_refused():
    with pytest.raises(UsageError, match="More than one hook keeps a state"):
        scalar_problem(scaffold(RULE), lottery_tickets(RULE))
    growth = Regrowth(swap(), CRITERIA["magnitude"], begin=1, every=1, end=9)
    with pytest.raises(UsageError, match="knows nothing of weights that come back"):
        scalar_problem(scaffold(RULE), regrow_on_server(RULE, growth))

"""Who counts in a round, by hand; and a round that changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.core import losses, masks
from fedsparse_jax.core.types import Absence, ClientMemory, Payload, Reports, ServerState
from fedsparse_jax.federated import Recipe, build_algorithm, mean, prune_on_server
from fedsparse_jax.federated.sound_clients import Limits, why_absent
from fedsparse_jax.sparsity import CRITERIA, Pruning, global_, gradual
from tests.helpers.tiny_problem import tiny_model

GOOD, ANY = [1.0, 1.0], Limits()


def reasons(params, limits=ANY, *, weights=None, absent=None, loss=None, scores=()):
    """The reasons for clients that sent ``params``, beside a global model of norm 2."""
    count = len(params)
    tree = {"w": jnp.array(params, jnp.float32)}
    server = ServerState(jnp.int32(0), {"w": jnp.array([2.0, 0.0])}, None, None, jax.random.key(0), ClientMemory())
    reports = None
    if absent or loss:
        reports = Reports(
            jnp.array(absent or [0] * count, jnp.int32), jnp.array(loss or [1.0] * count, jnp.float32)
        )  # fmt: skip
    received = Payload(tree, masks.ones(tree), scores)
    found = why_absent(limits, server, received, jnp.array(weights or [1.0] * count), reports)
    return [Absence(int(reason)).name for reason in found]


def test_what_is_no_number_is_named_whatever_the_limits():
    assert reasons([GOOD, [np.nan, 0.0], [0.0, np.inf]]) == ["NONE", "NOT_A_NUMBER", "NOT_A_NUMBER"]
    assert reasons([GOOD, GOOD], scores=({"w": jnp.array([[0.0], [jnp.nan]])},)) == ["NONE", "NOT_A_NUMBER"]


def test_who_was_absent_is_not_called_sick():
    nothing = [np.nan, np.nan]
    assert reasons([nothing, nothing, GOOD], weights=[0.0, 1.0, 1.0], absent=[0, Absence.LATE, 0]) == [
        *("NO_DATA", "LATE", "NONE")
    ]


@pytest.mark.parametrize(("far", "expected"), [(19.9, "NONE"), (20.1, "EXPLODED"), (1e30, "EXPLODED")])
def test_weights_explode_beyond_the_limit_times_the_larger_of_median_and_model(far, expected):
    assert reasons([GOOD, GOOD, [far, 0.0]], Limits(explosion=10.0))[2] == expected  # 10 times the model's norm of 2
    far_median = [[4.0, 0.0], [4.0, 0.0], [2 * far, 0.0]]
    assert reasons(far_median, Limits(explosion=10.0))[2] == expected  # 10 times the cohort's median of 4


def test_a_loss_explodes_beyond_the_limit_times_the_larger_of_median_and_knowing_nothing():
    limits = Limits(explosion=10.0, usual_loss=2.0)
    assert reasons([GOOD] * 3, limits, loss=[1e-9, 1e-9, 19.0]) == ["NONE"] * 3  # a hard client is not sick
    assert reasons([GOOD] * 3, limits, loss=[1e-9, 1e-9, 21.0])[2] == "EXPLODED"
    assert reasons([GOOD] * 3, limits, loss=[5.0, 5.0, 49.0]) == ["NONE"] * 3
    assert reasons([GOOD] * 3, limits, loss=[5.0, 5.0, np.nan])[2] == "EXPLODED"


def test_without_a_limit_nothing_explodes():
    assert reasons([GOOD, [1e30, 0.0]], loss=[1.0, 1e30]) == ["NONE", "NONE"]


@pytest.mark.parametrize(("sound", "void"), [(0, True), (1, True), (2, False), (3, False)])
def test_below_the_minimum_a_round_changes_nothing_but_its_number(sound, void):
    rule = Pruning(CRITERIA["magnitude"], global_, gradual(0.5, begin=0, end=1))
    recipe = Recipe(
        *(tiny_model(), losses.squared, optax.adam(0.1), optax.adam(0.1), mean),
        hooks=(prune_on_server(rule),),
        keep_opt_state=True,
        limits=Limits(min_clients=2),
        num_clients=3,
    )
    algorithm = build_algorithm(recipe)
    server = algorithm.init(jax.random.key(0))
    clients = algorithm.start_clients(server, jnp.arange(3))
    moved = jax.tree.map(lambda leaf: leaf + 1, (clients.params, clients.opt_state[0].mu))
    clients = clients._replace(
        params=moved[0], opt_state=(clients.opt_state[0]._replace(mu=moved[1]), *clients.opt_state[1:])
    )
    absent = jnp.where(jnp.arange(3) < sound, Absence.NONE, Absence.DROPPED_OUT).astype(jnp.int32)
    new, info = algorithm.update_server(server, clients, jnp.ones(3), None, None, Reports(absent, jnp.zeros(3)))
    assert bool(info.void) is void and int(new.round) == 1
    assert (np.asarray(info.left_out) > 0).sum() == 3 - sound
    same = jax.tree.map(
        lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()),
        *((state.params, state.masks, state.opt_state, state.memory) for state in (server, new)),
    )
    assert all(jax.tree.leaves(same)) if void else not any(jax.tree.leaves(same[0]))
    assert (np.asarray(info.params_up) > 0).tolist() == [place < sound for place in range(3)]
    assert (np.asarray(info.params_down) > 0).all()  # all had been sent the model

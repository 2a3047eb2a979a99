"""A model that travels from client to client within a round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.runs import initial_server, make_runner, play_round, run_experiment
from fedsparse_jax.runs.experiment import Cohorts
from fedsparse_jax.runs.faults import Faults
from fedsparse_jax.runs.round import travel_order
from tests.helpers import toy_federation
from tests.helpers.interrupted import QUIET, Killed, final_state, stop_after, without_time


def travelling(order="cyclic", size=3, **changes):
    return toy_federation.experiment(**changes)._replace(cohorts=Cohorts(size, travel=order))


def test_each_client_begins_where_the_one_before_it_ended():
    """Three rounds of one client each, in a row, are one round of the travelling model."""
    runner = make_runner(travelling())
    alone = make_runner(toy_federation.experiment())
    whole = play_round(runner, initial_server(runner), 1, np.array([2, 0, 1]), {})
    server = initial_server(alone)
    for client in (0, 1, 2):
        result = play_round(alone, server._replace(round=jnp.int32(0)), 1, np.array([client]), {})
        server = result.server
    jax.tree.map(np.testing.assert_array_equal, whole.server._replace(key=0), server._replace(key=0))
    assert int(whole.server.round) == 1 and whole.client_ids.tolist() == [0, 1, 2]
    assert int(whole.steps[0].examples.sum()) == 2 * 22 and whole.info.left_out.tolist() == [0, 0, 0]


def test_the_order_is_the_same_or_drawn_for_each_round():
    cyclic, shuffled = travelling(), travelling("shuffled")
    assert travel_order(cyclic, 1, np.array([5, 2, 9])) == travel_order(cyclic, 7, np.array([9, 5, 2])) == [2, 5, 9]
    orders = {tuple(travel_order(shuffled, t, np.arange(6))) for t in range(1, 9)}
    assert len(orders) == 8 and all(sorted(order) == list(range(6)) for order in orders)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["measure", "transmit"])
def test_a_stopped_journey_goes_on_bit_for_bit_and_its_messages_are_counted(mode, tmp_path):
    experiment = travelling("shuffled", size=2, mode=mode)
    whole = run_experiment(experiment, tmp_path / "whole", QUIET)
    with pytest.raises(Killed):
        run_experiment(experiment, tmp_path / "parts", stop_after(2))
    assert without_time(run_experiment(experiment, tmp_path / "parts", QUIET)) == without_time(whole)
    for a, b in zip(*(jax.tree.leaves(final_state(tmp_path / name)._replace(key=0)) for name in ("whole", "parts"))):
        np.testing.assert_array_equal(a, b)
    assert all(len(record.bytes_down) == len(record.bytes_up) == 2 for record in whole)
    assert all(np.isfinite(record.train_loss) for record in whole)


def test_the_model_passes_by_a_client_that_drops_out():
    away = travelling()._replace(faults=Faults(dropout=1.0))
    runner = make_runner(away)
    server = initial_server(runner)
    result = play_round(runner, server, 1, np.arange(3), {})
    assert bool(result.info.void) and result.info.left_out.tolist() == [2, 2, 2] and int(result.server.round) == 1
    jax.tree.map(np.testing.assert_array_equal, result.server.params, server.params)

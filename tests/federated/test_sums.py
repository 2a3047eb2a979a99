"""Clients merged as they come: the sums of the rules by NumPy, and rounds that are those of all clients at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.config import experiment_from_config, load_config, override
from fedsparse_jax.core import losses, tree
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Absence, Payload, Reports
from fedsparse_jax.federated import AGGREGATORS, Limits, Recipe, build_algorithm, mean
from fedsparse_jax.federated.sums import SUM_RULES, Sums
from fedsparse_jax.runs import checkpoint, read_records, run_experiment
from fedsparse_jax.runs.faults import Faults
from tests.helpers import numpy_reference
from tests.helpers.interrupted import QUIET, Killed, stop_after
from tests.helpers.many_methods import METHODS, experiment
from tests.helpers.tiny_problem import tiny_model

AS_TOLD = ("cohort", "bytes_up", "bytes_down", "params_up", "params_down", "sparsity", "left_out", "agreement", "drift")


@pytest.mark.parametrize("quorum", ["strict_majority", "at_least_half", "as_coded", 0.7])
@pytest.mark.parametrize("name", SUM_RULES)
def test_a_rule_of_sums_gives_what_the_rule_of_that_name_gives_of_the_clients(name, quorum):
    rng = np.random.default_rng(7)
    masks = {"w": rng.random((5, 40)) < 0.5}
    params = {"w": np.where(masks["w"], rng.normal(size=(5, 40)), 0).astype(np.float32)}
    weights, options = np.array([3.0, 1.0, 0.0, 2.0, 5.0]), {"quorum": quorum} if "vote" in name else {}
    sums = Sums(
        np.float32(11), np.int32(4), *[{"w": np.float32(np.tensordot(weights, one["w"], 1))} for one in (params, masks)],
        {"w": masks["w"][weights > 0].sum(0)}, (), np.float32(0),
    )  # fmt: skip
    expected, elected = numpy_reference.AGGREGATORS[name](params["w"], masks["w"], weights, **options)
    merged, mask = SUM_RULES[name](jax.tree.map(jnp.asarray, sums), **options)
    np.testing.assert_allclose(merged["w"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mask["w"], elected)
    assert set(SUM_RULES) < set(AGGREGATORS)


def play(built, folder):
    run_experiment(built, folder, QUIET)
    like = jax.eval_shape(built.algorithm.init, jax.random.key(0))
    with checkpoint.open_manager(folder) as manager:
        return checkpoint.restore_checkpoint(manager, like), read_records(folder)


@pytest.mark.parametrize(
    ("method", "faults"),
    [*((method, Faults()) for method in METHODS if method != "kept"), ("local", Faults(dropout=0.4))],
)
def test_rounds_of_two_clients_at_a_time_are_those_of_all_at_once(method, faults, tmp_path):
    whole, whole_log = play(experiment(method, 3)._replace(faults=faults), tmp_path / "whole")
    in_twos = experiment(method, 3, held=2)._replace(faults=faults)
    with pytest.raises(Killed):
        run_experiment(in_twos, tmp_path / "twos", stop_after(1))
    parts, log = play(in_twos, tmp_path / "twos")
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), whole.masks, parts.masks))
    for field in AS_TOLD:
        assert [getattr(one, field) for one in whole_log] == [getattr(one, field) for one in log], field
    np.testing.assert_allclose([one.train_loss for one in log], [one.train_loss for one in whole_log], rtol=1e-5)


def merging_of(limits):
    parts = (tiny_model(), losses.squared, optax.sgd(0.1), optax.sgd(1.0), mean)
    built = build_algorithm(Recipe(*parts, limits=limits, of_sums=SUM_RULES["mean"]))
    return built.merging, built.init(jax.random.key(0))


def sent(server, *factors):
    """What clients send whose weights are those of the server, times a factor each."""
    params = jax.tree.map(lambda leaf: jnp.stack([leaf * factor for factor in factors]), server.params)
    return Payload(params, tree.broadcast(server.masks, len(factors)))


def test_a_sick_client_is_left_out_by_what_it_sends_alone_and_a_round_of_nobody_changes_nothing():
    merging, server = merging_of(Limits(explosion=10.0, usual_loss=2.0))
    reports = Reports(jnp.zeros(4, jnp.int32), jnp.array([1.0, 1.0, 21.0, 1.0]))
    received = sent(server, 2.0, np.nan, 2.0, 11.0)
    total, added = merging.add_clients(server, merging.of_nobody(server), received, jnp.ones(4), reports)
    assert added.left_out.tolist() == [Absence.NONE, Absence.NOT_A_NUMBER, Absence.EXPLODED, Absence.EXPLODED]
    new, info = merging.update_server(server, total, added)
    for a, b in zip(jax.tree.leaves(new.params), jax.tree.leaves(server.params), strict=True):
        np.testing.assert_allclose(a, 2 * b, rtol=1e-6)
    assert not info.void and info.agreement == 1
    nobody, added = merging.add_clients(server, merging.of_nobody(server), sent(server, np.nan), jnp.ones(1))
    same, info = merging.update_server(server, nobody, added)
    assert info.void and int(same.round) == 1
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same.params, server.params))


def test_without_a_usual_loss_no_loss_is_too_high():
    merging, server = merging_of(Limits(explosion=10.0))
    reports = Reports(jnp.zeros(1, jnp.int32), jnp.array([1e9]))
    _, added = merging.add_clients(server, merging.of_nobody(server), sent(server, 1.0), jnp.ones(1), reports)
    assert added.left_out.tolist() == [Absence.NONE]


@pytest.mark.parametrize(
    ("spec", "settings", "named"),
    [
        ("lotteryfl.py", {}, "needs all clients at once"),
        ("scaffold.py", {}, "needs all clients at once"),
        ("fedavg.py", {"client.optimizer_state": "kept"}, "keep something between rounds"),
        ("fedavg.py", {"aggregation.name": "median"}, "name 'median'. needs all clients at once"),
        ("fedavg.py", {"server.norm_bound": "2.0"}, "server.norm_bound"),
        ("fedavg.py", {"faults.deadline": "2.0"}, "faults.deadline is 2.0"),
        ("fedavg.py", {"execution.clients_held": "-1"}, "execution.clients_held is -1"),
        ("cyclic.py", {}, "order is 'cyclic'"),
    ],
)
def test_what_needs_all_clients_at_once_is_refused(spec, settings, named):
    config = load_config(f"configs/methods/{spec}:digits+smoke")
    config = override(config, [*({"execution.clients_held": "2"} | settings).items()])
    with pytest.raises(UsageError, match=named) as told:
        experiment_from_config(config)
    assert "set" in str(told.value) or "negative" in str(told.value)


@pytest.mark.slow
def test_scores_that_the_server_asks_for_are_added_up(tmp_path):
    ends = []
    for held in (0, 3):
        settings = [("execution.clients_held", str(held)), ("log.report", "False")]
        built = experiment_from_config(override(load_config("configs/methods/rigl.py:digits+smoke"), settings))
        ends.append(play(built, tmp_path / str(held)))
    (whole, whole_log), (parts, log) = ends
    assert sum(one.params_up for one in log) > sum(one.params_down for one in log)  # scores were sent
    assert [one.params_up for one in log] == [one.params_up for one in whole_log]
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), whole.masks, parts.masks))

"""Leaves that stay with their client: not sent, not merged, not pruned; numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.attacks import POISONS
from fedsparse_jax.communication import MessageSettings
from fedsparse_jax.core import losses
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.federated import Recipe, build_algorithm, mean, poisoned, prune_on_server
from fedsparse_jax.federated.personal import leaves_named, model_of_client
from fedsparse_jax.runs import evaluate_server, initial_server, make_runner, play_round
from fedsparse_jax.runs.checkpoint import open_manager, restore_checkpoint, save_checkpoint, state_digest
from fedsparse_jax.runs.evaluation import predict_as_server
from fedsparse_jax.sparsity import CRITERIA, Pruning, constant, global_
from tests.helpers import toy_federation
from tests.helpers.tiny_problem import tiny_model

OPTIMIZERS = optax.sgd(0.01), optax.sgd(1.0)


def recipe(*patterns, **changes):
    chosen = dict(num_clients=3, personal=leaves_named(patterns), **changes)
    return Recipe(tiny_model(), losses.squared, *OPTIMIZERS, mean, **chosen)


def shared_prunable(params):
    return {name: name != "v" for name in params}


def moved(clients):
    """Every client's leaves plus its number."""
    add = lambda leaf: leaf + clients.id.reshape((-1,) + (1,) * (leaf.ndim - 1)).astype(leaf.dtype)
    return clients._replace(params=jax.tree.map(add, clients.params))


def test_what_stays_is_in_no_message_and_nobody_elses():
    algorithm = build_algorithm(recipe("v"))
    server = algorithm.init(jax.random.key(0))
    down, clients = algorithm.download(server, jnp.arange(3)), moved(algorithm.start_clients(server, jnp.arange(3)))
    up = algorithm.upload(server, clients)
    assert all(tree["v"] is None and tree["w"] is not None for tree in (*down[:2], *up[:2]))
    new, info = algorithm.update_server(server, clients, jnp.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(new.params["w"], server.params["w"] + 1.25, rtol=1e-6)  # (0 + 1 + 2 * 2) / 4
    np.testing.assert_array_equal(new.params["v"], server.params["v"])
    assert info.params_up.tolist() == info.params_down.tolist() == [16, 16, 16]  # 19 without the three of v
    for client in range(3):
        np.testing.assert_allclose(model_of_client(new, client)["v"], server.params["v"] + client, rtol=1e-6)
        np.testing.assert_array_equal(model_of_client(new, client)["w"], new.params["w"])
    again = algorithm.start_clients(new, jnp.array([2, 0]))
    np.testing.assert_allclose(again.params["v"], server.params["v"][None] + jnp.array([2.0, 0.0])[:, None, None])


def test_a_client_that_does_not_count_keeps_what_it_had():
    algorithm = build_algorithm(recipe("v"))
    server = algorithm.init(jax.random.key(0))
    clients = moved(algorithm.start_clients(server, jnp.arange(3)))
    broken = clients._replace(params={**clients.params, "w": clients.params["w"].at[2].set(jnp.nan)})
    new, info = algorithm.update_server(server, broken, jnp.array([1.0, 0.0, 1.0]))
    assert info.left_out.tolist() == [0, 1, 4]
    assert (new.memory.params["v"] == server.memory.params["v"]).all() and new.memory.params["w"] is None


def test_nobody_prunes_what_stays():
    rule = Pruning(CRITERIA["magnitude"], global_, constant(0.75), shared_prunable)
    algorithm = build_algorithm(recipe("v", hooks=(prune_on_server(rule),)))
    server = algorithm.init(jax.random.key(0))
    new, _ = algorithm.update_server(server, algorithm.start_clients(server, jnp.arange(3)), jnp.ones(3))
    assert bool(new.masks["v"].all()) and int(new.masks["w"].sum() + new.masks["b"].sum()) == 4
    after, later = algorithm.update_server(new, algorithm.start_clients(new, jnp.arange(3)), jnp.ones(3))
    assert later.params_down.tolist() == [4, 4, 4] and bool(jnp.isfinite(after.params["w"]).all())


def test_patterns_that_fit_nothing_or_all_and_what_is_prunable_are_refused():
    for patterns, message in [(["head/*"], "a pattern of no leaf.* there are b, v, w"), (["*"], "of all leaves")]:
        with pytest.raises(ArgumentError, match=message):
            build_algorithm(recipe(*patterns))
    everything = Pruning(CRITERIA["magnitude"], global_, constant(0.5))
    with pytest.raises(UsageError, match="cannot be pruned"):
        build_algorithm(recipe("v", hooks=(prune_on_server(everything),)))


@pytest.mark.parametrize(
    ("name", "options"), [("sign_flip", {}), ("keep_weights", {"share": 0.5}), ("kill_weights", {})]
)
def test_liars_lie_about_what_is_sent(name, options):
    honest = build_algorithm(recipe("v"))
    algorithm = poisoned(honest, POISONS[name](**options), [1])
    server = algorithm.init(jax.random.key(0))
    clients = moved(algorithm.start_clients(server, jnp.arange(3)))
    plain, lied = honest.upload(server, clients), algorithm.upload(server, clients)
    assert lied.params["v"] is None and bool((plain.params["w"][1] != lied.params["w"][1]).any())


def toy(**changes):
    """The toy federation whose clients have heads of their own, and validate."""
    base = toy_federation.experiment(cohort_size=3, mode="transmit")
    data = base.federation
    split = [(rows[:-1], rows[-1:]) for rows in data.members]
    data = data._replace(members=[train for train, _ in split], validation=tuple(chosen for _, chosen in split))
    model = toy_federation.network()
    built = Recipe(
        model, losses.squared, *OPTIMIZERS, mean, num_clients=3, personal=leaves_named(["head/*"]), client_map="scan"
    )
    return base._replace(algorithm=build_algorithm(built), federation=data, **changes)


def test_clients_are_judged_by_their_own_models_and_strangers_by_the_mean_of_all():
    experiment = toy()
    runner, data = make_runner(experiment), experiment.federation
    server = initial_server(runner)
    bias = jnp.array([[5.0], [6.0], [7.0]])  # with the head's kernel of zeros a client predicts 50, 60 or 70 for all
    own = {**server.memory.params, "head": {"bias": bias, "kernel": server.memory.params["head"]["kernel"] * 0}}
    server = server._replace(memory=server.memory._replace(params=own))
    measured = evaluate_server(runner, server)
    targets = data.targets[data.test]
    expected = np.mean([np.abs(targets - years).mean() for years in (50, 60, 70)])
    assert measured.test["mae"] == pytest.approx(expected, rel=1e-5)
    validated = [abs(data.targets[rows[0]] - years) for rows, years in zip(data.validation, (50, 60, 70))]
    assert measured.validation["mae"] == pytest.approx(np.mean(validated), rel=1e-5)
    assert measured.own == {}  # nobody told sites
    np.testing.assert_allclose(predict_as_server(runner, server, data.test), 60.0, rtol=1e-5)
    sites = [{**row, "site": "abc"[place % 3]} for place, row in enumerate(data.people)]
    members = [np.array([row for row in rows if row % 3 == i]) for i, rows in enumerate(data.members)]
    told = make_runner(experiment._replace(federation=data._replace(people=sites, members=members)))
    by_site = [
        np.abs(data.targets[data.test[data.test % 3 == i]] - years).mean() for i, years in enumerate((50, 60, 70))
    ]
    assert evaluate_server(told, server).own["mae"] == pytest.approx(np.mean(by_site), rel=1e-5)


def test_messages_are_shorter_by_what_stays_and_a_checkpoint_holds_it(tmp_path):
    experiment = toy()
    runner = make_runner(experiment)
    result = play_round(runner, initial_server(runner), 1, np.arange(3), {})
    with open_manager(tmp_path) as manager:
        save_checkpoint(manager, result.server)
    with open_manager(tmp_path) as manager:
        like = jax.eval_shape(experiment.algorithm.init, jax.random.key(0))
        assert state_digest(restore_checkpoint(manager, like)) == state_digest(result.server)
    whole = toy_federation.experiment(cohort_size=3, mode="transmit", messages=MessageSettings("transmit"))
    other = make_runner(whole)
    longer = play_round(other, initial_server(other), 1, np.arange(3), {})
    head = sum(leaf.size for leaf in jax.tree.leaves(result.server.params["head"]))
    saved = np.subtract(longer.traffic.down, result.traffic.down)
    assert (saved > 3 * head).all() and (saved < 4 * head + 16).all()  # four bytes a weight, less what the codec packs
    assert bool(
        (result.server.memory.params["head"]["kernel"][0] != result.server.memory.params["head"]["kernel"][1]).any()
    )

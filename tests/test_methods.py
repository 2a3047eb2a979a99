"""Every method of configs/ against the NumPy reference: masks and weights after each of the first rounds.

The method is read from its config file; only the network (two linear layers), the data and the learning rate are
replaced by ones that the reference can follow.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.communication import MessageSettings
from fedsparse_jax.config import load_config, recipe_from_config
from fedsparse_jax.core import losses, tasks
from fedsparse_jax.core.types import Chunk, DataNeeds, Model
from fedsparse_jax.data import batching
from fedsparse_jax.federated import (
    Recipe,
    build_algorithm,
    keepers_mean,
    lottery_tickets,
    prune_at_init,
    prune_on_server,
    regrow_on_clients,
)
from fedsparse_jax.runs import Batching, Cohorts, Execution, Experiment, initial_server, make_runner, play_round
from fedsparse_jax.runs.round import sample_cohort
from fedsparse_jax.sparsity import (
    CRITERIA,
    Pruning,
    Regrowth,
    constant,
    global_,
    kernels,
    multiplicative,
    per_layer,
    random,
    swap,
)
from tests.helpers import numpy_reference as reference
from tests.helpers.tiny_problem import problem, tiny_model

RATE, ROUNDS, SEED, BATCH, EPOCHS, NUM_CLIENTS = 0.02, 3, 1990, 4, 2, 3
KERNELS, EVERYTHING = {"b": False, "v": True, "w": True}, {"b": True, "v": True, "w": True}


def gradual(t):
    return reference.gradual(t, 0.0, 0.6, 1, ROUNDS)


def constantly(t):
    return 0.6


def sparse(placement, schedule, criterion="magnitude", scope="global", prunable=EVERYTHING, **more):
    base = dict(placement=placement.split("+"), schedule=schedule, criterion=criterion, scope=scope)
    return {**base, "prunable": prunable, "aggregate": reference.mean, **more}


def unweighted_keepers(params, masks, weights):
    return reference.keepers_mean(params, masks, weights, weighted=False)


def from_half(t):
    return reference.gradual(t, 0.5, 0.6, 0, ROUNDS)


OFF = MessageSettings()
DENSE = sparse("none", constantly)
DUE = lambda end: lambda t: t <= end
RETURNING = dict(place="server", fraction=0.3, due=DUE(2), end=2)
METHODS = {
    "fedavg": DENSE,
    "fedprox": {**DENSE, "proximal": 0.01},
    "fedadam": {**DENSE, "server": lambda: reference.Adam(0.01)},
    "one_shot": sparse("server", lambda t: 0.6 * (t >= 3)),
    "one_shot:tuned": sparse("server", lambda t: 0.6 * (t >= 3)),
    "random_pruning": sparse("server", gradual, "random"),
    "snip": sparse("init", constantly, "snip", prunable=KERNELS, over="one"),
    "grasp": sparse("init", constantly, "grasp", prunable=KERNELS, over="one"),
    "synflow": sparse("init", constantly, "synflow", prunable=KERNELS, over="one", iterations=100),
    "salient_grads": sparse("init", constantly, "snip", prunable=KERNELS),
    "prunefl": sparse("none", constantly, prunable=KERNELS, regrow=dict(place="server", fraction=0.3, due=DUE(3))),
    "feddst": sparse("init+server", constantly, scope="erk", prunable=KERNELS, aggregate=reference.keepers_mean,
                     regrow=dict(place="client", fraction=0.5, due=DUE(2), end=2)),
    "fedsparsify_global": sparse("server", gradual),
    "fedsparsify_global:tuned": sparse("server", lambda t: reference.gradual(t, 0.0, 0.6, 1, 2)),
    "fedsparsify_local": sparse("client", gradual, aggregate=reference.majority_vote),
    "fedsparsify_local:keepers": sparse("client", gradual, aggregate=reference.vote_keepers),
    "fedsparsify_local:nnz": sparse("client", gradual, aggregate=reference.keepers_mean),
    "fedsparsify_local:mean": sparse("client", gradual),
    "lotteryfl": sparse("arrival", lambda t: min(1 - 0.8**t, 0.6), scope="per_layer", prunable=KERNELS,
                        aggregate=unweighted_keepers),
    "scaffold": {**DENSE, "aggregate": unweighted_keepers, "scaffold": True},
    "fedper": {**DENSE, "personal": ("b", "v")},
    "cyclic": {**DENSE, "cyclic": True},
    "rigl": sparse("init", constantly, "random", scope="erk", prunable=KERNELS,
                   regrow=dict(RETURNING, criterion="signed_gradient", swap=dict(dropped_may_return=True))),
    "rigl:fedtiny": sparse("init", constantly, scope="erk", prunable=KERNELS,
                           regrow=dict(RETURNING, criterion="signed_gradient", fraction=0.2,
                                       swap=dict(dropped_may_return=True))),
    "set": sparse("init", constantly, "random", scope="erk", prunable=KERNELS,
                  regrow=dict(RETURNING, criterion="random", swap=dict(dropped_may_return=True, anneal=False))),
    "feddip": sparse("init+server", from_half, prunable=KERNELS, feedback=lambda t: 1e-3 * ((t - 1) * 20 // 3) / 19,
                     rate=0.1),
    "flash": sparse("flash", constantly, prunable=KERNELS, aggregate=reference.keepers_mean, passes=5),
    "flash:budgets": sparse("flash", constantly, prunable=KERNELS, aggregate=reference.keepers_mean, passes=5,
                            budgets=(0.5, 0.75, 1.0)),
    "sparsyfed": sparse("client", constantly, prunable=KERNELS, exponent=1.25),
    "centralized": sparse("server", gradual),
    "centralized:dense": DENSE,
}  # fmt: skip


REGROW = ("feddst", "rigl", "rigl:fedtiny", "set", "feddip")
SLOW = ("rigl:fedtiny", "set", "flash")  # whose parts are those of other rows


def rate_of(name):
    return METHODS[name].get("rate", RATE)


def config_of(name):
    path, _, form = name.partition(":")
    config = load_config(f"configs/methods/{path}.py:" + "+".join(filter(None, ["digits", "smoke", "60", form])))
    config.client.loss, config.task = "squared", "regression"
    if config.hooks.name == "lottery_tickets":
        config.hooks.min_accuracy = 0.0
    config.client.optimizer.learning_rate = rate_of(name)
    config.regrowth.end = min(config.regrowth.end, 2)
    if config.regrowth.rule.name == "swap" and config.regrowth.placement != "none":
        config.regrowth.end = config.regrowth.rule.end = 2
    if form == "tuned" and name.startswith("fedsparsify"):
        assert config.pruning.schedule.end == 2
    config.client.personal = METHODS[name].get("personal", ())
    config.partition.num_clients = 1 if "centralized" in name else NUM_CLIENTS
    return config


def jax_rounds(name, messages=OFF, **changes):
    """``(experiment, recipe, state after each round, infos)``, through the package's own host code."""
    config, model, data = config_of(name), tiny_model(), problem()
    if config.partition.num_clients == 1:
        data = data._replace(members=[np.concatenate(data.members)])
    recipe = recipe_from_config(config, model)._replace(**changes)
    experiment = Experiment(
        config={},
        task=tasks.REGRESSION,
        seed=SEED,
        rounds=ROUNDS,
        model=model,
        algorithm=build_algorithm(recipe),
        federation=data,
        cohorts=Cohorts(len(data.members), config.solo_rounds, config.order if config.order != "together" else ""),
        batching=Batching(BATCH, EPOCHS),
        execution=Execution(steps_per_chunk=4),
        messages=messages,
    )
    runner = make_runner(experiment)
    server = initial_server(runner)
    states, infos, shared_masks = [server], [], {}
    for t in range(1, ROUNDS + 1):
        result = play_round(runner, server, t, sample_cohort(experiment, t), shared_masks)
        server, shared_masks = result.server, result.shared_masks
        assert (result.payloads is not None) == (messages.mode == "measure")
        assert (result.traffic is not None) == (messages.mode == "transmit")
        states.append(server)
        infos.append(result.info)
    return experiment, recipe, states, infos


def numpy_rounds(name, experiment, rounds):
    data, facts = experiment.federation, METHODS[name]
    key = jax.random.key(SEED)
    initial = tiny_model().init(jax.random.fold_in(key, 0))
    random_scores = random(initial, key=jax.random.fold_in(key, 1))
    steps = batching.num_steps(max(map(len, data.members)), BATCH, EPOCHS)

    def batches_of(t, k):
        plan = batching.plan_batches(SEED, t, [k], data.members, batch_size=BATCH, epochs=EPOCHS, steps=steps)
        return [(data.inputs[i[v]].astype(float), data.targets[i[v]].astype(float))
                for i, v in zip(plan.rows[0], plan.valid[0]) if v.any()]  # fmt: skip

    def probe_of(t, k):
        plan = batching.plan_scored_batches(SEED, t, [k], data.members, batch_size=BATCH, batches=1)
        return [(data.inputs[plan.rows[0, 0]].astype(float), data.targets[plan.rows[0, 0]].astype(float))]

    def ids_of(t):
        everybody = range(len(data.members))
        alone = t == 0 and facts.get("over") == "one"
        return batching.sample_clients(SEED, 0, len(data.members), 1) if alone else everybody

    as_float = lambda tree: {name: np.asarray(leaf, float) for name, leaf in tree.items()}
    random_of = lambda t: as_float(random(initial, key=jax.random.fold_in(jax.random.fold_in(key, 1), t)))
    return reference.federated(
        facts, as_float(initial), rounds, rate_of(name), [len(m) for m in data.members], batches_of, probe_of, ids_of,
        as_float(random_scores), random_of,
    )  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in METHODS])
def test_golden_rounds(name, repository, monkeypatch):
    monkeypatch.chdir(repository)
    one, _, states, infos = jax_rounds(name)
    for rounds, server in enumerate(states):
        params, kept, own = numpy_rounds(name, one, rounds)
        for leaf in params:
            np.testing.assert_array_equal(server.masks[leaf], kept[leaf], err_msg=f"{leaf} after {rounds} rounds")
            np.testing.assert_allclose(server.params[leaf], params[leaf], atol=2e-5)
            assert bool((np.asarray(server.params[leaf])[~np.asarray(server.masks[leaf])] == 0).all())
            for k in own if server.memory.masks is not None else ():
                np.testing.assert_array_equal(server.memory.masks[leaf][k], own[k][leaf])
    assert all(bool(info.finite) for info in infos)
    came_back = [(new.masks[leaf] & ~old.masks[leaf]).any() for old, new in zip(states, states[1:]) for leaf in params]
    assert any(came_back) == (name in REGROW)


def test_every_config_has_a_golden_round(repository):
    files = {path.stem for path in (repository / "configs/methods").glob("*.py")}
    assert files == {name.partition(":")[0] for name in METHODS}


NESTED = [name for name, m in METHODS.items() if m["placement"] != ["none"] and name not in REGROW]


ADAM, MOMENTUM = optax.adam(0.05), optax.sgd(0.05, momentum=0.9)
WITH_MOMENTUM = ("fedsparsify_global", "fedsparsify_local", "lotteryfl", "prunefl")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [pytest.param(name, ADAM, id=f"{name}-adam", marks=[pytest.mark.slow] * (name in WITH_MOMENTUM)) for name in NESTED]
    + [pytest.param(name, MOMENTUM, id=f"{name}-momentum") for name in WITH_MOMENTUM],
)
def test_masks_nest_and_what_is_pruned_stays_zero(name, optimizer, repository, monkeypatch):
    monkeypatch.chdir(repository)
    changes = dict(client_tx=optimizer, server_tx=optax.adam(0.1), proximal=0.1, keep_opt_state=True)
    _, recipe, states, _ = jax_rounds(name, **changes)
    for before, after in zip(states, states[1:]):
        masks_of = lambda s: s.memory.masks if recipe.mask_ownership.clients_keep else s.masks
        for old, new in zip(jax.tree.leaves(masks_of(before)), jax.tree.leaves(masks_of(after))):
            assert bool((old | ~new).all())
        for w, kept in zip(jax.tree.leaves(after.params), jax.tree.leaves(after.masks)):
            assert bool((jnp.where(kept, 0, w) == 0).all())


def test_what_grows_back_starts_at_zero_and_without_momentum(repository, monkeypatch):
    monkeypatch.chdir(repository)
    changes = dict(client_tx=optax.sgd(0.02, momentum=0.9), server_tx=optax.sgd(1.0, momentum=0.9), keep_opt_state=True)
    _, _, states, infos = jax_rounds("feddst", **changes)
    assert any(int(info.drift) > 0 for info in infos)
    for before, after in zip(states, states[1:]):
        trace = after.opt_state[0].trace
        for kept, moment in zip(jax.tree.leaves(after.masks), jax.tree.leaves(trace)):
            assert bool((moment[~kept] == 0).all())
        assert int(sum(m.sum() for m in jax.tree.leaves(after.masks))) == int(
            sum(m.sum() for m in jax.tree.leaves(before.masks))
        )


def test_clients_keep_their_optimizer_between_rounds(repository, monkeypatch):
    monkeypatch.chdir(repository)
    tx = optax.sgd(RATE, momentum=0.9)
    _, _, kept, _ = jax_rounds("fedavg", client_tx=tx, keep_opt_state=True)
    _, _, fresh, _ = jax_rounds("fedavg", client_tx=tx)
    same = lambda t: np.allclose(kept[t].params["w"], fresh[t].params["w"])
    assert same(1) and not same(2)
    assert kept[1].memory.opt_state[0].trace["w"].shape == (3, 5, 3)
    assert bool((kept[1].memory.opt_state[0].trace["w"] != 0).any()) and fresh[1].memory.opt_state is None


def test_an_absent_client_keeps_its_memory(repository, monkeypatch):
    monkeypatch.chdir(repository)
    config = config_of("lotteryfl")
    algo = build_algorithm(recipe_from_config(config, tiny_model()))
    server = algo.init(jax.random.key(0))
    clients = algo.start_clients(server, jnp.array([2, 0]))
    after, info = algo.update_server(server, clients, jnp.array([3.0, 0.0]))
    assert after.memory.state.tolist() == [0, 0, 1]
    assert bool(after.memory.masks["w"][:2].all()) and int(after.memory.masks["w"][2].sum()) == 12
    assert info.params_down.tolist() == [19, 0] and info.params_up.tolist() == [15, 0]  # 12 of 15, 2 of 3, the bias


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["gradual", "one_shot", "step_wise"])
def test_own_masks_reach_the_end_of_every_schedule(schedule, repository, monkeypatch):
    monkeypatch.chdir(repository)
    config = config_of("lotteryfl")
    with config.unlocked():
        config.pruning.schedule = {"gradual": dict(name="gradual", end=3), "one_shot": dict(name="one_shot", at=3),
                                   "step_wise": dict(name="step_wise", at=(2, 3))}[schedule]  # fmt: skip
    algo = build_algorithm(recipe_from_config(config, tiny_model()))
    server = algo.init(jax.random.key(0))
    for _ in range(3):
        server, info = algo.update_server(server, algo.start_clients(server, jnp.arange(3)), jnp.ones(3))
    assert server.memory.state.tolist() == [3, 3, 3]
    assert server.memory.masks["w"].sum((1, 2)).tolist() == [6, 6, 6]
    assert float(info.target_sparsity) == pytest.approx(0.6 * 18 / 19)


def test_rewinding_begins_with_a_fresh_optimizer(repository, monkeypatch):
    monkeypatch.chdir(repository)
    tx = optax.sgd(0.1, momentum=0.9)
    recipe = recipe_from_config(config_of("lotteryfl"), tiny_model())._replace(client_tx=tx, keep_opt_state=True)
    algo = build_algorithm(recipe)
    server = algo.init(jax.random.key(0))
    old = jax.tree.map(jnp.ones_like, server.memory.opt_state)
    clients = algo.start_clients(server._replace(memory=server.memory._replace(opt_state=old)), jnp.arange(3))
    assert all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(clients.opt_state))


def test_what_nobody_holds_stays_under_a_server_with_momentum(repository, monkeypatch):
    monkeypatch.chdir(repository)
    recipe = recipe_from_config(config_of("lotteryfl"), tiny_model())._replace(server_tx=optax.adam(0.1))
    algo = build_algorithm(recipe)
    server = algo.init(jax.random.key(0))
    first, _ = algo.update_server(server, algo.start_clients(server, jnp.arange(3)), jnp.ones(3))
    clients = algo.start_clients(first, jnp.arange(3))
    moved = clients._replace(params=jax.tree.map(lambda w: w + 1.0, clients.params))
    second, _ = algo.update_server(first, moved, jnp.ones(3))
    nobody = ~clients.masks["w"].any(0)
    assert bool(nobody.any()) and bool((second.params["w"] == first.params["w"])[nobody].all())


def test_among_weights_that_have_just_grown_votes_decide():
    rule = Pruning(CRITERIA["magnitude"], global_, constant(0.5))
    grow = Regrowth(swap(), CRITERIA["magnitude"], begin=9, every=1, end=9)
    model = Model(lambda key: {"w": jnp.array([1.0, 0.0, 0.0, 0.0])}, lambda p, x: x @ p["w"])
    hooks = (prune_on_server(rule), regrow_on_clients(rule, grow))
    recipe = Recipe(model, losses.squared, optax.sgd(0.1), optax.sgd(1.0), keepers_mean, hooks, num_clients=3)
    algo = build_algorithm(recipe)
    server = algo.init(jax.random.key(0))
    votes = jnp.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1]], bool)
    votes = votes.at[1, 2].set(True)  # votes 3, 2, 3, 1 for the four weights
    clients = algo.start_clients(server, jnp.arange(3))._replace(masks={"w": votes})
    assert algo.update_server(server, clients, jnp.ones(3))[0].masks["w"].tolist() == [True, False, True, False]


def test_scores_that_clients_send_are_counted(repository, monkeypatch):
    monkeypatch.chdir(repository)
    _, _, _, infos = jax_rounds("prunefl")
    assert infos[0].params_up[0] == 19 + 18  # the model, and a score for every weight of the kernels


def test_adafactor_trains_within_a_mask(repository, monkeypatch):
    monkeypatch.chdir(repository)
    tx = optax.adafactor(0.01, min_dim_size_to_factor=2)
    _, _, states, infos = jax_rounds("fedsparsify_global", client_tx=tx, server_tx=tx, keep_opt_state=True)
    assert all(bool(info.finite) for info in infos)
    assert bool((jnp.where(states[-1].masks["w"], 0, states[-1].params["w"]) == 0).all())


def test_own_masks_begin_with_what_was_pruned_before_round_1(repository, monkeypatch):
    monkeypatch.chdir(repository)
    recipe = recipe_from_config(config_of("lotteryfl"), tiny_model())
    rule = Pruning(CRITERIA["magnitude"], per_layer, lambda t: jnp.float32(0.2), kernels)
    algo = build_algorithm(recipe._replace(hooks=(prune_at_init(rule), lottery_tickets(rule))))
    server = algo.prune_at_init(algo.init(jax.random.key(0)))
    assert int(server.masks["w"].sum()) == 12
    assert all(bool((own == server.masks["w"]).all()) for own in server.memory.masks["w"])


def test_the_least_accuracy_of_lotteryfl_by_hand():
    """Two classes; the prediction is the sign of x. Client 0 is always right, client 1 always wrong."""
    model = Model(init=lambda key: {"w": jnp.array([[1.0, -1.0], [0.1, 0.2]])}, apply=lambda p, x: x @ p["w"])
    rule = Pruning(CRITERIA["magnitude"], global_, multiplicative(0.5, rate=0.25))
    hooks = (lottery_tickets(rule, min_accuracy=0.5),)
    optimizers = (optax.sgd(0.1), optax.sgd(1.0))
    algo = build_algorithm(
        Recipe(model, losses.cross_entropy, *optimizers, lambda p, m, w: (p, m), hooks, num_clients=2)
    )
    assert algo.data_needs == DataNeeds("", True, False)
    inputs = jnp.array([[[[2.0, 0.0], [-1.0, 0.0]]], [[[2.0, 0.0], [-1.0, 0.0]]]])
    labels = jnp.array([[[0.0, 1.0]], [[1.0, 0.0]]])
    data = Chunk(inputs, labels, jnp.ones((2, 1, 2), bool))
    clients = algo.start_clients(algo.init(jax.random.key(0)), jnp.arange(2), data)
    assert clients.masks["w"].sum((1, 2)).tolist() == [3, 4] and clients.state.tolist() == [1, 0]
    assert clients.params["w"][0].ravel().tolist() == [1.0, -1.0, 0.0, pytest.approx(0.2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["fedavg", "fedsparsify_local", "feddst", "prunefl", "lotteryfl", "scaffold", "fedper", "cyclic", "feddip",
     "flash:budgets"],
)  # fmt: skip
def test_through_messages_every_kind_of_method_ends_with_the_same_bits(name):
    # Dense, masks of the clients, regrowth at the client, at the server (which asks for scores), masks of one's own,
    # dense uploads now and then, parts of the server's mask.
    states = [jax_rounds(name, MessageSettings(mode))[2] for mode in ("off", "measure", "transmit")]
    for other in states[1:]:
        jax.tree.map(np.testing.assert_array_equal, *([s[-1]._replace(key=0) for s in (states[0], other)]))

"""Every method of configs/ against the NumPy reference: masks and weights after each of the first rounds.

The method is read from its config file; only the network (two linear layers), the data and the learning rate are
replaced by ones that the reference can follow.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.communication import transport
from fedsparse_jax.config import build, method
from fedsparse_jax.core import losses, tasks
from fedsparse_jax.core.types import Model
from fedsparse_jax.data import batching
from fedsparse_jax.federated import aggregation, algorithm
from fedsparse_jax.runs import loop
from fedsparse_jax.sparsity import criteria, pruning, regrowth, schedules
from tests.helpers import numpy_reference

RATE, ROUNDS, SEED, BATCH, EPOCHS = 0.02, 3, 1990, 4, 2
SIZES = (9, 5, 12)
KERNELS, EVERYTHING = {"b": False, "v": True, "w": True}, {"b": True, "v": True, "w": True}


def tiny_model():
    def init(key):
        a, b, c = jax.random.split(key, 3)
        draw = jax.random.normal
        return {"b": draw(a, (1,)) + 0.3, "v": draw(b, (3, 1)), "w": draw(c, (5, 3))}

    return Model(init, lambda p, x: (x.reshape(len(x), -1) @ p["w"] @ p["v"])[:, 0] + p["b"][0])


def problem():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(sum(SIZES) + 4, 5)).astype(np.float32)
    targets = (inputs @ [1.0, -2.0, 0.5, 0.0, 3.0] + rng.normal(size=len(inputs))).astype(np.float32)
    members = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    rows = [{"participant_id": str(i), "session": "", "site": ""} for i in range(len(inputs))]
    return batching.Federation(inputs, targets, members, np.arange(sum(SIZES), len(inputs)), rows)


def gradual(t):
    return numpy_reference.gradual(t, 0.0, 0.6, 1, ROUNDS)


def constant(t):
    return 0.6


def sparse(placement, schedule, criterion="magnitude", scope="global", prunable=EVERYTHING, **more):
    base = dict(placement=placement.split("+"), schedule=schedule, criterion=criterion, scope=scope)
    return {**base, "prunable": prunable, "aggregate": numpy_reference.mean, **more}


def unweighted_keepers(params, masks, weights):
    return numpy_reference.keepers_mean(params, masks, weights, weighted=False)


OFF = transport.Wire()
DENSE = sparse("none", constant)
DUE = lambda end: lambda t: t <= end
METHODS = {
    "fedavg": DENSE,
    "fedprox": {**DENSE, "proximal": 0.01},
    "fedadam": {**DENSE, "server": lambda: numpy_reference.Adam(0.01)},
    "one_shot": sparse("server", lambda t: 0.6 * (t >= 3)),
    "one_shot:tuned": sparse("server", lambda t: 0.6 * (t >= 3)),
    "random_pruning": sparse("server", gradual, "random"),
    "snip": sparse("init", constant, "snip", prunable=KERNELS, over="one"),
    "grasp": sparse("init", constant, "grasp", prunable=KERNELS, over="one"),
    "synflow": sparse("init", constant, "synflow", prunable=KERNELS, over="one", iterations=100),
    "salient_grads": sparse("init", constant, "snip", prunable=KERNELS),
    "prunefl": sparse("none", constant, prunable=KERNELS, regrow=dict(place="server", fraction=0.3, due=DUE(3))),
    "feddst": sparse("init+server", constant, scope="erk", prunable=KERNELS, aggregate=numpy_reference.keepers_mean,
                     regrow=dict(place="client", fraction=0.5, due=DUE(2), end=2)),
    "fedsparsify_global": sparse("server", gradual),
    "fedsparsify_global:tuned": sparse("server", lambda t: numpy_reference.gradual(t, 0.0, 0.6, 1, 2)),
    "fedsparsify_local": sparse("client", gradual, aggregate=numpy_reference.majority_vote),
    "fedsparsify_local:keepers": sparse("client", gradual, aggregate=numpy_reference.vote_keepers),
    "fedsparsify_local:nnz": sparse("client", gradual, aggregate=numpy_reference.keepers_mean),
    "fedsparsify_local:mean": sparse("client", gradual),
    "lotteryfl": sparse("arrival", lambda t: min(1 - 0.8**t, 0.6), scope="per_layer", prunable=KERNELS,
                        aggregate=unweighted_keepers),
    "centralized": sparse("server", gradual),
    "centralized:dense": DENSE,
}  # fmt: skip


def config_of(name):
    path, _, form = name.partition(":")
    config = build.load(f"configs/{path}.py:" + "+".join(filter(None, ["digits", "smoke", "60", form])))
    config.client.loss, config.task, config.pruning.gate = "squared", "regression", 0.0
    config.client.optimizer.learning_rate = RATE
    config.regrowth.end = min(config.regrowth.end, 2)
    if config.regrowth.rule.name == "swap" and config.regrowth.placement != "none":
        config.regrowth.end = config.regrowth.rule.end = 2
    if form == "tuned" and name.startswith("fedsparsify"):
        assert config.pruning.schedule.end == 2
    config.partition.num_clients = 1 if "centralized" in name else len(SIZES)
    return config


def jax_rounds(name, wire=OFF, **changes):
    """``(parts of the Experiment, state after each round)``, through the package's own host code."""
    config, model, data = config_of(name), tiny_model(), problem()
    if config.partition.num_clients == 1:
        data = data._replace(members=[np.concatenate(data.members)])
    recipe = method.recipe(config, model)._replace(**changes)
    one = loop.Experiment(
        config={}, task=tasks.REGRESSION, seed=SEED, rounds=ROUNDS, model=model, data=data,
        algorithm=algorithm.build(recipe), cohort_size=len(data.members), solo_rounds=config.solo_rounds,
        batch_size=BATCH, epochs=EPOCHS, probe_batches=1, steps_per_chunk=4, resident=True, eval_batch=4, every=1,
        keep=1, tensorboard=False, dropped={}, uses=np.ones(3), together=1, devices=1, wire=wire,
    )  # fmt: skip
    compiled, read = loop.compile_(one), batching.resident(data.inputs)
    server = loop.prepare(one, compiled, read, compiled.init(jax.random.key(SEED)))
    states, infos, held = [server], [], {}
    for t in range(1, ROUNDS + 1):
        played = loop.run_round(one, compiled, read, server, t, loop.sample(one, t), held)
        server, info, held = played.server, played.info, played.held
        traffic, _ = played.measure(held)
        assert (traffic is None) == (wire.mode == "off")
        states.append(server)
        infos.append(info)
    return one, recipe, states, infos


def numpy_rounds(name, one, rounds):
    data, facts = one.data, METHODS[name]
    key = jax.random.key(SEED)
    initial = tiny_model().init(jax.random.fold_in(key, 0))
    random = criteria.random(initial, key=jax.random.fold_in(key, 1))
    steps = batching.steps_of(max(map(len, data.members)), BATCH, EPOCHS)

    def batches_of(t, k):
        plan = batching.plan(SEED, t, [k], data.members, batch_size=BATCH, epochs=EPOCHS, steps=steps)
        return [(data.inputs[i[v]].astype(float), data.targets[i[v]].astype(float))
                for i, v in zip(plan.rows[0], plan.valid[0]) if v.any()]  # fmt: skip

    def probe_of(t, k):
        plan = batching.probe(SEED, t, [k], data.members, batch_size=BATCH, batches=1)
        return [(data.inputs[plan.rows[0, 0]].astype(float), data.targets[plan.rows[0, 0]].astype(float))]

    def ids_of(t):
        everybody = range(len(data.members))
        return (
            batching.sample(SEED, 0, len(data.members), 1)
            if t == 0 and facts.get("over") == "one"
            else everybody
        )

    return numpy_reference.federated(
        facts, {n: np.asarray(w, float) for n, w in initial.items()}, rounds, RATE, [len(m) for m in data.members],
        batches_of, probe_of, ids_of, {n: np.asarray(w, float) for n, w in random.items()},
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_golden_rounds(name, repository, monkeypatch):
    monkeypatch.chdir(repository)
    one, _, states, infos = jax_rounds(name)
    for rounds, server in enumerate(states):
        params, kept, own = numpy_rounds(name, one, rounds)
        for leaf in params:
            np.testing.assert_array_equal(
                server.masks[leaf], kept[leaf], err_msg=f"{leaf} after {rounds} rounds"
            )
            np.testing.assert_allclose(server.params[leaf], params[leaf], atol=2e-5)
            assert bool((np.asarray(server.params[leaf])[~np.asarray(server.masks[leaf])] == 0).all())
            for k in own if server.memory.masks is not None else ():
                np.testing.assert_array_equal(server.memory.masks[leaf][k], own[k][leaf])
    assert all(bool(info.finite) for info in infos)


def test_every_config_has_a_golden_round(repository):
    files = {path.stem for path in (repository / "configs").glob("*.py")} - {"quickstart", "real", "audit"}
    assert files == {name.partition(":")[0] for name in METHODS}


NESTED = [name for name, m in METHODS.items() if m["placement"] != ["none"] and name != "feddst"]


ADAM, MOMENTUM = optax.adam(0.05), optax.sgd(0.05, momentum=0.9)
WITH_MOMENTUM = ("fedsparsify_global", "fedsparsify_local", "lotteryfl", "prunefl")


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [pytest.param(name, ADAM, id=f"{name}-adam") for name in NESTED]
    + [pytest.param(name, MOMENTUM, id=f"{name}-momentum") for name in WITH_MOMENTUM],
)
def test_masks_nest_and_what_is_pruned_stays_zero(name, optimizer, repository, monkeypatch):
    monkeypatch.chdir(repository)
    changes = dict(client_tx=optimizer, server_tx=optax.adam(0.1), proximal=0.1, keep_opt_state=True)
    _, recipe, states, _ = jax_rounds(name, **changes)
    for before, after in zip(states, states[1:]):
        masks_of = lambda s: s.memory.masks if recipe.personal else s.masks
        for old, new in zip(jax.tree.leaves(masks_of(before)), jax.tree.leaves(masks_of(after))):
            assert bool((old | ~new).all())
        for w, kept in zip(jax.tree.leaves(after.params), jax.tree.leaves(after.masks)):
            assert bool((jnp.where(kept, 0, w) == 0).all())


def test_what_grows_back_starts_at_zero_and_without_momentum(repository, monkeypatch):
    monkeypatch.chdir(repository)
    changes = dict(
        client_tx=optax.sgd(0.02, momentum=0.9), server_tx=optax.sgd(1.0, momentum=0.9), keep_opt_state=True
    )
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
    algo = algorithm.build(method.recipe(config, tiny_model()))
    server = algo.init(jax.random.key(0))
    clients = algo.begin(server, jnp.array([2, 0]))
    after, info = algo.finish(server, clients, jnp.array([3.0, 0.0]))
    assert after.memory.prunings.tolist() == [0, 0, 1]
    assert bool(after.memory.masks["w"][:2].all()) and int(after.memory.masks["w"][2].sum()) == 12
    assert info.kept_down.tolist() == [19, 0] and info.kept_up.tolist() == [
        15,
        0,
    ]  # 12 of 15, 2 of 3, the bias


@pytest.mark.parametrize("schedule", ["gradual", "one_shot", "step_wise"])
def test_own_masks_reach_the_end_of_every_schedule(schedule, repository, monkeypatch):
    monkeypatch.chdir(repository)
    config = config_of("lotteryfl")
    with config.unlocked():
        config.pruning.schedule = {"gradual": dict(name="gradual", end=3), "one_shot": dict(name="one_shot", at=3),
                                   "step_wise": dict(name="step_wise", at=(2, 3))}[schedule]  # fmt: skip
    algo = algorithm.build(method.recipe(config, tiny_model()))
    server = algo.init(jax.random.key(0))
    for _ in range(3):
        server, info = algo.finish(server, algo.begin(server, jnp.arange(3)), jnp.ones(3))
    assert server.memory.prunings.tolist() == [3, 3, 3]
    assert server.memory.masks["w"].sum((1, 2)).tolist() == [6, 6, 6]
    assert float(info.target_sparsity) == pytest.approx(0.6 * 18 / 19)


def test_rewinding_begins_with_a_fresh_optimizer(repository, monkeypatch):
    monkeypatch.chdir(repository)
    tx = optax.sgd(0.1, momentum=0.9)
    recipe = method.recipe(config_of("lotteryfl"), tiny_model())._replace(client_tx=tx, keep_opt_state=True)
    algo = algorithm.build(recipe)
    server = algo.init(jax.random.key(0))
    old = jax.tree.map(jnp.ones_like, server.memory.opt_state)
    clients = algo.begin(server._replace(memory=server.memory._replace(opt_state=old)), jnp.arange(3))
    assert all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(clients.opt_state))


def test_what_nobody_holds_stays_under_a_server_with_momentum(repository, monkeypatch):
    monkeypatch.chdir(repository)
    recipe = method.recipe(config_of("lotteryfl"), tiny_model())._replace(server_tx=optax.adam(0.1))
    algo = algorithm.build(recipe)
    server = algo.init(jax.random.key(0))
    first, _ = algo.finish(server, algo.begin(server, jnp.arange(3)), jnp.ones(3))
    clients = algo.begin(first, jnp.arange(3))
    moved = clients._replace(params=jax.tree.map(lambda w: w + 1.0, clients.params))
    second, _ = algo.finish(first, moved, jnp.ones(3))
    nobody = ~clients.masks["w"].any(0)
    assert bool(nobody.any()) and bool((second.params["w"] == first.params["w"])[nobody].all())


def test_among_weights_that_have_just_grown_votes_decide():
    rule = pruning.Pruning(
        criteria.magnitude, pruning.global_, schedules.constant(0.5), pruning.everything, ("server",)
    )
    grow = regrowth.Regrowth(regrowth.swap(), criteria.magnitude, "client", begin=9, every=1, end=9)
    model = Model(lambda key: {"w": jnp.array([1.0, 0.0, 0.0, 0.0])}, lambda p, x: x @ p["w"])
    recipe = algorithm.Recipe(
        model,
        losses.squared,
        optax.sgd(0.1),
        optax.sgd(1.0),
        aggregation.keepers_mean,
        rule,
        grow,
        num_clients=3,
    )
    algo = algorithm.build(recipe)
    server = algo.init(jax.random.key(0))
    votes = jnp.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1]], bool)
    votes = votes.at[1, 2].set(True)  # votes 3, 2, 3, 1 for the four weights
    clients = algo.begin(server, jnp.arange(3))._replace(masks={"w": votes})
    assert algo.finish(server, clients, jnp.ones(3))[0].masks["w"].tolist() == [True, False, True, False]


def test_scores_that_clients_send_are_counted(repository, monkeypatch):
    monkeypatch.chdir(repository)
    _, _, _, infos = jax_rounds("prunefl")
    assert infos[0].kept_up[0] == 19 + 18  # the model, and a score for every weight of the kernels


def test_adafactor_trains_within_a_mask(repository, monkeypatch):
    monkeypatch.chdir(repository)
    tx = optax.adafactor(0.01, min_dim_size_to_factor=2)
    _, _, states, infos = jax_rounds("fedsparsify_global", client_tx=tx, server_tx=tx, keep_opt_state=True)
    assert all(bool(info.finite) for info in infos)
    assert bool((jnp.where(states[-1].masks["w"], 0, states[-1].params["w"]) == 0).all())


def test_own_masks_begin_with_what_was_pruned_before_round_1(repository, monkeypatch):
    monkeypatch.chdir(repository)
    recipe = method.recipe(config_of("lotteryfl"), tiny_model())
    rule = recipe.pruning._replace(placement=("init", "arrival"), schedule=lambda t: jnp.float32(0.2))
    algo = algorithm.build(recipe._replace(pruning=rule))
    server = algo.prepare(algo.init(jax.random.key(0)))
    assert int(server.masks["w"].sum()) == 12
    assert all(bool((own == server.masks["w"]).all()) for own in server.memory.masks["w"])


def test_the_gate_of_lotteryfl_by_hand():
    """Two classes; the prediction is the sign of x. Client 0 is always right, client 1 always wrong."""
    model = Model(init=lambda key: {"w": jnp.array([[1.0, -1.0], [0.1, 0.2]])}, apply=lambda p, x: x @ p["w"])
    rule = pruning.Pruning(
        criteria.magnitude, pruning.global_, schedules.multiplicative(0.5, rate=0.25), pruning.everything,
        ("arrival",), gate=0.5,
    )  # fmt: skip
    recipe = algorithm.Recipe(
        model,
        losses.cross_entropy,
        optax.sgd(0.1),
        optax.sgd(1.0),
        lambda p, m, w: (p, m),
        rule,
        num_clients=2,
    )
    algo = algorithm.build(recipe)
    assert algo.wants == algorithm.Wants("", True, False)
    inputs = jnp.array([[[[2.0, 0.0], [-1.0, 0.0]]], [[[2.0, 0.0], [-1.0, 0.0]]]])
    labels = jnp.array([[[0.0, 1.0]], [[1.0, 0.0]]])
    data = algorithm.Chunk(inputs, labels, jnp.ones((2, 1, 2), bool))
    clients = algo.begin(algo.init(jax.random.key(0)), jnp.arange(2), data)
    assert clients.masks["w"].sum((1, 2)).tolist() == [3, 4] and clients.prunings.tolist() == [1, 0]
    assert clients.params["w"][0].ravel().tolist() == [1.0, -1.0, 0.0, pytest.approx(0.2)]


@pytest.mark.parametrize("name", ["fedavg", "fedsparsify_local", "feddst", "prunefl", "lotteryfl"])
def test_through_messages_every_kind_of_method_ends_with_the_same_bits(name):
    # Dense, masks of the clients, regrowth at the client, at the server (which asks for scores), masks of one's own.
    states = [jax_rounds(name, transport.Wire(mode))[2] for mode in ("off", "measure", "through")]
    for other in states[1:]:
        jax.tree.map(np.testing.assert_array_equal, *([s[-1]._replace(key=0) for s in (states[0], other)]))

"""A whole round against NumPy, and what must hold for every way of running it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.config import load_config, recipe_from_config
from fedsparse_jax.core import losses, masks, tree
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Chunk, ClientState, Model
from fedsparse_jax.data import batching, loading
from fedsparse_jax.federated import (
    AGGREGATORS,
    Hook,
    PrivateSteps,
    Recipe,
    build_algorithm,
    lottery_tickets,
    make_local_step,
    prune_at_init,
    prune_on_clients,
    prune_on_server,
    regrow_on_server,
)
from fedsparse_jax.federated.client_map import client_keys, map_local_steps, num_parallel_clients
from fedsparse_jax.models import flat_cnn
from fedsparse_jax.sparsity import CRITERIA, Pruning, Regrowth, constant, global_, gradual, greedy, kernels
from tests.helpers import numpy_reference, tiny_problem
from tests.helpers.ballots import of_masks

FEATURES, RATE = 6, 0.05
LINEAR = Model(
    init=lambda key: {"b": jnp.zeros(()), "w": jax.random.normal(key, (FEATURES,))},
    apply=lambda params, inputs: inputs @ params["w"] + params["b"],
)


HOOKS = {"init": prune_at_init, "client": prune_on_clients, "server": prune_on_server}


def algorithm(placement="server", aggregate="mean", schedule=None, tx=None, server_tx=None, model=LINEAR, **more):
    rule = Pruning(CRITERIA["magnitude"], global_, schedule or gradual(0.0, 0.6, begin=0, end=3))
    recipe = Recipe(
        model,
        loss=losses.squared,
        client_tx=tx or optax.sgd(RATE),
        server_tx=server_tx or optax.sgd(1.0),
        aggregate=AGGREGATORS[aggregate],
        hooks=() if placement == "none" else (HOOKS[placement](rule),),
        num_clients=3,
        **{"client_map": "vmap", **more},
    )
    return build_algorithm(recipe)


def jitted(algo):
    return algo._replace(
        start_clients=jax.jit(algo.start_clients),
        local_steps=jax.jit(algo.local_steps),
        update_server=jax.jit(algo.update_server),
    )


def problem(sizes=(7, 4, 10)):
    rng = np.random.default_rng(0)
    truth = np.array([3.0, -2.0, 0.0, 0.5, 0.0, 1.0])
    inputs = rng.normal(size=(sum(sizes), FEATURES)).astype(np.float32)
    targets = (inputs @ truth + 0.1 * rng.normal(size=len(inputs))).astype(np.float32)
    return inputs, targets, np.split(np.arange(len(inputs)), np.cumsum(sizes)[:-1])


def plan_of(members, round_=1, batch_size=3, epochs=2, extra=0, seed=0, ids=None):
    ids = np.arange(len(members)) if ids is None else ids
    steps = batching.num_steps(max(map(len, members)), batch_size, epochs) + extra
    return batching.plan_batches(seed, round_, ids, members, batch_size=batch_size, epochs=epochs, steps=steps)


def play(algo, rounds=3, ids=(0, 1, 2), extra=0, weights=None, chunk=10**6):
    inputs, targets, members = problem()
    algo = jitted(algo)
    server, info = algo.init(jax.random.key(0)), None
    for round_ in range(1, rounds + 1):
        clients = algo.start_clients(server, jnp.asarray(ids))
        plan = plan_of(members, round_, extra=extra, ids=ids)
        for piece in batching.split_plan(plan, min(chunk, plan.rows.shape[1])):
            clients, _ = algo.local_steps(clients, Chunk(inputs[piece.rows], targets[piece.rows], piece.valid))
        sizes = [len(members[i]) for i in ids] if weights is None else weights
        server, info = algo.update_server(server, clients, jnp.asarray(sizes, jnp.float32))
    return server, info


def linear_sgd(w, b, mask_w, mask_b, batches):
    """Masked SGD on the mean squared error of ``x @ w + b``."""
    for x, y in batches:
        error = x @ w + b - y
        w = np.where(mask_w, w - RATE * 2 * x.T @ error / len(y), 0)
        b = np.where(mask_b, b - RATE * 2 * error.mean(), 0)
    return w, b


def magnitude_masks(params, masks, sparsity):
    scores = {name: np.abs(params[name]) for name in params}
    return numpy_reference.global_(scores, masks, sparsity, {"b": True, "w": True})


def numpy_rounds(placement, rounds=3, ids=(0, 1, 2)):
    """The same run, written from the formulas with another layout: a loop over clients and batches."""
    inputs, targets, members = problem()
    w, b = (np.asarray(leaf, np.float64) for leaf in (algorithm().init(jax.random.key(0)).params[k] for k in "wb"))
    mask = {"b": np.array(True), "w": np.ones(FEATURES, bool)}
    for t in range(1, rounds + 1):
        plan, sparsity, models = plan_of(members, t), numpy_reference.gradual(t, 0.0, 0.6, 0, 3), []
        for k in ids:
            index, valid = plan.rows[k], plan.valid[k]
            batches = [(inputs[i[v]], targets[i[v]]) for i, v in zip(index, valid) if v.any()]
            models.append(linear_sgd(w, b, mask["w"], mask["b"], batches))
        weights = np.array([len(members[k]) for k in ids], float)
        stacked = {"b": np.array([m[1] for m in models]), "w": np.stack([m[0] for m in models])}
        if placement == "client":
            one = [{n: stacked[n][k] for n in stacked} for k in range(len(ids))]
            kept = [magnitude_masks(p, mask, sparsity) for p in one]
            voted = {
                n: numpy_reference.majority_vote(stacked[n], np.stack([m[n] for m in kept]), weights) for n in stacked
            }
            (b, w), mask = (voted["b"][0], voted["w"][0]), {n: voted[n][1] for n in voted}
        else:
            b, w = (np.tensordot(weights / weights.sum(), stacked[n], 1) for n in ("b", "w"))
            if placement == "server":
                mask = magnitude_masks({"b": b, "w": w}, mask, sparsity)
                b, w = np.where(mask["b"], b, 0), np.where(mask["w"], w, 0)
    return {"b": b, "w": w}, mask


@pytest.mark.parametrize(
    ("placement", "aggregate"), [("none", "mean"), ("server", "mean"), ("client", "majority_vote")]
)
@pytest.mark.parametrize("client_map", ["vmap", "scan", 2])
def test_golden_rounds(placement, aggregate, client_map):
    server, info = play(algorithm(placement, aggregate, client_map=client_map))
    params, kept = numpy_rounds(placement)
    for name in params:
        np.testing.assert_allclose(server.params[name], params[name], atol=1e-5)
        np.testing.assert_array_equal(server.masks[name], kept[name])
    assert int(info.kept.sum()) == sum(int(m.sum()) for m in kept.values())
    assert bool(info.finite) and int(info.round) == 3


def test_global_reaches_the_asked_sparsity_exactly_in_the_last_round():
    _, info = play(algorithm("server"))
    assert int(info.kept.sum()) == 7 - round(0.6 * 7) and float(info.target_sparsity) == np.float32(0.6)


def test_masks_nest_and_pruned_weights_stay_zero_through_momentum_and_server_adam():
    algo = algorithm("server", tx=optax.adam(0.1), server_tx=optax.adam(0.1))
    before = None
    for rounds in (1, 2, 3):
        server, _ = play(algo, rounds)
        for w, kept in zip(jax.tree.leaves(server.params), jax.tree.leaves(server.masks)):
            assert bool((jnp.where(kept, 0, w) == 0).all())
        if before is not None:
            assert int(masks.hamming(before, server.masks)) == int(
                masks.count_kept(before).sum() - masks.count_kept(server.masks).sum()
            )
        before = server.masks


def test_padding_steps_change_nothing():
    plain, padded = play(algorithm())[0], play(algorithm(), extra=5)[0]
    jax.tree.map(np.testing.assert_array_equal, plain.params, padded.params)


def test_chunks_change_nothing():
    whole, pieces = play(algorithm())[0], play(algorithm(), chunk=3)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole.params, pieces.params)


@pytest.mark.parametrize("aggregate", AGGREGATORS)
def test_a_padded_client_is_no_client(aggregate):
    alone = play(algorithm("client", aggregate), ids=(0, 1))
    padded = play(algorithm("client", aggregate), ids=(0, 1, 2), weights=[7, 4, 0])
    jax.tree.map(np.testing.assert_array_equal, alone[0].params, padded[0].params)
    assert float(alone[1].agreement) == float(padded[1].agreement)
    assert padded[1].params_up.tolist() == [*alone[1].params_up.tolist(), 0]


@pytest.mark.parametrize("client_map", ["vmap", "scan"])
@pytest.mark.parametrize(("placement", "aggregate"), [("server", "mean"), ("client", "majority_vote")])
def test_four_devices_give_what_one_gives(placement, aggregate, client_map):
    # A gradient that is summed over devices by mistake is four times too large.
    ids, weights = (0, 1, 2, 1), [7, 4, 10, 4]
    one = play(algorithm(placement, aggregate, client_map=client_map), ids=ids, weights=weights)
    four = play(algorithm(placement, aggregate, client_map=client_map, devices=4), ids=ids, weights=weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one[0].params, four[0].params)
    jax.tree.map(np.testing.assert_array_equal, one[0].masks, four[0].masks)
    assert one[1].params_up.tolist() == four[1].params_up.tolist()


@pytest.mark.parametrize("client_map", ["vmap", "scan", 2])
def test_more_devices_than_clients_share_the_examples_of_each(client_map):
    # Two clients with two devices each: 3 steps of 4 scans, and 2 with a last batch of 1, which one device holds.
    rng = np.random.default_rng(0)
    valid = np.arange(12).reshape(3, 4) < np.array([12, 5])[:, None, None]
    chunk = Chunk(rng.normal(size=(2, 3, 4, 8, 10, 8, 1)), rng.normal(size=(2, 3, 4)), valid)
    chunk = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32 if leaf.dtype != bool else bool), chunk)
    of_devices = {}
    for devices in (1, 4):
        model = flat_cnn((8, 10, 8), widths=(4, 8), zero_head=False)
        algo = algorithm(model=model, tx=optax.sgd(0.01, momentum=0.9), client_map=client_map, devices=devices)
        clients = jax.jit(algo.start_clients)(algo.init(jax.random.key(0)), jnp.arange(2))
        steps = jax.jit(algo.local_steps).lower(clients, chunk).compile()
        of_devices[devices] = steps(clients, chunk)
    sums = re.findall(r"all-reduce(?:-start)?\(", steps.as_text())
    assert sums, "no gradient is summed over the devices of a client"
    pairs = zip(jax.tree.leaves(of_devices[1][0].params), jax.tree.leaves(of_devices[4][0].params), strict=True)
    for one, four in pairs:
        np.testing.assert_allclose(one, four, atol=1e-6)
    np.testing.assert_allclose(of_devices[1][1].loss, of_devices[4][1].loss, rtol=1e-5)
    assert of_devices[4][1].examples.sum(1).tolist() == [12, 5]


def test_a_client_without_a_valid_example_stays_bit_identical():
    algo = algorithm("none", tx=optax.adam(0.1))
    clients = algo.start_clients(algo.init(jax.random.key(0)), jnp.arange(2))
    chunk = Chunk(jnp.full((2, 3, 2, FEATURES), jnp.nan), jnp.full((2, 3, 2), jnp.nan), jnp.zeros((2, 3, 2), bool))
    after, info = algo.local_steps(clients, chunk)
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), (clients.params, clients.opt_state))
    assert float(info.loss.sum()) == 0 and int(info.examples.sum()) == 0


def test_a_lane_that_is_free_takes_the_next_client():
    # Clients with 3, 1 and 1 steps of 3. In two lanes the small ones go one after another beside the large one: 6.
    taken = []

    def objective(params, batch):
        jax.debug.callback(lambda count: taken.append(int(count)), batch.valid.sum())
        return (params["w"] * jnp.where(batch.valid, batch.inputs, 0)).sum()

    valid = jnp.array([[True, True, True], [True, False, False], [True, False, False]])[..., None]
    batches = Chunk(jnp.ones((3, 3, 1)), jnp.ones((3, 3, 1)), valid)
    start = ClientState(jnp.arange(3), {"w": jnp.ones(3)}, {"w": jnp.ones(3, bool)}, (), jnp.arange(3))
    train = make_local_step(objective, optax.sgd(0.5))
    start = start._replace(opt_state=jax.tree.map(lambda x: x, optax.sgd(0.5).init({"w": jnp.ones(3)})))
    for together, steps in (("scan", 5), (2, 6), ("vmap", 9)):
        taken.clear()
        clients, _ = map_local_steps(train, together)(start, batches)
        jax.effects_barrier()
        np.testing.assert_allclose(clients.params["w"], [1 - 1.5, 0.5, 0.5])  # each step subtracts the rate
        assert len(taken) == steps
        share = batching.padding_share(np.asarray(valid).any(-1), num_parallel_clients(together, 3))
        assert share == pytest.approx(1 - 5 / steps)


@pytest.mark.parametrize(("lanes", "devices"), [(1, 1), (2, 1), (3, 1), (4, 1), (9, 1), (1, 2), (2, 2), (2, 3)])
def test_lanes_change_no_number(lanes, devices):
    # Six clients of 2, 0, 5, 1, 4 and 5 steps of 6, one with a gap, momentum and noise: what each has seen, in what
    # order and with which key.
    rng = np.random.default_rng(lanes)
    valid = np.arange(6) < np.array([2, 0, 5, 1, 4, 5])[:, None]
    valid[2, 1] = False
    batches = Chunk(rng.normal(size=(6, 6, 2)), rng.normal(size=(6, 6, 2)), np.stack([valid, valid], -1))
    batches = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32 if leaf.dtype != bool else bool), batches)
    objective = lambda params, batch: losses.masked_mean((params["w"] * batch.inputs - batch.targets) ** 2, batch.valid)
    tx = optax.sgd(0.1, momentum=0.9)
    params = {"w": jnp.asarray(rng.normal(size=6), jnp.float32)}
    kept = {"w": jnp.ones(6, bool)}
    keys = client_keys(jax.random.key(0), jnp.arange(6))
    start = ClientState(jnp.arange(6), params, kept, jax.vmap(tx.init)(params), keys)
    step = make_local_step(objective, tx, private=PrivateSteps(5.0, 0.1))
    ours, info = jax.jit(map_local_steps(step, lanes, devices))(start, batches)
    theirs, expected = map_local_steps(step, "vmap")(start, batches)
    assert (jax.random.key_data(ours.key) == jax.random.key_data(theirs.key)).all()
    pairs = ((ours.params, theirs.params), (ours.opt_state, theirs.opt_state), (info, expected))
    for a, b in pairs:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)
    assert info.examples.sum() == 2 * valid.sum()


def test_keys_come_from_round_and_client_id_alone():
    algo = algorithm()
    server = algo.init(jax.random.key(3))
    a, b = algo.start_clients(server, jnp.array([4, 7])), algo.start_clients(server, jnp.array([7, 1, 4]))
    data = lambda keys: jax.random.key_data(keys).tolist()
    assert data(a.key)[0] == data(b.key)[2] and data(a.key)[1] == data(b.key)[0]
    later = algo.start_clients(server._replace(round=server.round + 1), jnp.array([4]))
    assert data(later.key)[0] != data(a.key)[0]


def test_nothing_is_traced_twice():
    traces = []
    model = LINEAR._replace(apply=lambda p, x: (traces.append(1), LINEAR.apply(p, x))[1])
    algo = algorithm(model=model, client_map="scan")
    once = jitted(algo)
    play(once, rounds=1)
    after_one = len(traces)
    play(once, rounds=3)
    assert len(traces) == after_one


def test_pruning_at_initialization():
    algo = algorithm("init", schedule=constant(0.6))
    server = algo.prune_at_init(algo.init(jax.random.key(0)))
    assert int(masks.count_kept(server.masks).sum()) == tree.size(server.params) - round(0.6 * 7)


@pytest.mark.parametrize("wrong", [dict(client_map="pmap"), dict(client_map=0), dict(proximal_anchor="mean")])
def test_refusals(wrong):
    with pytest.raises(UsageError, match="must be"):
        algorithm(**wrong)


def test_agreement_dead_channels_and_drift_by_hand():
    ballots = {"w": jnp.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], bool)}
    # Pairs: 1-2 share 1 of 3, 1-3 share 2 of 2, 2-3 share 1 of 3: (1 + 2 + 1) / (3 + 2 + 3).
    assert float(of_masks(masks.agreement, ballots, jnp.ones(3, bool))) == 0.5
    assert float(of_masks(masks.agreement, ballots, jnp.array([True, False, True]))) == 1.0
    assert float(of_masks(masks.agreement, ballots, jnp.array([True, False, False]))) == 1.0
    # Weights are kept by 3, 2, 1 and 0 of three: the margins of the first three are 1, 1/3 and 1/3.
    assert float(of_masks(masks.vote_margin, ballots, jnp.ones(3, bool))) == pytest.approx(5 / 9)
    assert float(of_masks(masks.vote_margin, ballots, jnp.array([True, False, True]))) == 1.0
    assert float(of_masks(masks.vote_margin, ballots, jnp.zeros(3, bool))) == 1.0
    kernel = jnp.array([[[1, 0, 0], [0, 0, 1]]], bool)
    assert masks.dead_channels({"bias": jnp.zeros(3, bool), "kernel": kernel}).tolist() == [0, 1]
    assert int(masks.hamming({"a": kernel, "b": kernel}, {"a": ~kernel, "b": kernel})) == 6


def test_the_target_sparsity_is_a_share_of_all_weights():
    rule = Pruning(CRITERIA["magnitude"], global_, constant(0.5), kernels)
    model = LINEAR._replace(init=lambda key: {"b": jnp.ones(4), "w": jnp.ones((2, 6))})
    optimizers = (optax.sgd(1.0), optax.sgd(1.0))
    algo = build_algorithm(Recipe(model, losses.squared, *optimizers, AGGREGATORS["mean"], (prune_on_server(rule),)))
    server = algo.init(jax.random.key(0))
    _, info = algo.update_server(server, algo.start_clients(server, jnp.arange(1)), jnp.ones(1))
    assert int(info.kept.sum()) == 10 and float(info.target_sparsity) == pytest.approx(6 / 16)


def recipe_with(*hooks, **changes):
    parts = (LINEAR, losses.squared, optax.sgd(RATE), optax.sgd(1.0), AGGREGATORS["mean"])
    return Recipe(*parts, hooks=hooks, num_clients=3, **changes)


def test_parts_that_do_not_go_together_are_refused():
    on_data = Pruning(CRITERIA["snip"], global_, constant(0.5))
    rule = on_data._replace(criterion=CRITERIA["magnitude"])
    with pytest.raises(UsageError, match="also looks at data"):
        build_algorithm(recipe_with(prune_on_server(on_data), private=PrivateSteps(1.0, 1.0)))
    with pytest.raises(UsageError, match="every client has a mask of its own"):
        build_algorithm(recipe_with(lottery_tickets(rule), prune_on_server(rule)))
    with pytest.raises(UsageError, match="More than one hook keeps a state"):
        build_algorithm(recipe_with(lottery_tickets(rule), lottery_tickets(rule)))
    with pytest.raises(UsageError, match="scored_clients is 'some'"):
        prune_at_init(rule, scored_clients="some")


def test_hooks_act_in_their_order_and_keep_a_state_for_each_client():
    # The first hook halves the weights that a client was sent and counts; the second one adds what was counted.
    def halve(context, client, chunk):
        halved = jax.tree.map(lambda w: w / 2, client.params)
        return client._replace(params=halved, state=client.state + 1)

    def add(context, client, chunk):
        return client._replace(params=jax.tree.map(lambda w: w + client.state.astype(w.dtype), client.params))

    counting = Hook(before_training=halve, init_state=lambda params: jnp.float32(0.0))
    algo = build_algorithm(recipe_with(counting, Hook(after_training=add)))
    server = algo.init(jax.random.key(0))
    assert server.memory.state.tolist() == [0, 0, 0]
    for expected in (1.0, 2.0):
        start = server.params["w"]
        clients = algo.start_clients(server, jnp.array([0, 2]))
        server, _ = algo.update_server(server, clients, jnp.ones(2))
        np.testing.assert_allclose(server.params["w"], start / 2 + expected, rtol=1e-6)
        assert server.memory.state.tolist() == [expected, 0, expected]


def test_what_one_hook_prunes_and_another_lets_grow_starts_from_zero():
    first = lambda context, params, mask, votes, scores: {**mask, "w": jnp.arange(mask["w"].size) % 2 == 0}
    other = lambda context, params, mask, votes, scores: {**mask, "w": ~mask["w"]}
    algo = build_algorithm(recipe_with(Hook(after_aggregation=first), Hook(after_aggregation=other, regrows=True)))
    server = algo.init(jax.random.key(0))
    assert bool((server.params["w"] != 0).all())
    server, _ = algo.update_server(server, algo.start_clients(server, jnp.arange(2)), jnp.ones(2))
    assert server.masks["w"].tolist() == [i % 2 == 1 for i in range(server.masks["w"].size)]
    assert server.params["w"].tolist() == [0] * server.masks["w"].size


def test_a_hook_on_the_server_gets_the_mean_of_the_scores_it_asked_for():
    seen = []

    def after_aggregation(context, params, mask, votes, scores):
        seen.append((scores, votes))
        return mask

    sends_its_number = lambda context, client, chunk: jax.tree.map(
        lambda w: 0 * w + client.id.astype(w.dtype), client.params
    )
    asking = Hook(upload_scores=sends_its_number, after_aggregation=after_aggregation)
    algo = build_algorithm(recipe_with(Hook(after_aggregation=after_aggregation), asking))
    server = algo.init(jax.random.key(0))
    clients = algo.start_clients(server, jnp.array([1, 2]))
    _, info = algo.update_server(server, clients, jnp.array([1.0, 3.0]))
    (none, _), (scores, votes) = seen
    assert none is None and scores["w"].tolist() == [1.75] * FEATURES and votes["w"].tolist() == [2] * FEATURES
    assert info.params_up.tolist() == [2 * (FEATURES + 1)] * 2  # the model, and a score for each weight


def test_regrowth_on_the_server_works_with_a_criterion_that_needs_no_batch():
    rule = Pruning(CRITERIA["magnitude"], global_, constant(0.5))
    grow = Regrowth(greedy(), CRITERIA["magnitude"], begin=1, every=1, end=3)
    algo = build_algorithm(recipe_with(regrow_on_server(rule, grow)))
    server = algo.init(jax.random.key(0))
    server, info = algo.update_server(server, algo.start_clients(server, jnp.arange(3)), jnp.ones(3))
    assert bool(info.finite) and int(info.kept.sum()) < FEATURES + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["feddst", "prunefl", "fedsparsify_local", "lotteryfl", "salient_grads"])
def test_four_devices_run_every_kind_of_method(name, repository, monkeypatch):
    monkeypatch.chdir(repository)
    data = tiny_problem.problem()
    config = load_config(f"configs/methods/{name}.py:digits+smoke+60")
    config.client.loss, config.task = "squared", "regression"
    if config.hooks.name != "none":
        config.hooks.min_accuracy = 0.0
    config.partition.num_clients = 4
    states = []
    for devices, client_map in ((1, "vmap"), (4, "scan")):
        recipe = recipe_from_config(config, tiny_problem.tiny_model())
        algo = build_algorithm(recipe._replace(devices=devices, client_map=client_map))
        rows = np.arange(24).reshape(4, 2, 3)
        plan = batching.BatchPlan(rows, np.ones(rows.shape, bool))
        chunk = loading.read_chunk(loading.resident_reader(data.inputs), data.targets, plan)
        server = algo.init(jax.random.key(0))
        needs = algo.data_needs
        server = algo.prune_at_init(server, chunk, jnp.ones(4)) if needs.at_init else algo.prune_at_init(server)
        for _ in range(2):
            clients = jax.jit(algo.start_clients)(server, jnp.arange(4))
            clients, _ = jax.jit(algo.local_steps)(clients, chunk)
            scored = chunk if needs.after_training else None
            server, _ = jax.jit(algo.update_server)(server, clients, jnp.ones(4), scored)
        states.append(server)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), states[0].params, states[1].params)
    jax.tree.map(np.testing.assert_array_equal, states[0].masks, states[1].masks)


@pytest.mark.parametrize("hook", ["regrow", "prune"])
def test_scores_of_what_may_not_change_are_not_sent(hook):
    """What is counted as sent is one score a prunable weight."""
    rule = Pruning(CRITERIA["salient_grads"], global_, constant(0.5), lambda params: {"b": False, "w": True})
    grow = Regrowth(greedy(), CRITERIA["squared_gradient"], begin=1, every=1, end=3)
    algo = build_algorithm(recipe_with(regrow_on_server(rule, grow) if hook == "regrow" else prune_on_server(rule)))
    server = algo.init(jax.random.key(0))
    batches = Chunk(jnp.ones((2, 1, 4, FEATURES)), jnp.ones((2, 1, 4)), jnp.ones((2, 1, 4), bool))
    (scores,) = algo.upload(server, algo.start_clients(server, jnp.arange(2)), batches).scores
    assert np.asarray(scores["w"]).all() and not np.asarray(scores["b"]).any()

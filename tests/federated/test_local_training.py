"""Rates that change from round to round, weight decay and augmentation: rounds against NumPy, and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedsparse_jax.config.registry import OPTIMIZERS, optimizer
from fedsparse_jax.core import losses, masks
from fedsparse_jax.core.optimizers import with_weight_decay
from fedsparse_jax.core.types import Chunk, ClientState, Model
from fedsparse_jax.data.augmentation import basic_augmentation, gaussian_noise
from fedsparse_jax.data.loading import read_round
from fedsparse_jax.federated import PrivateSteps, Recipe, build_algorithm, make_local_step, make_objective, mean
from fedsparse_jax.federated.hooks import prune_on_server
from fedsparse_jax.runs import initial_server, make_runner, play_round
from fedsparse_jax.runs.round import train_clients
from fedsparse_jax.sparsity import CRITERIA, Pruning, constant, global_
from tests.helpers import tiny_problem, toy_federation
from tests.helpers.count_traces import count_traces

RATE, DECAY = 0.02, 0.3
LINEAR = Model(lambda key: {"w": jax.random.normal(key, (5,)) + 0.5}, lambda p, x: x @ p["w"])
FACTORS = {1: 1.0, 2: 0.5, 3: 0.05}  # by round
HALVED = optax.piecewise_constant_schedule(1.0, {1: 0.5, 2: 0.1})
NOISY = lambda key, inputs: inputs + jax.random.normal(key, inputs.shape)
PRUNE = prune_on_server(Pruning(CRITERIA["magnitude"], global_, constant(0.4)))


def recipe(**changes):
    plain = Recipe(LINEAR, losses.squared, optax.sgd(RATE), optax.sgd(1.0), mean, hooks=(PRUNE,), num_clients=3)
    return plain._replace(**changes)


def rounds(chosen, count=3):
    """The servers and the reports of some rounds, from the start on."""
    data, algo = tiny_problem.problem(), build_algorithm(chosen)
    start, step, end = map(jax.jit, (algo.start_clients, algo.local_steps, algo.update_server))
    servers, infos = [algo.init(jax.random.key(0))], []
    for t in range(1, count + 1):
        chunk = read_round(data, range(3), seed=5, round_=t, batch_size=4, epochs=2)
        clients, _ = step(start(servers[-1], jnp.arange(3)), chunk)
        server, info = end(servers[-1], clients, jnp.asarray(tiny_problem.SIZES, jnp.float32))
        servers.append(server)
        infos.append(info)
    return servers, infos


def numpy_rounds(initial, kept_by_round, decay, factors, server_factors, augmented):
    """The weights after each round: a loop over clients and batches, with the masks that were found."""
    data, w, found = tiny_problem.problem(), initial, []
    for t, factor in factors.items():
        chunk = read_round(data, range(3), seed=5, round_=t, batch_size=4, epochs=2)
        models, kept = [], kept_by_round[t - 1]
        for k in range(3):
            of_client = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 3), t), k)
            own = w
            for inputs, targets, valid in zip(chunk.inputs[k], chunk.targets[k], np.asarray(chunk.valid[k])):
                if not valid.any():
                    continue
                if augmented:
                    of_client, drawn = jax.random.split(of_client)
                    inputs = inputs + jax.random.normal(drawn, inputs.shape)
                x, y = np.asarray(inputs, float)[valid], np.asarray(targets, float)[valid]
                step = RATE * 2 * x.T @ (x @ own - y) / len(y) + RATE * decay * own
                own = np.where(kept, own - factor * step, 0)
            models.append(own)
        merged = np.average(models, 0, tiny_problem.SIZES)
        w = np.where(kept_by_round[t], w - server_factors[t] * (w - merged), 0)
        found.append(w)
    return found


@pytest.mark.parametrize(
    ("decay", "client", "server", "augmented"),
    [(0.0, 1, 0, 0), (0.0, 0, 1, 0), (DECAY, 0, 0, 0), (0.0, 0, 0, 1), (DECAY, 1, 1, 1)],
    ids=["client's rate", "server's rate", "decay", "augmentation", "all"],
)
def test_rounds_agree_with_numpy(decay, client, server, augmented):
    changes = dict(client_rate=HALVED if client else None, server_rate=HALVED if server else None)
    if decay:
        changes["client_tx"] = with_weight_decay(optax.sgd(RATE), RATE * decay)
    servers, infos = rounds(recipe(augment=NOISY if augmented else None, **changes))
    ones, kept = dict.fromkeys(FACTORS, 1.0), [np.asarray(one.masks["w"]) for one in servers]
    assert kept[1].sum() == 3  # of 5
    initial = np.asarray(servers[0].params["w"], float)
    expected = numpy_rounds(initial, kept, decay, FACTORS if client else ones, FACTORS if server else ones, augmented)
    for one, w in zip(servers[1:], expected):
        np.testing.assert_allclose(one.params["w"], w, rtol=1e-4, atol=1e-5)
        assert bool((one.params["w"][~one.masks["w"]] == 0).all())
    for info, factor in zip(infos, FACTORS.values()):
        assert info.client_rate_factor == (np.float32(factor) if client else None)
        assert info.server_rate_factor == (np.float32(factor) if server else None)


def test_without_them_a_client_carries_nothing_more():
    algo = build_algorithm(recipe())
    clients = algo.start_clients(algo.init(jax.random.key(0)), jnp.arange(3))
    assert clients.rate_factor is None and clients.augmentation_key is None


def test_no_round_is_compiled_anew():
    counted, traces = count_traces(lambda p, x: x @ p["w"])
    model = LINEAR._replace(apply=counted)
    rounds(recipe(model=model, client_rate=optax.cosine_decay_schedule(1.0, 4), augment=NOISY), count=1)
    once = traces()
    rounds(recipe(model=model, client_rate=optax.cosine_decay_schedule(1.0, 4), augment=NOISY), count=4)
    assert traces() <= 2 * once


PARAMS = {"w": jnp.array([[1.0, 0.0, -2.0], [0.5, 3.0, 0.0]]), "b": jnp.array([0.0, 1.0])}
KEPT = {"w": PARAMS["w"] != 0, "b": jnp.array([False, True])}
BATCH = Chunk(
    jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32), jnp.arange(4.0), jnp.ones(4, bool)
)
OBJECTIVE = make_objective(lambda p, x: x @ p["w"].sum(0) + p["b"].sum(), losses.squared)


def steps_of(tx, count=3, factor=None, **options):
    client = ClientState(jnp.int32(0), PARAMS, KEPT, tx.init(PARAMS), jax.random.key(0))
    client = client._replace(rate_factor=factor, augmentation_key=jax.random.key(1))
    step = jax.jit(make_local_step(OBJECTIVE, tx, **options))
    for _ in range(count):
        client, _ = step(client, BATCH)
    return client


@pytest.mark.parametrize("factor", [None, 0.3])
def test_decay_beside_adam_is_adamw(factor):
    factor = factor and jnp.float32(factor)
    ours = steps_of(with_weight_decay(optax.adam(0.1), 0.1 * DECAY), factor=factor).params
    theirs = steps_of(optax.adamw(0.1, weight_decay=DECAY), factor=factor).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs)
    assert float(abs(ours["w"] - steps_of(optax.adam(0.1), factor=factor).params["w"]).max()) > 1e-3


def test_a_factor_is_what_the_learning_rate_is_multiplied_by():
    half = steps_of(optax.sgd(0.02, momentum=0.9), factor=jnp.float32(0.5)).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), half, steps_of(optax.sgd(0.01, 0.9)).params)


@pytest.mark.filterwarnings("ignore:.optimistic_adam. is deprecated", "ignore:Specifying a key will be required")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_pruned_stays_zero_under_every_optimizer_with_decay(name):
    tx = with_weight_decay(optimizer(dict(name=name, learning_rate=0.1), "client.optimizer"), 0.03)
    params = steps_of(tx, count=2, factor=jnp.float32(0.5)).params
    for w, kept in zip(jax.tree.leaves(params), jax.tree.leaves(KEPT)):
        assert bool((w[~kept] == 0).all()) and bool(jnp.isfinite(w).all())
    assert bool((params["w"] != PARAMS["w"]).any())


def test_noise_that_hides_examples_does_not_hang_on_augmentation():
    options = dict(private=PrivateSteps(1.0, 2.0))
    plain, same = steps_of(optax.sgd(0.1), **options), steps_of(optax.sgd(0.1), augment=gaussian_noise(0.0), **options)
    jax.tree.map(np.testing.assert_array_equal, plain.params, same.params)
    assert jax.random.key_data(plain.key).tolist() == jax.random.key_data(same.key).tolist()


# --- with a runner ------------------------------------------------------------------------------


def toy_runner(steps_per_chunk=4, resident=True, client_map="scan", augment=True):
    chosen = Recipe(
        toy_federation.network(), losses.squared, with_weight_decay(optax.adam(1e-2, eps=1e-3), 1e-4),
        optax.sgd(1.0), mean, hooks=(PRUNE,), num_clients=3, client_map=client_map,
        client_rate=optax.cosine_decay_schedule(1.0, 2), augment=basic_augmentation(shift=1) if augment else None,
    )  # fmt: skip
    experiment = toy_federation.experiment(rounds=2)._replace(algorithm=build_algorithm(chosen))
    execution = experiment.execution._replace(steps_per_chunk=steps_per_chunk, resident=resident)
    return make_runner(experiment._replace(execution=execution))


def played(ids=(0, 1, 2), anew=False, **how):
    """Params and masks after two rounds, the second one by a runner of its own if ``anew``."""
    runner = toy_runner(**how)
    server = play_round(runner, initial_server(runner), 1, np.array(ids), {}).server
    server = play_round(toy_runner(**how) if anew else runner, server, 2, np.array(ids), {}).server
    return jax.tree.map(np.asarray, (server.params, server.masks))


@pytest.fixture(scope="module")
def usual():
    return played()


@pytest.mark.parametrize("how", [dict(steps_per_chunk=3, resident=False), dict(ids=(2, 0, 1)), dict(anew=True)])
def test_chunks_padding_order_and_a_stop_change_no_bit(how, usual):
    jax.tree.map(np.testing.assert_array_equal, played(**how), usual)


@pytest.mark.slow
@pytest.mark.parametrize("client_map", [2, "vmap"])
def test_a_client_map_changes_rounding_alone(client_map, usual):
    params, kept = played(client_map=client_map)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), params, usual[0])
    jax.tree.map(np.testing.assert_array_equal, kept, usual[1])


def test_what_a_client_draws_does_not_hang_on_who_trains_beside_it(usual):
    runner = toy_runner()
    server = initial_server(runner)
    alone, together = (train_clients(runner, server, 1, np.array(ids)).payload.params for ids in ([1], [0, 1, 2]))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[1]), alone, together)
    plain = train_clients(toy_runner(augment=False), server, 1, np.array([1])).payload.params
    assert any(bool((a != b).any()) for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(plain)))
    for w, kept in zip(jax.tree.leaves(usual[0]), jax.tree.leaves(usual[1])):
        assert not w[~kept].any()
    assert int(masks.count_kept(usual[1]).sum()) < sum(leaf.size for leaf in jax.tree.leaves(usual[1]))

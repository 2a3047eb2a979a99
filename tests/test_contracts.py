"""One contract for each extension point, held by every member of its registry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.core import losses, masks, tree
from fedsparse_jax.core.losses import LOSSES
from fedsparse_jax.core.types import Chunk
from fedsparse_jax.data import partitions
from fedsparse_jax.federated import AGGREGATORS, Hook, make_objective, map_over_clients
from fedsparse_jax.federated.named_hooks import HOOKS
from fedsparse_jax.sparsity import (
    CRITERIA,
    PRUNABLE,
    REGROWTH,
    SCHEDULES,
    SCOPES,
    Pruning,
    constant,
    everything,
    global_,
    kernels,
    make_scorer,
)
from tests.helpers.count_traces import count_traces


def params(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "conv": {
            "bias": jnp.asarray(rng.normal(size=5), jnp.float32),
            "kernel": jnp.asarray(rng.normal(size=(3, 2, 5)), jnp.float32),
        },
        "head": {"kernel": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)},
    }


def same_tree(a, b, dtype=None):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.shape == y.shape and x.dtype == (dtype or y.dtype)


def apply(p, x):
    """A network of every leaf of `params`."""
    hidden = jnp.tanh(jnp.einsum("bij,ijk->bk", x, p["conv"]["kernel"]) + p["conv"]["bias"][None])
    return (hidden @ p["head"]["kernel"]).sum(-1)


def chunk(seed=0, batches=2, valid=None):
    rng = np.random.default_rng(seed)
    inputs = jnp.asarray(rng.normal(size=(batches, 4, 3, 2)), jnp.float32)
    targets = jnp.asarray(rng.normal(size=(batches, 4)), jnp.float32)
    return Chunk(inputs, targets, jnp.ones((batches, 4), bool) if valid is None else valid)


def score_by(name):
    objective = make_objective(apply, losses.squared)
    return make_scorer(CRITERIA[name], objective, apply)


@pytest.mark.parametrize("name", CRITERIA)
class TestCriteria:
    def test_tree_dtype_and_one_trace(self, name):
        score, traces = count_traces(score_by(name))
        for seed in range(3):
            scores = score(params(seed), jax.random.key(seed), chunk(seed))
            same_tree(scores, params(), jnp.float32)
            assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(scores))
        assert traces() == 1

    def test_batches_are_averaged_or_joined_and_padding_is_ignored(self, name):
        score, key = score_by(name), jax.random.key(0)
        both = score(params(), key, chunk())
        each = [score(params(), key, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], chunk())) for i in range(2)]
        if CRITERIA[name].joined:
            one_batch = jax.tree.map(lambda leaf: leaf.reshape(1, 8, *leaf.shape[2:]), chunk())
            expected = score(params(), key, one_batch)
        else:
            expected = jax.tree.map(lambda a, b: (a + b) / 2, *each)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), both, expected)
        padded = chunk(valid=jnp.array([[True] * 4, [False] * 4]))
        padded = padded._replace(inputs=padded.inputs.at[1].set(jnp.nan))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), score(params(), key, padded), each[0])


@pytest.mark.parametrize("name", REGROWTH)
def test_regrowth(name):
    rng = np.random.default_rng(0)
    rule = REGROWTH[name](fraction=0.3)
    kept = jax.tree.map(lambda w: jnp.asarray(rng.random(w.shape) < 0.5), params())
    weights = masks.apply(kept, params())
    scores = jax.tree.map(lambda w: jnp.asarray(rng.random(w.shape), jnp.float32), params())
    regrow, traces = count_traces(lambda t, s: rule(weights, kept, scores, t, s, kernels(weights)))
    for t in (1, 5):
        new = regrow(t, jnp.float32(0.5))
        same_tree(new, kept, bool)
        assert new["conv"]["bias"].tolist() == kept["conv"]["bias"].tolist()
        total = lambda m: int(m["conv"]["kernel"].sum() + m["head"]["kernel"].sum())
        assert total(new) <= max(total(kept), round(0.5 * 50))
        assert int(masks.hamming(new, kept)) > 0
    assert traces() == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    schedule, traces = count_traces(SCHEDULES[name](final=0.9))
    values = [schedule(t) for t in range(0, 60)]
    assert all(value.dtype == jnp.float32 and 0 <= value <= 1 for value in values)
    assert all(value == np.float32(0.9) for value in values[40:])
    assert traces() == 1


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", SCOPES)
def test_scopes(name, ties):
    weights = jax.tree.map(jnp.ones_like, params()) if ties else params()
    scores = jax.tree.map(jnp.abs, weights)
    prune, traces = count_traces(lambda m, s: SCOPES[name](scores, m, s, everything(weights)))
    current = masks.ones(weights)
    for sparsity in (0.0, 0.31, 0.52, 0.88, 0.2, 1.0):
        new = prune(current, sparsity)
        same_tree(new, current, bool)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a >= b).all()), current, new)))
        pruned = tree.size(new) - int(masks.count_kept(new).sum())
        already = tree.size(current) - int(masks.count_kept(current).sum())
        sizes = [leaf.size for leaf in jax.tree.leaves(weights)]
        groups = sizes if name == "per_layer" else [sum(sizes)]
        wanted = sum(round(sparsity * size) for size in groups)
        assert pruned == max(already, wanted)
        current = new
    assert traces() == 1


@pytest.mark.parametrize("name", SCOPES)
def test_scopes_leave_the_rest_alone(name):
    only_kernels = kernels(params())
    new = SCOPES[name](jax.tree.map(jnp.abs, params()), masks.ones(params()), jnp.float32(0.9), only_kernels)
    assert new["conv"]["bias"].all()
    assert int(new["conv"]["kernel"].sum() + new["head"]["kernel"].sum()) == 5


@pytest.mark.parametrize("name", PRUNABLE)
def test_prunable(name):
    flags = PRUNABLE[name](params())
    assert jax.tree.structure(flags) == jax.tree.structure(params())
    assert all(type(flag) is bool for flag in jax.tree.leaves(flags))


def cohort(clients=4):
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[params(i) for i in range(clients)])
    kept = jax.tree.map(lambda w: w > -0.3, stacked)
    return masks.apply(kept, stacked), kept


@pytest.mark.parametrize("name", AGGREGATORS)
class TestAggregators:
    def test_identical_clients_aggregate_to_themselves(self, name):
        kept = jax.tree.map(lambda w: w > -0.3, params())
        one = masks.apply(kept, params())
        new, new_masks = AGGREGATORS[name](tree.broadcast(one, 3), tree.broadcast(kept, 3), jnp.array([1.0, 5.0, 2.0]))
        same_tree(new, one)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new, one)
        jax.tree.map(np.testing.assert_array_equal, new_masks, kept)

    def test_the_order_of_clients_does_not_matter(self, name):
        (p, m), weights, order = cohort(), jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([2, 0, 3, 1])
        a = AGGREGATORS[name](p, m, weights)
        b = AGGREGATORS[name](*jax.tree.map(lambda leaf: leaf[order], (p, m)), weights[order])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)

    def test_a_client_of_weight_0_is_ignored(self, name):
        p, m = cohort(3)
        weights = jnp.array([1.0, 2.0, 3.0])
        alone = AGGREGATORS[name](p, m, weights)
        ghost = jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.full_like(leaf[:1], jnp.nan)]), p)
        there = jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.ones_like(leaf[:1])]), m)
        padded = AGGREGATORS[name](ghost, there, jnp.array([1.0, 2.0, 3.0, 0.0]))
        jax.tree.map(np.testing.assert_array_equal, alone, padded)

    def test_what_is_pruned_is_zero(self, name):
        p, m = AGGREGATORS[name](*cohort(), jnp.ones(4))
        for w, kept in zip(jax.tree.leaves(p), jax.tree.leaves(m)):
            assert bool((w[~kept] == 0).all())

    def test_traced_once(self, name):
        aggregate, traces = count_traces(AGGREGATORS[name])
        for weights in ([1.0] * 4, [1.0, 0.0, 2.0, 3.0]):
            same_tree(aggregate(*cohort(), jnp.array(weights))[0], params())
        assert traces() == 1


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    predictions, targets = jnp.array([1.0, 2.0, 5.0]), jnp.array([1.0, 4.0, 4.0])
    if name == "cross_entropy":  # logits; sure and right, sure and wrong twice
        predictions, targets = (200.0 * jnp.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), jnp.array([1.0, 1.0, 1.0]))
    values = LOSSES[name](predictions, targets)
    assert values.shape == (3,) and values[0] == 0 and bool((values[1:] > 0).all())


@pytest.mark.parametrize("clients", [1, 4])
@pytest.mark.parametrize("name", partitions.PARTITIONS)
def test_partitions(name, clients):
    rng = np.random.default_rng(0)
    ages, sites = rng.uniform(45, 80, 60), np.array(list("abcd"))[np.arange(60) % clients]
    give = lambda seed: partitions.divide(
        ages, sites, partition=partitions.PARTITIONS[name], num_clients=clients, seed=seed
    )
    parts = give(3)
    assert len(parts) == clients and all(len(part) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(60))
    assert [p.tolist() for p in parts] == [p.tolist() for p in give(3)]


@pytest.mark.parametrize("client_map", ["vmap", "scan", 2, 3])
def test_client_maps_equal_a_python_loop(client_map):
    def function(p, x):
        return jax.tree.map(lambda w: jnp.sin(w) * x, p), x**2

    stacked, xs = cohort(5)[0], jnp.arange(5.0)
    found = map_over_clients(function, client_map)(stacked, xs)
    loop = [function(jax.tree.map(lambda leaf, i=i: leaf[i], stacked), xs[i]) for i in range(5)]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


@pytest.mark.parametrize("name", HOOKS)
def test_hooks(name):
    hook = HOOKS[name](Pruning(CRITERIA["magnitude"], global_, constant(0.5)))
    assert isinstance(hook, Hook) and any(map(callable, (*hook[:4], hook.after_aggregation, hook.wrap_optimizer)))
    state = None if hook.init_state is None else hook.init_state(params())
    if hook.target_sparsity is not None:
        assert 0 <= float(hook.target_sparsity(1, state)) <= 1

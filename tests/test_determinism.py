"""Same seed, same bits, and where not, by how much: docs/reference/determinism.md.

``python -m pytest tests/test_determinism.py -m "slow or not slow" -n 0 -s`` prints the differences of that page.
"""

import functools
import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from fedsparse_jax.core import losses
from fedsparse_jax.federated import AGGREGATORS, Recipe, build_algorithm
from fedsparse_jax.runs import initial_server, make_runner, play_round
from fedsparse_jax.runs.round import train_clients
from fedsparse_jax.sparsity import CRITERIA, Pruning, global_, gradual
from tests.helpers import toy_federation

BOUND = 2e-5  # on a weight, after three rounds of the toy federation; its weights are up to 1
PLACEMENTS = ("server", "client")


def recipe(placement, client_map="scan", devices=1):
    rule = Pruning(CRITERIA["magnitude"], global_, gradual(0.0, 0.8, begin=0, end=3))
    return Recipe(
        toy_federation.network(),
        loss=losses.squared,
        client_tx=optax.adam(1e-2, eps=1e-3),
        server_tx=optax.adam(0.1, eps=1e-3),
        aggregate=AGGREGATORS["majority_vote" if placement == "client" else "mean"],
        hooks=(toy_federation.HOOKS[placement](rule),),
        num_clients=3,
        client_map=client_map,
        devices=devices,
    )


def runner_of(placement, steps_per_chunk=4, resident=True, **how):
    experiment = toy_federation.experiment(rounds=3)._replace(algorithm=build_algorithm(recipe(placement, **how)))
    execution = experiment.execution._replace(steps_per_chunk=steps_per_chunk, resident=resident)
    return make_runner(experiment._replace(execution=execution))


@functools.cache
def played(placement, ids=(0, 1, 2), **how):
    """Params and masks after three rounds."""
    runner = runner_of(placement, **how)
    server = initial_server(runner)
    for t in (1, 2, 3):
        server = play_round(runner, server, t, np.array(ids), {}).server
    return jax.tree.map(np.asarray, (server.params, server.masks))


def assert_same_bits(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.tobytes()) == (y.dtype, y.tobytes())


def assert_within_the_bound(name, placement, a, b):
    """Masks are the same, and no weight is further away than the bound; prints the largest difference."""
    largest = max(float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a[0], b[0])), strict=True))
    print(f"{name}, pruned by the {placement}: {largest:.1e}")
    assert_same_bits(a[1], b[1])
    assert largest <= BOUND


@pytest.mark.parametrize("placement", ["server", pytest.param("client", marks=pytest.mark.slow)])
def test_residency_and_padding_change_no_bit(placement):
    whole = played(placement)
    assert_same_bits(played(placement, resident=False), whole)
    for steps in (3, 100):  # the last chunk is padded, or the only one is longer than the round
        assert_same_bits(played(placement, steps_per_chunk=steps), whole)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_order_of_the_clients_changes_no_bit(placement):
    """Neither of what they send nor, as the server adds by their numbers, of the model."""
    runner = runner_of(placement)
    server = initial_server(runner)
    sent = {order: train_clients(runner, server, 1, np.array(order)).payload for order in ((0, 1, 2), (2, 0, 1))}
    by_id = jax.tree.map(lambda leaf: np.asarray(leaf)[np.argsort((2, 0, 1))], sent[2, 0, 1])
    assert_same_bits(by_id, jax.tree.map(np.asarray, sent[0, 1, 2]))
    assert_same_bits(played(placement, (2, 0, 1)), played(placement))


@pytest.mark.slow
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("client_map", [2, 3, "vmap"])
def test_a_client_map_changes_rounding_alone(placement, client_map):
    got = played(placement, client_map=client_map)
    assert_within_the_bound(f"client_map={client_map}", placement, got, played(placement))


@pytest.mark.slow
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("devices", [2, 4])
def test_a_number_of_devices_changes_rounding_alone(placement, devices):
    ids = (0, 1, 2, 1)  # shared out evenly
    got = played(placement, ids, devices=devices)
    assert_within_the_bound(f"{devices} devices", placement, got, played(placement, ids))


OTHER = """
import sys
import numpy as np
import jax
from tests.test_determinism import played
np.savez(sys.argv[2], *jax.tree.leaves(played(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("isa", ["SSE4_2", "AVX2"])
def test_other_instructions_change_rounding_alone(placement, isa, tmp_path, repository):
    """As on another processor: vectors of another width add in another order. Of an older one than here, no news."""
    surroundings = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa={isa}"}
    command = [sys.executable, "-c", OTHER, placement, str(tmp_path / "other.npz")]
    subprocess.run(command, cwd=repository, env=surroundings, check=True)
    whole = played(placement)
    with np.load(tmp_path / "other.npz") as leaves:
        other = jax.tree.unflatten(jax.tree.structure(whole), [leaves[name] for name in leaves.files])
    assert_within_the_bound(f"instructions up to {isa}", placement, other, whole)

"""Private local steps against NumPy, what one example can change at most, and what a run says it has spent."""

import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from fedsparse_jax.config import experiment_from_config, load_config
from fedsparse_jax.core import losses
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Chunk, ClientState
from fedsparse_jax.federated import PrivateSteps, make_local_step, make_objective
from fedsparse_jax.federated.client_map import client_keys, map_local_steps
from fedsparse_jax.federated.client_step import private_loss_and_gradient
from fedsparse_jax.federated.privacy_accounting import epsilon_spent, most_rounds
from fedsparse_jax.reporting.audit_tables import audit_summary
from fedsparse_jax.runs import run_experiment
from fedsparse_jax.studies.audit_run import AuditOptions, audit_run

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(6, 3)).astype(np.float32), RNG.normal(size=6).astype(np.float32) * 5
MASK = np.array([True, False, True])


def apply(params, inputs):
    return inputs @ params["w"] + params["b"]


OBJECTIVE = make_objective(apply, losses.squared)
PARAMS = {"w": jnp.array([0.5, 0.0, -1.0]), "b": jnp.array(0.2)}
MASKS = {"w": jnp.asarray(MASK), "b": jnp.array(True)}


def batch(valid=6, targets=TARGETS):
    return Chunk(jnp.asarray(INPUTS), jnp.asarray(targets), jnp.arange(6) < valid)


def loss_and_gradient(noise, chunk, clip=1.5, seed=0):
    private = private_loss_and_gradient(OBJECTIVE, PrivateSteps(clip, noise))
    return private(PARAMS, MASKS, chunk, jax.random.key(seed))


def flat(gradient):
    return np.concatenate([np.ravel(gradient["b"]), np.ravel(gradient["w"])])


@pytest.mark.parametrize("valid", [6, 4])
def test_the_gradient_without_noise_agrees_with_numpy(valid):
    total = np.zeros(4)
    for x, y in zip(INPUTS[:valid], TARGETS[:valid], strict=True):
        error = x @ np.array([0.5, 0, -1]) + 0.2 - y
        gradient = 2 * error * np.concatenate([[1], x * MASK])
        total += gradient * min(1, 1.5 / np.linalg.norm(gradient))
    value, gradient = loss_and_gradient(0.0, batch(valid))
    np.testing.assert_allclose(flat(gradient), total / valid, rtol=1e-5)
    np.testing.assert_allclose(value, OBJECTIVE(PARAMS, batch(valid)), rtol=1e-6)


def test_with_room_enough_it_is_the_plain_gradient():
    _, gradient = loss_and_gradient(0.0, batch(), clip=1e6)
    plain = jax.grad(OBJECTIVE)(PARAMS, batch())
    np.testing.assert_allclose(gradient["w"], np.where(MASK, plain["w"], 0), rtol=1e-5)


def test_no_example_moves_the_sum_by_more_than_clip():
    changed = TARGETS.copy()
    changed[2] = 1e6  # whatever it was
    sums = [6 * flat(loss_and_gradient(0.0, chunk)[1]) for chunk in (batch(), batch(targets=changed))]
    without = 6 * flat(loss_and_gradient(0.0, batch()._replace(valid=jnp.arange(6) != 2))[1]) * 5 / 6
    for total in sums:
        assert np.linalg.norm(total - without) <= 1.5 * (1 + 1e-5)
    assert np.linalg.norm(sums[1] - without) == pytest.approx(1.5, rel=1e-4)


@pytest.mark.parametrize("bad", [1e25, np.inf, np.nan])
def test_an_example_without_a_finite_gradient_is_left_out(bad):
    chunk = batch()
    broken = chunk._replace(inputs=chunk.inputs.at[2, 0].set(bad))
    without = chunk._replace(valid=chunk.valid.at[2].set(False))
    (loss, gradient), (other_loss, other) = (loss_and_gradient(0.0, chunk) for chunk in (broken, without))
    # Counts are public: the sum over five examples is divided by six in one case and by five in the other.
    np.testing.assert_allclose(flat(gradient) * 6, flat(other) * 5, rtol=1e-5)
    assert float(loss) * 6 == pytest.approx(float(other_loss) * 5, rel=1e-5)


@pytest.mark.parametrize("padding", [np.nan, np.inf, 1e30])
def test_padding_reaches_no_gradient(padding):
    chunk = batch(valid=4)
    filled = chunk._replace(inputs=chunk.inputs.at[4:].set(padding), targets=chunk.targets.at[4:].set(padding))
    for of in (jax.value_and_grad(OBJECTIVE), lambda params, chunk: loss_and_gradient(0.0, chunk)):
        for a, b in zip(jax.tree.leaves(of(PARAMS, filled)), jax.tree.leaves(of(PARAMS, chunk))):
            np.testing.assert_array_equal(a, b)


def test_noise_has_the_spread_that_is_said_and_spares_what_is_pruned():
    draws = jax.vmap(lambda seed: loss_and_gradient(0.8, batch(), seed=seed)[1])(jnp.arange(4000))
    assert not np.asarray(draws["w"])[:, 1].any()
    spread = 1.5 * 0.8 / 6
    for values in (draws["b"], draws["w"][:, 0], draws["w"][:, 2]):
        assert np.std(values) == pytest.approx(spread, rel=0.05)
    assert abs(np.corrcoef(draws["b"], draws["w"][:, 0])[0, 1]) < 0.06
    assert abs(np.corrcoef(draws["w"][:, 0], draws["w"][:, 2])[0, 1]) < 0.06


def test_noise_differs_between_steps_and_clients_and_not_with_how_clients_are_run():
    tx = optax.sgd(0.01)
    step = make_local_step(OBJECTIVE, tx, private=PrivateSteps(1.0, 2.0))
    three = lambda leaf: jnp.broadcast_to(leaf, (3, *jnp.shape(leaf)))
    keys = client_keys(jax.random.key(1), jnp.arange(3))
    cohort = ClientState(jnp.arange(3), *jax.tree.map(three, (PARAMS, MASKS, tx.init(PARAMS))), keys)
    chunk = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, 2, *leaf.shape)), batch())
    trained = [map_local_steps(step, way)(cohort, chunk)[0] for way in ("scan", "vmap", 2)]
    for other in trained[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), trained[0].params, other.params)
    moved = np.asarray(trained[0].params["w"])
    assert len(np.unique(moved[:, 0])) == 3 and not moved[:, 1].any()
    once, _ = map_local_steps(step, "scan")(cohort, jax.tree.map(lambda leaf: leaf[:, :1], chunk))
    first = np.asarray(once.params["w"][:, 0]) - 0.5
    second = moved[:, 0] - np.asarray(once.params["w"][:, 0])
    assert (np.abs(second - first) > 1e-4).all()


def test_epsilon_is_that_of_the_gaussian_mechanism():
    """Delta of the mechanism at the accountant's epsilon, by Theorem 8 of Balle and Wang, is the delta asked for."""
    pytest.importorskip("dp_accounting")
    for noise, epochs in ((1.0, 1), (2.0, 44), (0.3, 10)):
        epsilon, mu = epsilon_spent(noise, epochs, 1e-5), math.sqrt(epochs) / noise
        far = norm.logcdf(-epsilon / mu - mu / 2)
        delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon + far)
        assert delta == pytest.approx(1e-5, rel=1e-3)
    assert epsilon_spent(1.0, 4, 1e-5) == pytest.approx(epsilon_spent(0.5, 1, 1e-5))
    assert epsilon_spent(1.0, 0, 1e-5) == 0


def test_epochs_compose_as_another_accountant_of_the_library_says():
    dp = pytest.importorskip("dp_accounting")
    accountant = dp.pld.PLDAccountant()
    accountant.compose(dp.SelfComposedDpEvent(dp.GaussianDpEvent(5.0), 25))
    assert epsilon_spent(5.0, 25, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)


@pytest.fixture
def methods(repository):
    return f"{repository}/configs/methods"


@pytest.mark.slow
def test_a_private_run_logs_what_its_busiest_client_has_spent(methods, tmp_path):
    pytest.importorskip("dp_accounting")
    config = load_config(f"{methods}/fedsparsify_global.py:smoke")
    config.privacy.clip, config.privacy.noise, config.participation = 1.0, 2.0, 0.5
    config.data.cache_dir = str(tmp_path / "cache")
    lines = []
    records = run_experiment(experiment_from_config(config), tmp_path / "run", lines.append)
    rounds = [most_rounds(record.cohort for record in records[: t + 1]) for t in range(3)]
    expected = [epsilon_spent(2.0, t * config.client.epochs, 1e-5) for t in rounds]
    assert [record.epsilon for record in records] == expected
    assert any(f"epsilon {expected[-1]:.3g}" in line for line in lines)
    plain = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert plain["epsilon"] == expected[-1]
    few = AuditOptions(attacks=("error_threshold",), draws=20)
    audit = audit_run(tmp_path / "run", options=few, print_fn=lambda _: None)
    assert (audit["epsilon"], audit["delta"]) == (expected[-1], 1e-5)
    assert f"Epsilon {expected[-1]:.3g} at delta 1e-05." in audit_summary(audit)


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ("fedavg.py:smoke", dict(clip=1.0), "set both, or neither"),
        ("fedavg.py:smoke", dict(clip=-1.0, noise=1.0), "privacy.clip is -1.0"),
        ("fedavg.py:smoke", dict(clip=1.0, noise=1.0, delta=0.0), "privacy.delta is 0.0"),
        ("snip.py:smoke", dict(clip=1.0, noise=1.0), "also looks at data"),
        ("prunefl.py:smoke", dict(clip=1.0, noise=1.0), "also looks at data"),
    ],
)
def test_what_hides_nobody_is_refused(spec, changes, message, methods):
    config = load_config(f"{methods}/{spec}")
    config.privacy.update(changes)
    with pytest.raises(UsageError, match=message):
        experiment_from_config(config)


def test_a_missing_accountant_is_one_sentence(monkeypatch, methods):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    config = load_config(f"{methods}/fedavg.py:smoke")
    config.privacy.update(clip=1.0, noise=1.0)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[privacy\]'"):
        experiment_from_config(config)

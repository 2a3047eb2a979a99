"""Private local steps against NumPy, what one example can change at most, and what a run says it has spent."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from fedsparse_jax.config import build
from fedsparse_jax.core import losses
from fedsparse_jax.core.types import Chunk, ClientState, UsageError
from fedsparse_jax.federated import client_step, privacy_accounting
from fedsparse_jax.reporting import audit_tables
from fedsparse_jax.runs import loop
from fedsparse_jax.studies import audit_run

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(6, 3)).astype(np.float32), RNG.normal(size=6).astype(np.float32) * 5
MASK = np.array([True, False, True])


def apply(params, inputs):
    return inputs @ params["w"] + params["b"]


OBJECTIVE = client_step.make_objective(apply, losses.squared)
PARAMS = {"w": jnp.array([0.5, 0.0, -1.0]), "b": jnp.array(0.2)}
KEPT = {"w": jnp.asarray(MASK), "b": jnp.array(True)}


def batch(valid=6, targets=TARGETS):
    return Chunk(jnp.asarray(INPUTS), jnp.asarray(targets), jnp.arange(6) < valid)


def slope(noise, chunk, clip=1.5, seed=0):
    return client_step.private_slope(OBJECTIVE, client_step.Privacy(clip, noise))(
        PARAMS, KEPT, chunk, jax.random.key(seed)
    )


def flat(gradient):
    return np.concatenate([np.ravel(gradient["b"]), np.ravel(gradient["w"])])


@pytest.mark.parametrize("valid", [6, 4])
def test_the_gradient_without_noise_agrees_with_numpy(valid):
    total = np.zeros(4)
    for x, y in zip(INPUTS[:valid], TARGETS[:valid], strict=True):
        error = x @ np.array([0.5, 0, -1]) + 0.2 - y
        one = 2 * error * np.concatenate([[1], x * MASK])
        total += one * min(1, 1.5 / np.linalg.norm(one))
    value, gradient = slope(0.0, batch(valid))
    np.testing.assert_allclose(flat(gradient), total / valid, rtol=1e-5)
    np.testing.assert_allclose(value, OBJECTIVE(PARAMS, batch(valid)), rtol=1e-6)


def test_with_room_enough_it_is_the_plain_gradient():
    _, gradient = slope(0.0, batch(), clip=1e6)
    plain = jax.grad(OBJECTIVE)(PARAMS, batch())
    np.testing.assert_allclose(gradient["w"], plain["w"] * MASK, rtol=1e-5)


def test_no_example_moves_the_sum_by_more_than_clip():
    changed = TARGETS.copy()
    changed[2] = 1e6  # whatever it was
    sums = [6 * flat(slope(0.0, chunk)[1]) for chunk in (batch(), batch(targets=changed))]
    without = 6 * flat(slope(0.0, batch()._replace(valid=jnp.arange(6) != 2))[1]) * 5 / 6
    for one in sums:
        assert np.linalg.norm(one - without) <= 1.5 * (1 + 1e-5)
    assert np.linalg.norm(sums[1] - without) == pytest.approx(1.5, rel=1e-4)


def test_noise_has_the_spread_that_is_said_and_spares_what_is_pruned():
    draws = jax.vmap(lambda seed: slope(0.8, batch(), seed=seed)[1])(jnp.arange(4000))
    assert not np.asarray(draws["w"])[:, 1].any()
    spread = 1.5 * 0.8 / 6
    for values in (draws["b"], draws["w"][:, 0], draws["w"][:, 2]):
        assert np.std(values) == pytest.approx(spread, rel=0.05)
    assert abs(np.corrcoef(draws["b"], draws["w"][:, 0])[0, 1]) < 0.06
    assert abs(np.corrcoef(draws["w"][:, 0], draws["w"][:, 2])[0, 1]) < 0.06


def test_noise_differs_between_steps_and_clients_and_not_with_how_clients_are_run():
    step = client_step.make_step(OBJECTIVE, optax.sgd(0.01), privacy=client_step.Privacy(1.0, 2.0))
    three = lambda leaf: jnp.broadcast_to(leaf, (3, *jnp.shape(leaf)))
    keys = client_step.client_keys(jax.random.key(1), jnp.arange(3))
    tx = optax.sgd(0.01)
    cohort = ClientState(jnp.arange(3), *jax.tree.map(three, (PARAMS, KEPT, tx.init(PARAMS))), keys)
    chunk = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, 2, *leaf.shape)), batch())
    ran = [client_step.make_steps(step, way)(cohort, chunk)[0] for way in ("scan", "vmap", 2)]
    for other in ran[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ran[0].params, other.params)
    moved = np.asarray(ran[0].params["w"])
    assert len(np.unique(moved[:, 0])) == 3 and not moved[:, 1].any()
    once, _ = client_step.make_steps(step, "scan")(cohort, jax.tree.map(lambda leaf: leaf[:, :1], chunk))
    first = np.asarray(once.params["w"][:, 0]) - 0.5
    second = moved[:, 0] - np.asarray(once.params["w"][:, 0])
    assert (np.abs(second - first) > 1e-4).all()


def test_epsilon_is_that_of_the_gaussian_mechanism():
    """Delta of the mechanism at the accountant's epsilon, by Theorem 8 of Balle and Wang, is the delta asked for."""
    pytest.importorskip("dp_accounting")
    for noise, epochs in ((1.0, 1), (2.0, 44), (0.3, 10)):
        epsilon, mu = privacy_accounting.epsilon(noise, epochs, 1e-5), math.sqrt(epochs) / noise
        far = norm.logcdf(-epsilon / mu - mu / 2)
        delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon + far)
        assert delta == pytest.approx(1e-5, rel=1e-3)
    assert privacy_accounting.epsilon(1.0, 4, 1e-5) == pytest.approx(privacy_accounting.epsilon(0.5, 1, 1e-5))
    assert privacy_accounting.epsilon(1.0, 0, 1e-5) == 0


def test_epochs_compose_as_another_accountant_of_the_library_says():
    dp = pytest.importorskip("dp_accounting")
    accountant = dp.pld.PLDAccountant()
    accountant.compose(dp.SelfComposedDpEvent(dp.GaussianDpEvent(5.0), 25))
    assert privacy_accounting.epsilon(5.0, 25, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)


def test_a_private_run_logs_what_its_busiest_client_has_spent(tmp_path):
    pytest.importorskip("dp_accounting")
    config = build.load("configs/fedsparsify_global.py:smoke")
    config.privacy.clip, config.privacy.noise, config.participation = 1.0, 2.0, 0.5
    lines = []
    records = loop.run(build.experiment(config), tmp_path / "run", lines.append)
    rounds = [privacy_accounting.most_rounds(one["cohort"] for one in records[: t + 1]) for t in range(3)]
    expected = [privacy_accounting.epsilon(2.0, t * config.client.epochs, 1e-5) for t in rounds]
    assert [record["epsilon"] for record in records] == expected
    assert any(f"epsilon {expected[-1]:.3g}" in line for line in lines)
    plain = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert plain["epsilon"] == expected[-1]
    few = audit_run.Options(attacks=("error_threshold",), draws=20)
    found = audit_run.attack(tmp_path / "run", options=few, say=lambda _: None)
    assert (found["epsilon"], found["delta"]) == (expected[-1], 1e-5)
    assert f"Epsilon {expected[-1]:.3g} at delta 1e-05." in audit_tables.summary(found)


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ("configs/fedavg.py:smoke", dict(clip=1.0), "set both, or neither"),
        ("configs/fedavg.py:smoke", dict(clip=-1.0, noise=1.0), "privacy.clip is -1.0"),
        ("configs/fedavg.py:smoke", dict(clip=1.0, noise=1.0, delta=0.0), "privacy.delta is 0.0"),
        ("configs/snip.py:smoke", dict(clip=1.0, noise=1.0), "also looks at data"),
        ("configs/prunefl.py:smoke", dict(clip=1.0, noise=1.0), "also looks at data"),
    ],
)
def test_refusals(spec, changes, message):
    config = build.load(spec)
    config.privacy.update(changes)
    with pytest.raises(UsageError, match=message):
        build.experiment(config)


def test_a_missing_accountant_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dp_accounting", None)
    config = build.load("configs/fedavg.py:smoke")
    config.privacy.update(clip=1.0, noise=1.0)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[privacy\]'"):
        build.experiment(config)

"""Private local steps against NumPy, what one example can change at most, and what a run says it has spent."""

import json
import math
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from fedsparse_jax.attacks.statistics import epsilon_lower_bound
from fedsparse_jax.config import experiment_from_config, load_config, load_run
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
from tests.helpers.interrupted import Killed, stop_after

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


def test_of_a_person_with_more_scans_more_is_said():
    pytest.importorskip("dp_accounting")
    assert epsilon_spent(3.0, 4, 1e-5, scans=3) == pytest.approx(epsilon_spent(1.0, 4, 1e-5))


# --- seen from outside --------------------------------------------------------------------------

STEPS, TRAININGS = 4, 40_000


def canary_scores(noise, canary_target, clip=1.5):
    """What a client sends after ``STEPS`` steps, along the direction of the canary's gradient, in many trainings.

    The canary is example 2. Its target is so far off that its gradient has norm ``clip`` and one direction, or it is
    what the first model predicts, so that it adds next to nothing.
    """
    tx, x = optax.sgd(1e-3), np.concatenate([[1], INPUTS[2] * MASK])
    step = make_local_step(OBJECTIVE, tx, private=PrivateSteps(clip, noise))
    at_start = float(apply(PARAMS, jnp.asarray(INPUTS[2])))
    targets = np.full(6, 0.0, np.float32)
    targets[2] = at_start if canary_target is None else canary_target

    @jax.jit
    @jax.vmap
    def train(key):
        client = ClientState(jnp.int32(0), PARAMS, MASKS, tx.init(PARAMS), key)
        chunk = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (STEPS, *leaf.shape)), batch(targets=targets))
        return jax.lax.scan(step, client, chunk)[0].params

    sent = train(jax.random.split(jax.random.key(7 if canary_target is None else 8), TRAININGS))
    moved = np.concatenate([(np.asarray(sent[n]) - np.asarray(PARAMS[n])).reshape(TRAININGS, -1) for n in "bw"], axis=1)
    return moved.astype(np.float64) @ (x / np.linalg.norm(x))


def audited_epsilon(noise, clip=1.5):
    return epsilon_lower_bound(canary_scores(noise, 1e6, clip), canary_scores(noise, None, clip), 1e-5)


def test_canaries_cannot_refute_the_promise_and_come_near_it():
    pytest.importorskip("dp_accounting")
    promised = epsilon_spent(2.0, STEPS, 1e-5)
    assert 0.4 * promised < audited_epsilon(2.0) <= promised


@pytest.mark.parametrize(("noise", "clip"), [(0.5, 1.5), (0.5, 6.0)])
def test_canaries_refute_a_promise_that_is_not_kept(noise, clip):
    """A quarter of the noise that is promised for, beside the same clipping norm and one four times as large."""
    pytest.importorskip("dp_accounting")
    assert audited_epsilon(noise, clip) > epsilon_spent(2.0, STEPS, 1e-5)


# --- a whole run --------------------------------------------------------------------------------


@pytest.fixture
def methods(repository):
    return f"{repository}/configs/methods"


def private_run(methods, workdir, print_fn=lambda _: None, **privacy):
    config = load_config(f"{methods}/fedavg.py:digits+smoke")
    config.privacy.update(clip=1.0, noise=0.5, **privacy)
    config.log.tensorboard = False
    return run_experiment(experiment_from_config(config), workdir, print_fn)


def weights(workdir):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(load_run(workdir)[2].params)])


def test_no_two_runs_share_their_noise_and_a_stopped_one_goes_on_with_its_own(methods, tmp_path):
    pytest.importorskip("dp_accounting")
    whole, other, stopped = (tmp_path / name for name in ("whole", "other", "stopped"))
    private_run(methods, whole)
    private_run(methods, other)
    assert np.isclose(weights(whole), weights(other), atol=1e-5).mean() < 0.01
    secret = (whole / "noise_entropy.txt").stat()
    assert secret.st_mode & 0o077 == 0
    with pytest.raises(Killed):
        private_run(methods, stopped, stop_after(1))
    (stopped / "noise_entropy.txt").write_text((whole / "noise_entropy.txt").read_text())  # before its second round
    shutil.rmtree(stopped / "checkpoints")  # from the first round on, with the noise of `whole`
    private_run(methods, stopped)
    assert weights(stopped).tolist() == weights(whole).tolist()


def test_a_simulation_may_take_its_noise_from_the_seed_and_says_so(methods, tmp_path):
    pytest.importorskip("dp_accounting")
    said = []
    for name in ("one", "two"):
        private_run(methods, tmp_path / name, said.append, noise_from_seed=True)
    assert weights(tmp_path / "one").tolist() == weights(tmp_path / "two").tolist()
    assert sum("every run of this seed adds the same noise" in line for line in said) == 2
    assert not (tmp_path / "one/noise_entropy.txt").exists()


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

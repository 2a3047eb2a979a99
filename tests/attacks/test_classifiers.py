"""The attacks on classifiers: the cross-entropy in place of the residual, and the papers' own statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.attacks import controls, evaluate, statistics
from fedsparse_jax.attacks.evidence import Evidence, Shadows, Snapshot, cross_entropies
from fedsparse_jax.attacks.features import check_leaves, feature_cache
from fedsparse_jax.attacks.membership import ATTACKS, lira_offline, lira_online, rmia
from tests.helpers import memorising_network

CLASSES = 3
MADE = {name: make() for name, make in ATTACKS.items()}


@pytest.mark.parametrize("name", MADE)
def test_finds_what_was_learned_by_heart_and_nothing_where_nothing_is(name):
    evidence, inside = memorising_network.evidence("memorised", CLASSES)
    assert statistics.auc(*statistics.split_scores(MADE[name](evidence), inside)) > 0.85
    for kind in ("untrained", "elsewhere"):
        evidence, inside = memorising_network.evidence(kind, CLASSES)
        scores = statistics.split_scores(MADE[name](evidence), inside)
        estimate = statistics.bootstrap(statistics.auc, *scores, draws=400, level=0.99)
        assert estimate.low < 0.5 < estimate.high


def softmax(logits):
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def test_features_of_one_example_against_numpy():
    """A linear classifier, whose gradient is x (p - e_y) by the chain rule."""
    kernel = np.array([[0.5, -1.0, 0.25], [1.5, 0.0, -0.5]])
    model = Snapshot({"dense1": {"kernel": jnp.eye(2)}, "head": {"kernel": jnp.asarray(kernel)}}, None)
    model = model._replace(masks=jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), model.params))
    apply = lambda params, x: x @ params["dense1"]["kernel"] @ params["head"]["kernel"]
    x, y = np.array([[2.0, -1.0]]), np.array([2.0])
    p = softmax(x @ kernel)[0]
    observe = feature_cache(apply, (model,), x, y, leaves=("head/kernel",))
    found = observe(0, ("error", "prediction", "gradient"), np.array([0]))
    loss = -np.log(p[2])
    np.testing.assert_allclose(found["error"][0], [loss, loss**2], rtol=1e-5)
    np.testing.assert_allclose(found["prediction"][0], [*(x @ kernel)[0], 2.0], rtol=1e-5)
    np.testing.assert_allclose(found["gradient"][0], np.outer(x[0], p - [0, 0, 1]).ravel(), rtol=1e-5)


def test_the_head_is_the_kernel_with_an_output_a_class():
    params = memorising_network.init(jax.random.key(0), CLASSES)
    assert check_leaves(params, outputs=CLASSES) == ("dense1/kernel", "head/kernel")


def hand(p, p_shadows, inside, scored=(0,), outsiders=()):
    """Evidence of somebody who is class 0, by the share that each model gives this class."""
    logits = lambda share: np.stack([np.log(share), np.log(1 - share)], -1)
    observe = lambda model, names, rows: {"error": -np.log(np.asarray(p, float))[rows][:, None]}
    shadows = Shadows(logits(np.asarray(p_shadows, float)), np.asarray(inside, bool))
    places = np.array(scored, int), np.zeros(0, int), np.array(outsiders, int)
    return Evidence((Snapshot({}, {}),), observe, np.zeros(len(p)), *places, shadows, classified=True)


def test_lira_by_hand():
    """phi = log(p / (1 - p)); out: phi of .5 and .8 is 0 and log 4, in: log 9 and log 19."""
    evidence = hand([0.9], [[0.5], [0.8], [0.9], [0.95]], [[False], [False], [True], [True]])
    phi, out, within = np.log(9), np.log([1, 4]), np.log([9, 19])
    std = lambda values: np.sqrt(((values - values.mean()) ** 2).sum())  # pooled: n - 1 of one group each
    density = lambda values: -0.5 * ((phi - values.mean()) / std(values)) ** 2 - np.log(std(values))
    np.testing.assert_allclose(lira_online()(evidence), density(within) - density(out), rtol=1e-5)
    from scipy.stats import norm

    expected = norm.logcdf((phi - out.mean()) / std(out))
    np.testing.assert_allclose(lira_offline()(evidence), expected, rtol=1e-5)


def test_rmia_by_hand():
    """Lambda(x) = .9 / (.5 (1.3 * .6 + .7)), and of the known non-member z .5 / (.5 (1.3 * .5 + .7))."""
    evidence = hand([0.9, 0.5], [[0.6, 0.5]], [[False, False]], outsiders=(1,))
    ratio = 0.9 / (0.5 * (1.3 * 0.6 + 0.7))
    assert ratio > 0.5 / (0.5 * (1.3 * 0.5 + 0.7))
    np.testing.assert_allclose(rmia()(evidence), [(1 + ratio / (1 + ratio)) / 2], rtol=1e-6)


def test_cross_entropies_against_numpy():
    logits, labels = np.random.default_rng(0).normal(size=(2, 5, CLASSES)), np.array([0, 2, 1, 1, 0])
    expected = [[-np.log(softmax(logits[s, i])[labels[i]]) for i in range(5)] for s in range(2)]
    np.testing.assert_allclose(cross_entropies(logits, labels), expected, rtol=1e-10)


def test_the_control_pairs_people_of_one_class():
    evidence, inside = memorising_network.evidence("memorised", CLASSES)
    found = evaluate.evaluate_attacks(evidence, inside, {"error_threshold": MADE["error_threshold"]}, draws=20)
    places = controls.age_matched(evidence.targets[evidence.scored], inside, 0.0).places
    assert len(places) and found["error_threshold"].age_matched.members == len(places) // 2


def test_a_run_may_log_how_well_members_are_told_apart():
    w, model = memorising_network.world(classes=CLASSES), memorising_network.target("memorised", CLASSES)
    members, test = [np.flatnonzero(w.inside)], np.flatnonzero(~w.inside)
    measure = evaluate.log_leakage(memorising_network.apply, w.inputs, w.targets, members, test, classified=True)
    logged = measure(model.params, model.masks)
    shares = softmax(np.asarray(memorising_network.apply(model.params, w.inputs[members[0]])))
    nll = -np.log(shares[np.arange(len(shares)), w.targets[members[0]].astype(int)]).mean()
    assert logged["train_nll"] == pytest.approx(nll, rel=1e-3) and logged["membership_auc_error_threshold"] > 0.85

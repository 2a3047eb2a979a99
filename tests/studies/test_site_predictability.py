"""The score of the OpenBHB challenge: its logistic regression against scikit-learn's, and the score by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from fedsparse_jax.core.types import Model, ServerState
from fedsparse_jax.studies.site_predictability import STRENGTHS, fit_logistic, score_challenge, site_predictability


def scans_of_sites(count, features=6, seed=0, shift=0.8):
    """Features in which three sites, of unlike sizes, lie apart."""
    rng = np.random.default_rng(seed)
    sites = rng.choice(3, count, p=[0.6, 0.3, 0.1])
    return rng.normal(size=(count, features)) * [1, 5, 1, 1, 0.1, 1] + shift * np.eye(3, features)[sites], sites


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_the_logistic_regression_is_that_of_scikit_learn(strength):
    x, classes = scans_of_sites(150)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=2000).fit(x, classes)
    ours = fit_logistic(x, classes, 3, strength)
    shares = lambda logits: np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares(x @ ours[:-1] + ours[-1]), theirs.predict_proba(x), atol=2e-3)


def test_the_whole_is_what_scikit_learn_finds():
    (x, sites), (t, truth) = scans_of_sites(240), scans_of_sites(200, seed=1)
    scaler = StandardScaler().fit(x)
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": STRENGTHS}, cv=5, scoring="balanced_accuracy").fit(
        scaler.transform(x), sites
    )
    theirs = balanced_accuracy_score(truth, search.predict(scaler.transform(t)))
    names = np.array(["Guys", "HH", "IOP"])
    assert site_predictability(x, names[sites], t, names[truth]) == pytest.approx(theirs, abs=0.03)


def test_more_features_than_scans_and_constant_ones_do_no_harm():
    (x, sites), (t, truth) = scans_of_sites(40, 6, shift=30), scans_of_sites(30, 6, seed=1, shift=30)
    wide = lambda values: np.c_[values, np.zeros((len(values), 100))]
    assert site_predictability(wide(x), sites, wide(t), truth) == 1.0


# --- the score ----------------------------------------------------------------------------------

NETWORK = Model(lambda key: None, lambda p, x: (x @ p["head"]["kernel"])[:, 0] + p["head"]["bias"][0])
PARAMS = {"head": {"bias": jnp.array([60.0]), "kernel": jnp.array([[1.0], [0.0]])}}
SERVER = ServerState(
    jnp.int32(1), PARAMS, {"head": {"bias": jnp.ones(1, bool), "kernel": jnp.ones((2, 1), bool)}}, None, None
)


def people(told_apart=True):
    """Forty scans of two known sites, of which ten are tested, and four of an unknown site, 3 years off."""
    sites = np.array(["A", "B"] * 20 + ["C"] * 4)
    inputs = np.random.default_rng(0).normal(size=(44, 2)).astype(np.float32)
    inputs[:, 1] = 9.0 * (sites == "A") if told_apart else 0
    inputs[:, 0] = 0 if not told_apart else inputs[:, 0]
    predictions = 60 + inputs[:, 0]
    targets = predictions + np.where(sites == "C", 3, 1)
    trained = np.arange(44) < 30
    return inputs, predictions, targets, sites, trained, ~trained


def test_the_score_by_hand():
    found = score_challenge(NETWORK, SERVER, *people())
    assert found == pytest.approx((3.0, 3.0, 1.0, 2, 10, 4), abs=1e-5)
    blind = score_challenge(NETWORK, SERVER, *people(told_apart=False))
    assert blind.site_accuracy == 0.5 and blind.score == pytest.approx(3 * 0.5**0.3, rel=1e-5)


def test_the_score_needs_known_sites_and_unknown_ones():
    inputs, predictions, targets, sites, trained, tested = people()
    score = lambda sites, trained, tested: score_challenge(
        NETWORK, SERVER, inputs, predictions, targets, sites, trained, tested
    )
    assert score(np.where(sites == "C", "A", sites), trained, tested) is None  # nobody is external
    assert score(np.where(sites == "C", "n/a", sites), trained, tested) is None
    assert score(np.where(sites == "B", "A", sites), trained, tested) is None  # one site has nothing to tell
    assert score(sites, np.zeros(44, bool), tested) is None
    assert score(sites, trained, tested & (sites == "C")) is None  # nobody is internal

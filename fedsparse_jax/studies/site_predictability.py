r"""Can the site be told from what a network makes of a brain, and what does that cost at sites that it never saw?

The challenge of OpenBHB scores a brain age by one number, the lower the better:

.. math:: \mathrm{MAE}_{ext} \cdot \mathrm{BACC}_{int}^{0.3}

The first factor is the error on people of sites that the training never saw, the external test set. The second one is
the balanced accuracy with which a logistic regression names the site of people of known sites, the internal test set,
from the network's last features; it was fitted on the people of the training. (Code of the challenge:
github.com/ramp-kits/brain_age_with_site_removal, problem.py, whose first versions had another formula; as others report
it: Barbano et al., 2023, arXiv 2211.08326.)

Two things are otherwise here. The challenge predicts the age by a ridge regression on the features, where this takes
the network's own prediction. And features are standardised, so that the penalty means the same for every network.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from fedsparse_jax.attacks.evidence import Snapshot
from fedsparse_jax.attacks.features import feature_cache
from fedsparse_jax.core.types import Model, ServerState
from fedsparse_jax.runs.quality import UNKNOWN_SITES

STRENGTHS = tuple(10.0**power for power in range(-2, 3))  # C of the challenge: the inverse of the penalty
FOLDS = 5
STEPS = 150  # of an optimizer, at most


class ChallengeScore(NamedTuple):
    """The score of the challenge, and what it is made of."""

    score: float  # in years
    external_mae: float  # in years
    site_accuracy: float  # balanced
    sites: int  # that the model was trained on
    internal: int  # scans of the internal test set
    external: int


def score_challenge(network: Model, server: ServerState, inputs, predictions, targets, sites, trained, tested):
    """The challenge's score of a brain age; None where people are missing for it.

    Args:
        network, server: the model.
        inputs: ``[N, ...]``; may be memory-mapped.
        predictions, targets: ``[N]``, in years.
        sites: ``[N]``, names.
        trained: ``bool[N]``, on whom the model was trained; they must come from two sites at least.
        tested: ``bool[N]``, who had no part in the training; of known and of unknown sites.

    Raises:
        UsageError: nothing says which leaf of the model is its head.
    """
    known = ~np.isin(sites, UNKNOWN_SITES)
    trained, tested = np.flatnonzero(trained & known), np.flatnonzero(tested & known)
    of_training = np.isin(sites[tested], sites[trained])
    internal, external = tested[of_training], tested[~of_training]
    count = len(np.unique(sites[trained]))
    if count < 2 or not len(internal) or not len(external):
        return None
    snapshot = Snapshot(server.params, server.masks)
    observe = feature_cache(network.apply, (snapshot,), inputs, targets)
    features = lambda rows: observe(0, ("activation",), rows)["activation"]
    accuracy = site_predictability(features(trained), sites[trained], features(internal), sites[internal])
    error = float(np.abs(predictions[external] - targets[external]).mean())
    return ChallengeScore(error * accuracy**0.3, error, accuracy, count, len(internal), len(external))


def site_predictability(features, sites, test_features, test_sites) -> float:
    """Balanced accuracy of a logistic regression that was fitted on some people, for others of the same sites.

    Its penalty is the one of ``STRENGTHS`` with the best balanced accuracy in five folds of the first people.

    Args:
        features, sites: ``[N, F]`` and ``[N]``, to fit on.
        test_features, test_sites: ``[M, F]`` and ``[M]``.
    """
    names, classes = np.unique(sites, return_inverse=True)
    x, t = (np.asarray(values, np.float64) for values in (features, test_features))
    mean, std = x.mean(0), x.std(0)
    scale = np.where(std > 0, std, np.inf)
    _, _, axes = np.linalg.svd((x - mean) / scale, full_matrices=False)  # weights lie in the space of the rows
    x, t = (((values - mean) / scale) @ axes.T for values in (x, t))
    fold = _folds(classes)
    found = dict.fromkeys(STRENGTHS, 0.0)
    for strength in STRENGTHS:
        called = np.zeros(len(classes), int)
        for held in range(FOLDS):
            weights = fit_logistic(x[fold != held], classes[fold != held], len(names), strength)
            called[fold == held] = _call(weights, x[fold == held])
        found[strength] = _balanced(called, classes)
    best = max(STRENGTHS, key=lambda strength: found[strength])
    called = _call(fit_logistic(x, classes, len(names), best), t)
    return _balanced(names[called], np.asarray(test_sites))


def fit_logistic(x: np.ndarray, classes: np.ndarray, count: int, strength: float) -> np.ndarray:
    """Multinomial logistic regression: weights ``[F + 1, count]``, the last row without a penalty.

    Minimises ``strength * sum(cross-entropy) + |weights|^2 / 2``, as scikit-learn does for ``C=strength``.
    """
    ones, truth = np.c_[x, np.ones(len(x))], np.eye(count)[classes]
    penalised = np.r_[np.ones(x.shape[1]), 0.0][:, np.newaxis]

    def loss(flat):
        weights = flat.reshape(-1, count)
        logits = ones @ weights
        log_shares = logits - logsumexp(logits, 1, keepdims=True)
        value = -(truth * log_shares).sum() + (penalised * weights**2).sum() / (2 * strength)
        slope = ones.T @ (np.exp(log_shares) - truth) + penalised * weights / strength
        return value, slope.ravel()

    start = np.zeros(ones.shape[1] * count)
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x.reshape(-1, count)


def _call(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (x @ weights[:-1] + weights[-1]).argmax(1)


def _folds(classes: np.ndarray) -> np.ndarray:
    """For each example its fold: those of a class go to the folds in turn."""
    fold = np.zeros(len(classes), int)
    for one in np.unique(classes):
        places = np.flatnonzero(classes == one)
        fold[places] = np.arange(len(places)) % FOLDS
    return fold


def _balanced(called, truth) -> float:
    """The mean over the classes that occur of the share found."""
    return float(np.mean([(called[truth == one] == one).mean() for one in np.unique(truth)]))

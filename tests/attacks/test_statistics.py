"""Numbers of an attack: by hand, against scikit-learn, against jax-privacy where it is installed."""

import numpy as np
import pytest
from scipy.stats import beta, norm

from fedsparse_jax.attacks import statistics


def draw(members=300, outsiders=400, shift=0.7, seed=0, digits=9):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(shift, 1, members), rng.normal(0, 1, outsiders)]).round(digits)
    return scores, np.arange(members + outsiders) < members


@pytest.mark.parametrize("digits", [9, 0])
def test_auc_and_roc_are_those_of_scikit_learn(digits):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, inside = draw(digits=digits)
    members, outsiders = statistics.split_scores(scores, inside)
    assert statistics.auc(members, outsiders) == pytest.approx(metrics.roc_auc_score(inside, scores))
    curve = statistics.roc(members, outsiders)
    fpr, tpr, _ = metrics.roc_curve(inside, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.fpr[1:], fpr)
    np.testing.assert_allclose(curve.tpr[1:], tpr)
    assert statistics.best_advantage(members, outsiders) == pytest.approx((tpr - fpr).max())


def test_roc_by_hand():
    curve = statistics.roc([3.0, 2.0], [2.0, 1.0])
    assert curve.thresholds.tolist() == [np.inf, 3, 2, 1, -np.inf]
    assert curve.tpr.tolist() == [0, 0, 0.5, 1, 1] and curve.fpr.tolist() == [0, 0, 0, 0.5, 1]


def test_tpr_at_by_hand():
    outsiders = np.arange(100.0)
    members = np.array([98.5, 99.0, 99.5, 50.0])
    assert statistics.tpr_at(members, outsiders, 0.01) == 0.75  # one may be above: threshold 98
    assert statistics.tpr_at(members, outsiders, 0.0) == 0.25  # threshold 99, a tie does not count
    assert statistics.tpr_at(members, outsiders, 1.0) == 1


def test_a_rate_that_the_non_members_cannot_support_is_refused():
    scores, inside = draw(50, 99)
    tpr = statistics.judge_scores(scores, inside, draws=20).tpr
    assert tpr["0.01"].value is None and tpr["0.01"].low is None
    assert tpr["0.01"].refused == "99 non-members cannot support an FPR of 0.01: 100 needed"
    tpr = statistics.judge_scores(*draw(50, 100), draws=20).tpr
    assert tpr["0.01"].value is not None and not tpr["0.01"].refused
    assert "1000 needed" in tpr["0.001"].refused
    assert statistics.judge_scores(*draw(50, 1000), draws=20).tpr["0.001"].value is not None


def tpr_interval(hits):
    """The interval of a TPR of ``hits`` in 20; a bootstrap of one draw is a point, which does not widen it."""
    members = np.where(np.arange(20) < hits, 200.0, -1.0)
    share = statistics.tpr_estimate(members, np.arange(100.0), 0.01, draws=1)
    assert share.value == hits / 20
    return share.low, share.high


def test_clopper_pearson_by_hand():
    assert tpr_interval(0) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert tpr_interval(20) == (pytest.approx(0.025 ** (1 / 20)), 1)
    low, high = tpr_interval(7)
    assert low == pytest.approx(beta.ppf(0.025, 7, 14)) and high == pytest.approx(beta.ppf(0.975, 8, 13))


def test_intervals_of_a_perfect_and_of_a_useless_attack():
    apart = np.arange(400.0) + 200 * (np.arange(400) >= 200)
    perfect = statistics.judge_scores(apart, np.arange(400) >= 200, draws=200)
    assert perfect.auc.value == perfect.auc.high == 1 and perfect.auc.low == pytest.approx(0.9903, abs=1e-4)
    assert perfect.balanced_accuracy.value == 1 and perfect.advantage.value == 1
    assert perfect.tpr["0.01"].value == perfect.tpr["0.01"].high == 1 and perfect.tpr["0.01"].low < 1
    constant = statistics.judge_scores(np.zeros(400), np.arange(400) >= 200, draws=50)
    assert constant.auc.value == 0.5 and constant.balanced_accuracy.value == 0.5
    assert constant.advantage.value == constant.best_advantage.value == 0 and constant.tpr["0.01"].value == 0


def level_of(z2):
    return 2 * norm.cdf(z2**0.5) - 1


def test_the_interval_of_an_auc_by_hand():
    # Two of each, never confused. At a true AUC of 1/2 the variance is 1/4 (1 + 1/3 + 1/3) / 4 = 5/48, and the distance
    # (1/2)^2: the end where z^2 = 48/20. With three of each, 1/4 (1 + 2/3 + 2/3) / 9 = 7/108; from .9 the distance is .16.
    assert statistics.auc_interval(1.0, 2, 2, level_of(48 / 20)) == (pytest.approx(0.5), 1)
    assert statistics.auc_interval(0.0, 2, 2, level_of(48 / 20)) == (0, pytest.approx(0.5))
    assert statistics.auc_interval(0.9, 3, 3, level_of(0.16 * 108 / 7))[0] == pytest.approx(0.5)
    low, high = statistics.auc_interval(0.7, 5, 9)
    assert statistics.auc_interval(0.3, 9, 5) == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_the_interval_of_an_accuracy_by_hand():
    # Wilson's limit of k in k is 1 / (1 + z^2 / k): 1/2 for 4 in 4 at z = 2, and 3/4 for 12 in 12.
    low, high = statistics.accuracy_interval(1.0, 4, 12, level_of(4.0))
    assert high == 1 and low == pytest.approx(1 - np.hypot(1 / 2, 1 / 4) / 2)


@pytest.mark.parametrize("people", [3, 5])
def test_a_handful_of_people_proves_no_perfect_attack(people):
    outcome = statistics.judge_scores(np.arange(2.0 * people), np.arange(2 * people) >= people, draws=50)
    assert outcome.auc.value == 1 and outcome.auc.low == statistics.auc_interval(1.0, people, people)[0] < 0.7
    assert outcome.best_advantage.value == 1 and outcome.best_advantage.low < 0.6
    assert outcome.advantage.refused or outcome.advantage.low < 0.6


@pytest.mark.parametrize(("people", "truth"), [(6, 0.95), (8, 0.95), (5, 0.8)])
def test_the_interval_of_an_auc_covers_where_a_bootstrap_does_not(people, truth):
    """Of 300 small draws from two normals about 95 % are to hold the true AUC; a bootstrap's hold 59 to 80 %."""
    shift, held, drawn = norm.ppf(truth) * 2**0.5, [], []
    for seed in range(300):
        scores = statistics.split_scores(*draw(people, people, shift=shift, seed=seed))
        low, high = statistics.auc_interval(statistics.auc(*scores), people, people)
        held.append(low <= truth <= high)
        if seed < 60:
            estimate = statistics.bootstrap(statistics.auc, *scores, draws=100, seed=seed)
            drawn.append(estimate.low <= truth <= estimate.high)
    assert np.mean(held) >= 0.92 and np.mean(drawn) < 0.9


def test_intervals_cover_the_truth():
    """Of 60 draws from two normals, about 95 % of the intervals hold the true AUC; binomially at least 52."""
    truth = norm.cdf(0.7 / 2**0.5)
    estimates = []
    for seed in range(60):
        scores = statistics.split_scores(*draw(80, 80, seed=seed))
        estimates.append(statistics.bootstrap(statistics.auc, *scores, draws=200, seed=seed))
    assert sum(auc.low <= truth <= auc.high for auc in estimates) >= 52
    assert np.mean([auc.high - auc.low for auc in estimates]) < 0.2


def test_a_threshold_chosen_on_others_promises_nothing_by_chance():
    """The best advantage of a useless attack is above 0, the one at a threshold from other people is around 0."""
    outcomes = [statistics.judge_scores(*draw(40, 40, shift=0.0, seed=seed), draws=2) for seed in range(40)]
    honest = np.array([outcome.advantage.value for outcome in outcomes])
    assert abs(honest.mean()) < 3 * honest.std() / 40**0.5
    assert np.mean([outcome.best_advantage.value for outcome in outcomes]) > 0.1


def test_balanced_accuracy_by_hand():
    # first halves: members 5, 6, others 1, 2: threshold 3.5; second halves: members 4, 3, others 0, 4.5
    members, outsiders = [5.0, 6.0, 4.0, 3.0], [1.0, 2.0, 0.0, 4.5]
    assert statistics.best_threshold([5, 6], [1, 2]) == 3.5
    assert statistics.best_threshold([4, 3], [0, 4.5]) == 1.5  # both members, one of the others
    assert statistics.balanced_accuracy(members, outsiders) == pytest.approx((0.5 + 0.5 + 1 + 0.5) / 4)


def test_the_same_seed_gives_the_same_intervals():
    judge = lambda seed: statistics.judge_scores(*draw(), seed=seed, draws=50)
    assert judge(0) == judge(0)
    drawn = [
        statistics.bootstrap(statistics.auc, *statistics.split_scores(*draw()), seed=seed, draws=50) for seed in (0, 1)
    ]
    assert drawn[0].low != drawn[1].low


@pytest.mark.parametrize("scores, inside", [([1.0, np.nan], [True, False]), ([1.0, 2.0], [True, True])])
def test_impossible_scores(scores, inside):
    with pytest.raises(ValueError, match="not finite|both must occur"):
        statistics.judge_scores(scores, inside)


def hull(curve):
    """The upper convex hull of a curve: classifiers that draw between two thresholds."""
    corners = []
    for x, y in zip(curve.fpr, curve.tpr):
        while len(corners) > 1 and is_below(corners[-1], corners[-2], (x, y)):
            corners.pop()
        corners.append((x, y))
    return np.array(corners).T


def is_below(point, left, right):
    """Whether a point lies on or below the line from ``left`` to ``right``."""
    return (point[1] - left[1]) * (right[0] - left[0]) <= (right[1] - left[1]) * (point[0] - left[0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [9, 1])
def test_the_numbers_of_jax_privacy(seed, digits):
    """It lets a classifier draw between two thresholds: its curve is the convex hull of ours, which lies below it."""
    auditing = pytest.importorskip("jax_privacy.auditing")
    members, outsiders = statistics.split_scores(*draw(300, 1000, seed=seed, digits=digits))
    theirs = auditing.CanaryScoreAuditor(members, outsiders)
    fpr, tpr = hull(statistics.roc(members, outsiders))
    assert theirs.attack_auroc() == pytest.approx(np.trapezoid(tpr, fpr))
    assert 0 <= theirs.attack_auroc() - statistics.auc(members, outsiders) < 0.02
    best = (statistics.best_advantage(members, outsiders) + 1) / 2
    assert theirs.max_accuracy(prevalence=0.5) == pytest.approx(best)
    for rate in statistics.FPRS:
        assert theirs.tpr_at_given_fpr(rate) == pytest.approx(np.interp(rate, fpr, tpr))
        assert statistics.tpr_at(members, outsiders, rate) <= theirs.tpr_at_given_fpr(rate) + 1e-9

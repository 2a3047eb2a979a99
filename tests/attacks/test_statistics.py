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
    members, outsiders = statistics.split(scores, inside)
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
    found = statistics.summary(scores, inside, draws=20).tpr
    assert found["0.01"].value is None and found["0.01"].low is None
    assert found["0.01"].refused == "99 non-members cannot support an FPR of 0.01: 100 needed"
    found = statistics.summary(*draw(50, 100), draws=20).tpr
    assert (
        found["0.01"].value is not None
        and not found["0.01"].refused
        and "1000 needed" in found["0.001"].refused
    )
    assert statistics.summary(*draw(50, 1000), draws=20).tpr["0.001"].value is not None


def test_clopper_pearson_by_hand():
    assert statistics.clopper_pearson(0, 20) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert statistics.clopper_pearson(20, 20) == (pytest.approx(0.025 ** (1 / 20)), 1)
    low, high = statistics.clopper_pearson(7, 20)
    assert low == pytest.approx(beta.ppf(0.025, 7, 14)) and high == pytest.approx(beta.ppf(0.975, 8, 13))


def test_intervals_of_a_perfect_and_of_a_useless_attack():
    apart = np.arange(400.0) + 200 * (np.arange(400) >= 200)
    perfect = statistics.summary(apart, np.arange(400) >= 200, draws=200)
    assert (
        perfect.auc[:3] == (1, 1, 1) and perfect.balanced_accuracy.value == 1 and perfect.advantage.value == 1
    )
    assert perfect.tpr["0.01"].value == perfect.tpr["0.01"].high == 1 and perfect.tpr["0.01"].low < 1
    constant = statistics.summary(np.zeros(400), np.arange(400) >= 200, draws=50)
    assert constant.auc.value == 0.5 and constant.balanced_accuracy.value == 0.5
    assert constant.advantage.value == constant.best_advantage.value == 0 and constant.tpr["0.01"].value == 0


def test_intervals_cover_the_truth():
    """Of 60 draws from two normals, about 95 % of the intervals hold the true AUC; binomially at least 52."""
    truth = norm.cdf(0.7 / 2**0.5)
    found = [
        statistics.bootstrap(
            statistics.auc, *statistics.split(*draw(80, 80, seed=seed)), draws=200, seed=seed
        )
        for seed in range(60)
    ]
    assert sum(one.low <= truth <= one.high for one in found) >= 52
    assert np.mean([one.high - one.low for one in found]) < 0.2


def test_a_threshold_chosen_on_others_promises_nothing_by_chance():
    """The best advantage of a useless attack is above 0, the one at a threshold from other people is around 0."""
    found = [statistics.summary(*draw(40, 40, shift=0.0, seed=seed), draws=2) for seed in range(40)]
    honest = np.array([one.advantage.value for one in found])
    assert abs(honest.mean()) < 3 * honest.std() / 40**0.5
    assert np.mean([one.best_advantage.value for one in found]) > 0.1


def test_balanced_accuracy_by_hand():
    # first halves: members 5, 6, others 1, 2: threshold 3.5; second halves: members 4, 3, others 0, 4.5
    members, outsiders = [5.0, 6.0, 4.0, 3.0], [1.0, 2.0, 0.0, 4.5]
    assert statistics.best_threshold([5, 6], [1, 2]) == 3.5
    assert statistics.best_threshold([4, 3], [0, 4.5]) == 1.5  # both members, one of the others
    assert statistics.balanced_accuracy(members, outsiders) == pytest.approx((0.5 + 0.5 + 1 + 0.5) / 4)


def test_the_same_seed_gives_the_same_intervals():
    assert statistics.summary(*draw(), draws=50) == statistics.summary(*draw(), draws=50)
    assert (
        statistics.summary(*draw(), draws=50).auc.low != statistics.summary(*draw(), seed=1, draws=50).auc.low
    )


@pytest.mark.parametrize("scores, inside", [([1.0, np.nan], [True, False]), ([1.0, 2.0], [True, True])])
def test_impossible_scores(scores, inside):
    with pytest.raises(ValueError, match="not finite|both must occur"):
        statistics.summary(scores, inside)


def hull(curve):
    """The upper convex hull of a curve: classifiers that draw between two thresholds."""
    kept = []
    for x, y in zip(curve.fpr, curve.tpr):
        while len(kept) > 1 and (kept[-1][1] - kept[-2][1]) * (x - kept[-2][0]) <= (y - kept[-2][1]) * (
            kept[-1][0] - kept[-2][0]
        ):
            kept.pop()
        kept.append((x, y))
    return np.array(kept).T


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [9, 1])
def test_the_numbers_of_jax_privacy(seed, digits):
    """It lets a classifier draw between two thresholds: its curve is the convex hull of ours, which lies below it."""
    auditing = pytest.importorskip("jax_privacy.auditing")
    members, outsiders = statistics.split(*draw(300, 1000, seed=seed, digits=digits))
    theirs = auditing.CanaryScoreAuditor(members, outsiders)
    fpr, tpr = hull(statistics.roc(members, outsiders))
    assert theirs.attack_auroc() == pytest.approx(np.trapezoid(tpr, fpr))
    assert 0 <= theirs.attack_auroc() - statistics.auc(members, outsiders) < 0.02
    best = (statistics.best_advantage(members, outsiders) + 1) / 2
    assert theirs.max_accuracy(prevalence=0.5) == pytest.approx(best)
    for rate in statistics.FPRS:
        assert theirs.tpr_at_given_fpr(rate) == pytest.approx(np.interp(rate, fpr, tpr))
        assert statistics.tpr_at(members, outsiders, rate) <= theirs.tpr_at_given_fpr(rate) + 1e-9

"""How well scores tell members from others, with intervals, and without numbers that the data cannot carry.

Scores are higher where membership is likelier; a person is called a member where the score is *above* a threshold.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # whose parts are loaded when they are used

from fedsparse_jax.core.streams import Stream
from fedsparse_jax.core.tasks import area_under_roc

FPRS = (0.01, 0.001)


class Estimate(NamedTuple):
    """A number and its interval, or None three times and the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    refused: str = ""


class Outcome(NamedTuple):
    """One attack on one set of people."""

    members: int
    outsiders: int
    auc: Estimate
    balanced_accuracy: Estimate  # at a threshold chosen on other people
    advantage: Estimate  # TPR - FPR at that threshold
    best_advantage: Estimate  # the largest TPR - FPR, found on the same people: above 0 by chance alone
    tpr: dict[str, Estimate]  # by FPR, "0.01" and "0.001"


class Roc(NamedTuple):
    """Points of the curve, from (0, 0) to (1, 1); for log-log axes leave out zeros."""

    fpr: np.ndarray
    tpr: np.ndarray
    thresholds: np.ndarray


def judge_scores(scores, inside, *, seed: int = 0, draws: int = 1000, level: float = 0.95) -> Outcome:
    """All numbers of one attack.

    Intervals are percentiles of a stratified bootstrap: members and non-members are drawn anew, each from their own.
    A bootstrap of people who are told apart without an error sees no error either, so that each end is the wider one of
    it and of a score interval, which knows how few they are (`auc_interval`, `accuracy_interval`). Intervals hold for
    the people who were scored, one training of the model; another training is another draw.

    Args:
        scores: ``[N]``, finite.
        inside: ``bool[N]``, the truth; both kinds must occur.
        seed: of the bootstrap and of the halves that the threshold is chosen on.
        draws: of the bootstrap.
        level: of the intervals.
    """
    members, outsiders = split_scores(scores, inside)
    if not len(members) or not len(outsiders):
        raise ValueError(f"{len(members)} members and {len(outsiders)} non-members: both must occur")
    tools = {"seed": seed, "draws": draws, "level": level}
    sizes = len(members), len(outsiders), level
    accuracy = _widen(bootstrap(balanced_accuracy, members, outsiders, folds=True, **tools), accuracy_interval, *sizes)
    best = lambda *groups: (1 + best_advantage(*groups)) / 2  # as an accuracy
    return Outcome(
        members=len(members),
        outsiders=len(outsiders),
        auc=_widen(bootstrap(auc, members, outsiders, **tools), auc_interval, *sizes),
        balanced_accuracy=accuracy,
        advantage=_doubled(accuracy),
        best_advantage=_doubled(_widen(bootstrap(best, members, outsiders, **tools), accuracy_interval, *sizes)),
        tpr={f"{fpr:g}": tpr_estimate(members, outsiders, fpr, **tools) for fpr in FPRS},
    )


def split_scores(scores, inside) -> tuple[np.ndarray, np.ndarray]:
    """Scores of members and of non-members.

    Raises:
        ValueError: a score is not a number.
    """
    scores, inside = np.asarray(scores, np.float64), np.asarray(inside, bool)
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    return scores[inside], scores[~inside]


def auc(members, outsiders) -> float:
    """Chance that a member scores above a non-member, ties counted half.

    >>> auc([3, 2], [2, 1])
    0.875
    """
    everybody = np.concatenate([members, outsiders])
    return area_under_roc(everybody, np.arange(len(everybody)) < len(members))


def roc(members, outsiders) -> Roc:
    """One point for each distinct score, the threshold; scores above it count."""
    thresholds = np.concatenate([[np.inf], np.unique(np.concatenate([members, outsiders]))[::-1], [-np.inf]])
    above = lambda values: 1 - np.searchsorted(np.sort(values), thresholds, side="right") / len(values)
    return Roc(above(np.asarray(outsiders)), above(np.asarray(members)), thresholds)


def best_advantage(members, outsiders) -> float:
    """The largest TPR - FPR over all thresholds."""
    curve = roc(members, outsiders)
    return float((curve.tpr - curve.fpr).max())


def balanced_accuracy(members, outsiders) -> float:
    """(TPR + TNR) / 2, with the threshold chosen on one half of the people, used on the other, and the reverse.

    The first half of each array is one fold; shuffle before. A threshold chosen on the people that it is judged on
    would pass for an attack by chance alone.
    """
    folds = [(v[: len(v) // 2], v[len(v) // 2 :]) for v in (np.asarray(members), np.asarray(outsiders))]
    rates = []
    for here, there in ((0, 1), (1, 0)):
        threshold = best_threshold(folds[0][here], folds[1][here])
        rates += [(folds[0][there] > threshold).mean(), (folds[1][there] <= threshold).mean()]
    return float(np.mean(rates))


def best_threshold(members, outsiders) -> float:
    """Where TPR - FPR is largest: halfway between two scores, which is fairest to other people."""
    curve = roc(members, outsiders)
    best = int((curve.tpr - curve.fpr).argmax())
    ends = curve.thresholds[max(best - 1, 0) : best + 1]
    return float(ends.mean() if np.isfinite(ends).all() else curve.thresholds[best])


def tpr_at(members, outsiders, fpr: float) -> float:
    """Share of members above the lowest threshold that at most a share ``fpr`` of the non-members is above.

    >>> tpr_at([5, 4, 1], [3, 2, 2, 0], fpr=0.25)
    0.6666666666666666
    """
    return hits_at(members, outsiders, fpr) / len(members)


def hits_at(members, outsiders, fpr: float) -> int:
    """The same as a count. A threshold is a non-member's score, and ties with it do not count."""
    allowed = math.floor(fpr * len(outsiders) + 1e-9)
    if allowed >= len(outsiders):
        return len(members)
    threshold = np.sort(outsiders)[::-1][allowed]
    return int((np.asarray(members) > threshold).sum())


def tpr_estimate(members, outsiders, fpr: float, *, seed=0, draws=1000, level=0.95) -> Estimate:
    """TPR at an FPR; refused where the non-members are too few for one expected false positive.

    The interval is, end by end, the wider one of Clopper-Pearson, which knows small counts but takes the threshold for
    given, and the bootstrap, which draws the threshold's non-members anew.
    """
    fewest = math.ceil(1 / fpr - 1e-9)
    if len(outsiders) < fewest:
        return Estimate(None, refused=f"{len(outsiders)} non-members cannot support an FPR of {fpr:g}: {fewest} needed")
    share = scipy.stats.binomtest(hits_at(members, outsiders, fpr), len(members))
    exact = share.proportion_ci(level)  # Clopper-Pearson
    drawn = bootstrap(lambda a, b: tpr_at(a, b, fpr), members, outsiders, seed=seed, draws=draws, level=level)
    assert drawn.low is not None and drawn.high is not None
    return Estimate(drawn.value, min(float(exact.low), drawn.low), max(float(exact.high), drawn.high))


def auc_interval(value: float, members: int, outsiders: int, level: float = 0.95) -> tuple[float, float]:
    """The AUCs that are not refuted by an observed one, from the number of people alone; open at 0 and 1.

    A score interval: the variance is that of Hanley and McNeil (1982) at the AUC in question, and not at the observed
    one, where it is 0 if the people are told apart without an error (Newcombe, 2006, doi 10.1002/sim.2324, method 5).

    >>> [round(end, 3) for end in auc_interval(1.0, 4, 4)]
    [0.582, 1.0]
    """
    z, pairs, others = scipy.stats.norm.ppf((1 + level) / 2), members * outsiders, (members + outsiders) / 2 - 1

    def refuted(true: float, observed: float) -> float:  # above 0 where it is
        variance = true * (1 - true) * (1 + others * ((1 - true) / (2 - true) + true / (1 + true))) / pairs
        return (observed - true) ** 2 - z**2 * variance

    def low(observed: float) -> float:
        return scipy.optimize.brentq(refuted, 0.0, observed - 1e-9, args=(observed,)) if observed > 1e-6 else 0.0

    return low(value), 1 - low(1 - value)  # as the variance is the same at 1 - AUC


def accuracy_interval(value: float, members: int, outsiders: int, level: float = 0.95) -> tuple[float, float]:
    """The same for a balanced accuracy, with errors that are as frequent among members as among non-members.

    Wilson's limits of both rates, put together by the square of their distances (Newcombe, 1998, Statistics in
    Medicine 17:873, method 10).

    >>> [round(end, 3) for end in accuracy_interval(1.0, 4, 4)]
    [0.654, 1.0]
    """
    ends = []
    for side in (0, 1):
        limits = [_wilson(value, count, level)[side] for count in (members, outsiders)]
        ends.append(value + (-1, 1)[side] * math.hypot(*(value - limit for limit in limits)) / 2)
    return ends[0], ends[1]


def _wilson(share: float, count: int, level: float) -> tuple[float, float]:
    z2 = scipy.stats.norm.ppf((1 + level) / 2) ** 2
    middle, half = share + z2 / (2 * count), math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2)))
    return (middle - half) / (1 + z2 / count), (middle + half) / (1 + z2 / count)


def _widen(drawn: Estimate, interval: Callable, *sizes) -> Estimate:
    """End by end the wider one of a bootstrap and of a score interval."""
    if drawn.value is None or drawn.low is None or drawn.high is None:
        return drawn
    low, high = interval(drawn.value, *sizes)
    return Estimate(drawn.value, min(drawn.low, low), max(drawn.high, high))


def epsilon_lower_bound(inside, outside, delta: float, *, level: float = 0.95) -> float:
    """The least epsilon that can be true of a mechanism, seen from outside: an audit with canaries.

    Whoever tells trainings with an example from trainings without it so well refutes any smaller epsilon, since
    ``TPR <= exp(epsilon) FPR + delta`` and the same with the two exchanged (Kairouz et al., 2015, arXiv 1311.0776;
    Jagielski et al., 2020, arXiv 2006.07709). The threshold is chosen on the first half of the scores and judged on the
    other, with one-sided Clopper-Pearson bounds on both rates.

    Args:
        inside: ``[n]``, a score of each training with the canary, in random order.
        outside: ``[m]``, of each training without.
        delta: of the promise.
        level: the chance that what is returned is not above the truth.
    """
    first, other = zip(
        *(np.array_split(np.asarray(scores, np.float64), 2) for scores in (inside, outside)), strict=True
    )
    candidates = np.quantile(np.concatenate(first), np.linspace(0, 1, 201)[1:-1])
    best = max(candidates, key=lambda threshold: max(_epsilon_bounds(first, threshold, delta, level)))
    side = int(np.argmax(_epsilon_bounds(first, best, delta, level)))
    return max(0.0, _epsilon_bounds(other, best, delta, level)[side])


def _epsilon_bounds(scores: tuple, threshold: float, delta: float, level: float) -> tuple[float, float]:
    """By the scores (inside, outside) above a threshold, and by those not above it."""
    above = [(int((group > threshold).sum()), len(group)) for group in scores]
    below = [(count - hits, count) for hits, count in above[::-1]]

    def of(hits, alarms):
        least = scipy.stats.binomtest(*hits, alternative="greater").proportion_ci((1 + level) / 2).low
        most = scipy.stats.binomtest(*alarms, alternative="less").proportion_ci((1 + level) / 2).high
        return math.log(max(float(least) - delta, 1e-12) / max(float(most), 1e-12))

    return of(*above), of(*below)


def bootstrap(statistic: Callable, members, outsiders, *, seed=0, draws=1000, level=0.95, folds=False) -> Estimate:
    """Percentile interval of ``statistic(members, outsiders)``, each drawn anew from its own.

    Args:
        statistic: of two arrays of scores.
        members, outsiders: ``[n]`` and ``[m]``.
        seed, draws, level: see `judge_scores`.
        folds: shuffle first, and draw the first half of each array from the first half, so that nobody stands in both.
    """
    rng = np.random.default_rng([seed, Stream.BOOTSTRAP])
    groups = [np.asarray(members, np.float64), np.asarray(outsiders, np.float64)]
    if folds and min(map(len, groups)) < 4:
        return Estimate(None, refused="fewer than 4 members or non-members cannot be halved")
    groups = [rng.permutation(group) if folds else group for group in groups]
    cuts = [[0, len(group) // 2, len(group)] if folds else [0, len(group)] for group in groups]

    def draw(group, cut):
        parts = itertools.pairwise(cut)
        return np.concatenate([group[rng.integers(low, high, high - low)] for low, high in parts])

    values = [statistic(*map(draw, groups, cuts)) for _ in range(draws)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(statistic(*groups)), float(low), float(high))


def _doubled(accuracy: Estimate) -> Estimate:
    """TPR - FPR from (TPR + TNR) / 2."""
    twice = [None if value is None else 2 * value - 1 for value in accuracy[:3]]
    return Estimate(twice[0], twice[1], twice[2], accuracy.refused)

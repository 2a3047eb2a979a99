r"""The attacks. Each is a factory of `Attack`. Runs and audits use its defaults; Python code may give any arguments.

Throughout, :math:`r = f(x) - y` is the residual of the target model, :math:`r_s` that of shadow model s; "in" are the
shadows that trained on x, "out" the others. Of a classifier :math:`r = -\log p_y` is the cross-entropy. Sources and
readings: docs/explanation/threats.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr

from fedsparse_jax.attacks import feature_classifier
from fedsparse_jax.attacks.evidence import (
    Attack,
    Evidence,
    MissingEvidence,
    Shadows,
    need_known,
    need_shadows,
    others_than,
    residuals,
    shadow_residuals,
)
from fedsparse_jax.attacks.statistics import auc
from fedsparse_jax.core.errors import ArgumentError

WHITE_BOX = ("error", "prediction", "gradient_norm", "gradient", "activation")
SPARSE = ("error", "gradient_norm", "gradient_mass", "change")
LOG_EPSILON = 1e-6  # years squared: a residual of a thousandth of a year is as good as none
GRID = tuple(i / 10 for i in range(11))
PARTS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)


def error_threshold() -> Attack:
    r"""Members are predicted better (Yeom et al., 2018): the score is :math:`-|r|`. Nothing else is needed."""
    return lambda evidence: -np.abs(residuals(evidence, evidence.scored))


def white_box(*, features=WHITE_BOX, models: int = 0) -> Attack:
    """The feature classifier of Gupta et al. (2021): learns from known members and non-members who is one.

    Over several models one classifier is learned from the features under each, and its logits are averaged.

    Args:
        features: members of ``FEATURES``.
        models: how many of the received models, the newest; 0 for all.
    """
    return _classifier("white_box", tuple(features), models)


def sparsity_aware(*, features=SPARSE, models: int = 0) -> Attack:
    """The same classifier on what pruning shows: the mask, and the model before the pruning beside the one after.

    Sees how far error and gradients rose by pruning, how much of that the gradient foretold, and how hard the loss of
    an example still pulls at pruned weights. A model without an earlier one is left out. Arguments are those of
    `white_box`.
    """
    return _classifier("sparsity_aware", tuple(features), models, needs_before=True)


def _classifier(name: str, features: tuple[str, ...], models: int, needs_before: bool = False) -> Attack:
    def score(evidence: Evidence):
        need_known(evidence, name)
        places = [k for k, model in enumerate(evidence.models) if model.before is not None or not needs_before]
        if not places:
            raise MissingEvidence(f"{name} needs a model from before the pruning; this attacker has none.")
        places = places[-models:]
        see = lambda rows: [evidence.observe(place, features, rows) for place in places]
        known = list(zip(see(evidence.members), see(evidence.outsiders), strict=True))
        owners = evidence.people_of(evidence.members), evidence.people_of(evidence.outsiders)
        logits = feature_classifier.fit_classifier(known, feature_classifier.Training(), owners)
        scored = see(evidence.scored)
        return np.mean([logits(shown, place) for place, shown in enumerate(scored)], axis=0)

    return score


class Normal(NamedTuple):
    """For each person the normal that a statistic is drawn from, ``f64[N]`` each."""

    mean: np.ndarray
    std: np.ndarray

    def log_density(self, values):
        """Up to the constant that all normals share."""
        return -0.5 * ((values - self.mean) / self.std) ** 2 - np.log(self.std)


def lira_online(*, statistic: str = "", variance: str = "pooled") -> Attack:
    r"""LiRA (Carlini et al., 2022) with shadows that trained on the person and shadows that did not.

    .. math:: \log \mathcal N(\phi; \mu_{in}, \sigma_{in}) - \log \mathcal N(\phi; \mu_{out}, \sigma_{out})

    Args:
        statistic: ``residual``, :math:`\phi = r`; ``log_error``, :math:`\phi = -\log(r^2 + \epsilon)`; or, of a
            classifier, ``confidence``, :math:`\phi = \log(p_y / (1 - p_y))`, as in the paper. Empty for ``residual``
            of numbers and ``confidence`` of classes.
        variance: ``pooled``, one :math:`\sigma_{in}` and one :math:`\sigma_{out}` for everybody, right for few shadows;
            or ``each``, from at least four shadows of either kind a person.
    """
    fewest = _check_lira(statistic, variance)

    def score(evidence: Evidence):
        shadows = need_shadows(evidence, "lira_online", fewest, inside=True)
        target, others, inside = _statistics(evidence, shadows, _statistic(statistic, evidence))
        within = fit_normal(others, inside, variance).log_density(target)
        return within - fit_normal(others, ~inside, variance).log_density(target)

    return score


def lira_offline(*, statistic: str = "", variance: str = "pooled") -> Attack:
    r"""LiRA with shadows that did not train on the person: how rarely would a model be so right that never saw him?

    For ``log_error`` and ``confidence`` the one-sided :math:`\log \Pr[\mathcal N(\mu_{out}, \sigma_{out}) < \phi]`, as
    in the paper. For ``residual`` a small residual is what gives a member away, on both sides of zero, so the score is

    .. math:: -\log \Pr[|R| < |r|], \qquad R \sim \mathcal N(\mu_{out}, \sigma_{out}).

    Arguments are those of `lira_online`.
    """
    fewest = _check_lira(statistic, variance)

    def score(evidence: Evidence):
        shadows, chosen = need_shadows(evidence, "lira_offline", fewest), _statistic(statistic, evidence)
        target, others, inside = _statistics(evidence, shadows, chosen)
        out = fit_normal(others, ~inside, variance)
        if chosen != "residual":
            return log_ndtr((target - out.mean) / out.std)
        return -log_within(np.maximum(np.abs(target), LOG_EPSILON), out)

    return score


def log_within(bound: np.ndarray, normal: Normal) -> np.ndarray:
    """Log of the chance that a draw lies between ``-bound`` and ``bound``, exact in the far tails too."""
    far = np.abs(normal.mean)
    high, low = (bound - far) / normal.std, (-bound - far) / normal.std
    share = np.exp(np.minimum(log_ndtr(low) - log_ndtr(high), -1e-12))
    return log_ndtr(high) + np.log1p(-share)


def fit_normal(values: np.ndarray, chosen: np.ndarray, variance: str) -> Normal:
    """Mean of each column over the chosen rows; spread of each column, or of all around their own means.

    Args:
        values: ``f64[S, N]``.
        chosen: ``bool[S, N]``, at least one in each column.
        variance: ``pooled`` or ``each``.
    """
    count = chosen.sum(0)
    mean = np.where(chosen, values, 0).sum(0) / count
    squares = np.where(chosen, values - mean, 0) ** 2
    if variance == "each":
        std = np.sqrt(squares.sum(0) / (count - 1))
    else:
        std = np.full(len(mean), np.sqrt(squares.sum() / max((count - 1).sum(), 1)))
    return Normal(mean, np.maximum(std, 1e-6))


STATISTICS: dict[str, Callable] = {
    "residual": lambda r: r,
    "log_error": lambda r: -np.log(r**2 + LOG_EPSILON),
    "confidence": lambda r: -np.log(np.expm1(np.clip(r, LOG_EPSILON, 500))),  # of r = -log p
}


def _statistics(evidence: Evidence, shadows: Shadows, name: str):
    rows, of = evidence.scored, STATISTICS[name]
    others = shadow_residuals(evidence, shadows, rows)
    return of(residuals(evidence, rows)), of(others), shadows.inside[:, rows]


def _statistic(name: str, evidence: Evidence) -> str:
    return name or ("confidence" if evidence.classified else "residual")


def _check_lira(statistic: str, variance: str) -> int:
    """The fewest shadows that a variance needs."""
    fewest = {"pooled": 2, "each": 4}
    if statistic and statistic not in STATISTICS:
        raise ArgumentError("statistic", statistic, f"it must be one of {', '.join(STATISTICS)}")
    if variance not in fewest:
        raise ArgumentError("variance", variance, f"it must be one of {', '.join(fewest)}")
    return fewest[variance]


def rmia(*, offset: float | None = None, sigma: float | None = None, gamma: float = 1.0) -> Attack:
    r"""RMIA (Zarifzadeh et al., 2024), with a likelihood for a regressor: :math:`p(x|f) = \exp(-r^2 / 2\sigma^2)`.

    Of a classifier :math:`p(x|f)` is :math:`p_y`, as in the paper, and there is no :math:`\sigma`.

    .. math:: \Lambda(x) = \frac{p(x|f)}{\tfrac12 ((1 + a)\, p_{out}(x) + (1 - a))}, \qquad
        score = \Pr_z[\Lambda(x) / \Lambda(z) > \gamma]

    over the non-members z that the attacker knows; :math:`p_{out}` is the mean over the shadows that did not train on
    x. Within a step of the share, scores are ordered by :math:`\Lambda(x)` itself.

    Args:
        offset: a; None tries 0, .1, ... 1 on one shadow as the target of the others, and takes the best AUC; with fewer
            than three shadows it is 0.3.
        sigma: in years; None tries the root mean squared residual of the shadows on the z, and a half, a fifth, a tenth
            ... of it, together with the offset; with fewer than three shadows it is that residual.
        gamma: at least 1.
    """
    if gamma < 1:
        raise ArgumentError("gamma", gamma, "it must be at least 1")
    if sigma is not None and sigma <= 0:
        raise ArgumentError("sigma", sigma, "it must be above 0")

    def score(evidence: Evidence):
        shadows, z = need_shadows(evidence, "rmia"), evidence.outsiders
        if not len(z):
            raise MissingEvidence("rmia needs known non-members; this attacker knows none.")
        if not (~shadows.inside[:, z]).any(0).all():
            raise MissingEvidence("rmia needs a shadow model without each known non-member.")
        rows, count = np.concatenate([evidence.scored, z]), len(evidence.scored)
        others = shadow_residuals(evidence, shadows, rows)
        inside = shadows.inside[:, rows]
        rms = np.sqrt((others[:, count:][~inside[:, count:]] ** 2).mean())
        offsets = GRID if offset is None else (offset,)
        sigmas: tuple[float | None, ...] = tuple(rms * part for part in PARTS) if sigma is None else (sigma,)
        sigmas = (None,) if evidence.classified else sigmas
        a, s = tune(others[:, :count], inside[:, :count], offsets, sigmas)
        ratios = ratio(likelihood(residuals(evidence, rows), s), likelihood(others, s), inside, a)
        return dominance(ratios[:count], ratios[count:], gamma)

    return score


def likelihood(residual: np.ndarray, sigma: float | None) -> np.ndarray:
    """A normal's density over its largest value, in (0, 1]; without a sigma the share that a classifier gives."""
    exponent = residual if sigma is None else residual**2 / (2 * sigma**2)
    return np.maximum(np.exp(-exponent), 1e-100)


def ratio(p: np.ndarray, p_shadows: np.ndarray, inside: np.ndarray, offset: float) -> np.ndarray:
    """Lambda of each person: p of the target over that of everybody, the latter guessed from models without him."""
    p_out = np.where(inside, 0, p_shadows).sum(0) / np.maximum((~inside).sum(0), 1)
    return p / (0.5 * ((1 + offset) * p_out + (1 - offset)))


def dominance(ratios: np.ndarray, references: np.ndarray, gamma: float) -> np.ndarray:
    """Share of the references that a ratio exceeds ``gamma``-fold; ties are broken by the ratio, within a step."""
    beaten = np.searchsorted(np.sort(references), ratios / gamma, side="left")
    return (beaten + ratios / (1 + ratios)) / (len(references) + 1)


def tune(residual: np.ndarray, inside: np.ndarray, offsets, sigmas) -> tuple[float, float | None]:
    """Offset and sigma of the best AUC when the first shadow is the target and `others_than` it are its shadows.

    Args:
        residual: ``f64[S, N]``, of the shadows on the scored people, whose part in the shadows is known.
        inside: ``bool[S, N]``.
        offsets, sigmas: to choose from; where there is nothing to try them on, 0.3 if there are several, and the first.
    """
    chosen = others_than(0, inside)
    truth, rest = inside[0], inside[chosen]
    fair = (~rest).any(0)
    if len(rest) < 2 or not truth[fair].any() or truth[fair].all():
        return (0.3 if len(offsets) > 1 else offsets[0]), sigmas[0]
    found = {}
    for s in sigmas:
        p = likelihood(residual[:, fair], s)
        for a in offsets:
            values = ratio(p[0], p[chosen], rest[:, fair], a)
            found[a, s] = auc(values[truth[fair]], values[~truth[fair]])
    return max(found, key=lambda pair: found[pair])


ATTACKS: dict[str, Callable[..., Attack]] = {
    "error_threshold": error_threshold,
    "white_box": white_box,
    "lira_online": lira_online,
    "lira_offline": lira_offline,
    "rmia": rmia,
    "sparsity_aware": sparsity_aware,
}

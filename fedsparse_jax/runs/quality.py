"""How good predictions are and how sure that is: measures with intervals, corrected for the age bias, and site by site.

A quality is a dict, because it is written and read as JSON: measures by name, ``n`` scans of ``people``, the headline
measure of knowing nothing, and ``intervals`` of the measures. Where there is a line to correct with, ``corrected`` has
measures and intervals of the corrected predictions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsparse_jax.core.age_bias import FEWEST, AgeBias, correct_age_bias
from fedsparse_jax.core.files import write_json
from fedsparse_jax.core.tasks import Task
from fedsparse_jax.core.uncertainty import bootstrap_measures
from fedsparse_jax.data.federation import Federation

QUALITY = "quality.json"
BIAS = "bias"
UNKNOWN_SITES = ("", "n/a")
QUANTILES = {"min": 0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1}


def judge_predictions(
    task: Task, predictions, targets, people: Sequence[str], train_targets, bias: AgeBias | None = None
) -> dict[str, Any]:
    """The quality of some predictions.

    Args:
        task: says what is measured.
        predictions: ``[N]``, or logits ``[N, K]``.
        targets: ``[N]``.
        people: ``[N]``, who each example is of.
        train_targets: of the people whose mean, or commonest class, knowing nothing predicts.
        bias: the line of ages to correct with.
    """
    quality = {
        **_with_intervals(task, predictions, targets, people),
        "n": len(targets),
        "people": len(set(people)),
        task.baseline_key: task.baseline(train_targets, targets),
    }
    if bias is None:
        return quality
    corrected = _with_intervals(task, correct_age_bias(bias, predictions, targets), targets, people)
    return {**quality, "corrected": corrected}


def why_no_age_bias(ages: Sequence[float]) -> str:
    """Why a model has no line of the age bias, and what mends that; half a sentence.

    Args:
        ages: of the scans of the run's validation.

    >>> why_no_age_bias([])
    'the run has no validation to learn it from; train anew with --config.data.validation_share=0.2'
    """
    if not len(ages):
        return "the run has no validation to learn it from; train anew with --config.data.validation_share=0.2"
    scans = f"{len(ages)} scan{'s' * (len(ages) > 1)}"
    remedy = "train anew with a larger --config.data.validation_share, or with more people"
    if len(ages) < FEWEST:
        return f"the run's validation has {scans}, and to learn it takes {FEWEST}; {remedy}"
    if np.ptp(ages) == 0:
        return f"the {scans} of the run's validation are all of one age; {remedy}"
    return (
        f"the model predicts what is no number for the {scans} of the run's validation, or the log lacks its round; "
        "evaluate another round (--which)"
    )


def _with_intervals(task: Task, predictions, targets, people) -> dict[str, Any]:
    intervals = bootstrap_measures(task.measure, predictions, targets, people)
    return {
        **task.measure(predictions, targets),
        "intervals": {name: list(interval) for name, interval in intervals.items()},
    }


def judge_sites(task: Task, by_model: Sequence[np.ndarray], targets, sites) -> dict[str, Any]:
    """What is measured at each site, and how the sites differ; empty for fewer than two known sites.

    Args:
        task: says what is measured.
        by_model: predictions ``[N]``, or logits ``[N, K]``, of each model; measures are the mean over the models.
        targets: ``[N]``.
        sites: ``[N]``, names.

    Returns:
        ``sites``: by name ``n``, the headline measure and, of numbers, the ``bias``. For each of these measures its
        minimum, quartiles and maximum over the sites. ``worst``: the site with the worst headline measure.
    """
    targets, sites = np.asarray(targets), np.asarray(sites)
    names = [str(name) for name in np.unique(sites) if name not in UNKNOWN_SITES]
    if len(names) < 2:
        return {}
    of_site = {name: _at_site(task, by_model, targets, np.flatnonzero(sites == name)) for name in names}
    keys = [key for key in of_site[names[0]] if key != "n"]
    values = {key: [one[key] for one in of_site.values()] for key in keys}
    spread = {key: {name: float(np.quantile(values[key], share)) for name, share in QUANTILES.items()} for key in keys}
    worst = (np.argmax if task.lower_is_better else np.argmin)(values[task.headline])
    return {"sites": of_site, **spread, "worst": names[int(worst)]}


def _at_site(task: Task, by_model: Sequence[np.ndarray], targets: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    each = [task.measure(predictions[rows], targets[rows]) for predictions in by_model]
    keys = [key for key in (task.headline, BIAS) if key in each[0]]
    return {"n": len(rows), **{key: float(np.mean([one[key] for one in each])) for key in keys}}


def places_of_sets(data: Federation) -> dict[str, np.ndarray]:
    """Places in the test set of each of several test sets, by name; of everybody as ``test`` where there is one."""
    return data.test_sets or {"test": np.arange(len(data.test))}


def write_quality(
    workdir: Path, data: Federation, task: Task, predictions: np.ndarray, round_: int, bias: AgeBias | None
) -> None:
    """``quality.json``: of each test set, and of all who are tested, by the final global model."""
    targets, people = data.targets[data.test], np.array([data.people[row]["participant_id"] for row in data.test])
    places = {"test": np.arange(len(targets)), **data.test_sets}
    judged = {
        name: judge_predictions(task, predictions[at], targets[at], people[at].tolist(), data.train_targets, bias)
        for name, at in places.items()
    }
    line = bias and bias._asdict()
    write_json(workdir / QUALITY, {"round": round_, "age_bias": line, "sets": _without_nan(judged)})


def _without_nan(value: Any) -> Any:
    """The same with None for what is no finite number, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

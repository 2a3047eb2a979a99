"""What a study measures of a finished run beside its log: whom the model errs on, what it looks at, what it keeps.

Each measure is a function of a `FinishedRun` that returns what JSON can hold; a study names those that it wants
(`grid.Study.measures`). A measure that does not apply to a run returns an empty dictionary.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from fedsparse_jax.communication.mask_codec import pack_bits
from fedsparse_jax.config.scans import list_scans
from fedsparse_jax.core.files import read_tsv
from fedsparse_jax.core.types import Masks, Model, Params, ServerState
from fedsparse_jax.data.phantom.age_signal import age_signal
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.quality import judge_sites
from fedsparse_jax.studies.voxel_ridge import ridge_on_voxels

SAME_YEARS = 1e-3  # gaps that differ by no more are one


class FinishedRun(NamedTuple):
    """A run with everything that a measure may ask for."""

    config: Any  # the ConfigDict that the run was made of
    experiment: Experiment
    server: ServerState  # after the last round
    predictions: np.ndarray  # of the test set by the global model: f32[T], or logits f32[T, K]


Measure = Callable[[FinishedRun], dict[str, Any]]


def _predicts_age(run: FinishedRun) -> bool:
    return run.experiment.task.of_age and not run.experiment.federation.classes


def _predicts_age_of_a_phantom(run: FinishedRun) -> bool:
    return _predicts_age(run) and run.config.data.source == "phantom"


def errors_by_group(run: FinishedRun) -> dict[str, Any]:
    """Scans, mean absolute error and bias of the test set by decade of age and by sex; of ages only, and of groups
    only where there are two.

    Returns:
        ``{"decade": {"60 to 69": {"n", "mae", "bias"}, ...}, "sex": {"F": ..., "M": ...}}``.
    """
    if not _predicts_age(run):
        return {}
    data = run.experiment.federation
    ages, sex_of = data.targets[data.test], _sexes(run)
    groups = {
        "decade": [f"{int(age) // 10 * 10} to {int(age) // 10 * 10 + 9}" for age in ages],
        "sex": [sex_of.get(data.people[row]["participant_id"], "") for row in data.test],
    }
    judge = lambda names: judge_sites(run.experiment.task, [run.predictions], ages, names).get("sites", {})
    return {kind: judge(names) for kind, names in groups.items()}


def _errors(run: FinishedRun) -> np.ndarray:
    """Predicted minus true, ``f32[T]``, of the test set."""
    data = run.experiment.federation
    return run.predictions - data.targets[data.test]


def _sexes(run: FinishedRun) -> dict[str, str]:
    """The sex of each person, by name."""
    listing = list_scans(run.config, Path(run.config.data.cache_dir).expanduser())
    return {scan.participant: scan.sex for scan in listing.scans}


def gap_correlation(run: FinishedRun) -> dict[str, float]:
    """Pearson correlation of the brain-age gap with the phantom's true gap, over the test set.

    The line of the predicted gap over age is taken off before, as is usual: the true gap knows no age.
    """
    if not _predicts_age_of_a_phantom(run):
        return {}
    data, true = run.experiment.federation, _true_gaps(run)
    ages, errors = data.targets[data.test], _errors(run)
    corrected = errors - np.polyval(np.polyfit(ages, errors, 1), ages)
    return _defined("r", stats.pearsonr, corrected, true, least=SAME_YEARS)


def _true_gaps(run: FinishedRun) -> np.ndarray:
    """The phantom's own gap of everybody in the test set, years."""
    data = run.experiment.federation
    listing = list_scans(run.config, Path(run.config.data.cache_dir).expanduser())
    root = next(folder for folder in listing.scans[0].path.parents if (folder / "participants.tsv").exists())
    rows = read_tsv(root / "phenotype" / "latents.tsv")
    true_gaps = {row["participant_id"]: float(row["true_gap"]) for row in rows}
    return np.array([true_gaps[data.people[row]["participant_id"]] for row in data.test])


def simple_predictors(run: FinishedRun) -> dict[str, dict[str, float]]:
    """Measures on the test set of a ridge regression on the voxels of all clients together and, of a phantom, of
    somebody who knows everybody's true brain age: no image tells more.
    """
    data, task = run.experiment.federation, run.experiment.task
    if data.classes:
        return {}
    ridge = ridge_on_voxels(data.inputs, data.targets, np.concatenate(data.members), data.test)
    found = {"ridge": task.measure(ridge, data.targets[data.test])}
    if _predicts_age_of_a_phantom(run):
        ages = data.targets[data.test]
        found["true brain age"] = task.measure(ages + _true_gaps(run), ages)
    return found


def saliency_correlation(run: FinishedRun) -> dict[str, float]:
    """Rank correlation of what the network looks at with where the phantom's age shows, over the voxels of the brain.

    Saliency is the absolute gradient of the prediction by each voxel (Simonyan et al., arXiv 1312.6034), the mean over
    the test set.
    """
    if not _predicts_age_of_a_phantom(run):
        return {}
    data = run.experiment.federation
    signal, brain = age_signal(tuple(run.config.data.shape))
    seen = saliency(run.experiment.model, run.server.params, data.inputs, data.test)
    return _defined("spearman", stats.spearmanr, seen[brain], signal[brain])


def _defined(name: str, correlate: Callable, values, others, least: float = 0.0) -> dict[str, float]:
    """A correlation by its name; nothing where one side varies no more than by ``least``."""
    varies = all(np.ptp(side) > least for side in (values, others))
    return {name: float(correlate(values, others).statistic)} if varies else {}


def saliency(model: Model, params: Params, inputs, rows: np.ndarray, batch_size: int = 8) -> np.ndarray:
    """The mean over some examples of the prediction's absolute gradient, ``f64[*space]``; channels are added up.

    Args:
        model: of a number, and not of classes.
        params: its weights.
        inputs: ``f32[N, *space, channels]``.
        rows: the examples, ``i64[R]``.
        batch_size: examples at a time.
    """
    gradient = jax.grad(lambda examples: model.apply(params, examples).sum())
    by_voxel = jax.jit(lambda examples: jnp.abs(gradient(examples)).sum((0, -1)))
    total = np.zeros(inputs.shape[1:-1])
    for start in range(0, len(rows), batch_size):
        total += np.asarray(by_voxel(jnp.asarray(inputs[rows[start : start + batch_size]])))
    return total / len(rows)


def kept_weights(run: FinishedRun) -> dict[str, str]:
    """The global mask: the bits of all leaves in their order, as text; see `mask_of_text`."""
    return {"bits": text_of_mask(run.server.masks)}


def text_of_mask(masks: Masks) -> str:
    """Masks as text: one bit a weight, in base 64."""
    flat = np.concatenate([np.asarray(leaf, bool).ravel() for leaf in jax.tree.leaves(masks)])
    return base64.b64encode(pack_bits(flat)).decode()


def mask_of_text(text: str) -> np.ndarray:
    """What `text_of_mask` was given, ``bool[W]``, with up to seven zeros behind."""
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(packed, bitorder="little").astype(bool)


MEASURES: dict[str, Measure] = {
    "errors": errors_by_group,
    "gap": gap_correlation,
    "saliency": saliency_correlation,
    "mask": kept_weights,
    "simple": simple_predictors,
}

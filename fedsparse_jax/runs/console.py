"""What a run says in the console: a line a round, the time left, and what went wrong with the masks."""

import math
from typing import Any, NamedTuple

import numpy as np

from fedsparse_jax.core.tasks import Task
from fedsparse_jax.data.roster import client_name
from fedsparse_jax.runs.quality import BIAS, QUANTILES
from fedsparse_jax.runs.records import RoundRecord

_LOOK = "; look at the scans and ages there, or lower client.optimizer.learning_rate"


class Fault(NamedTuple):
    """Why a client did not count."""

    what: str
    remedy: str = ""


ABSENCES = {  # by the reason in the log
    "no_data": Fault("had no scans"),
    "dropped_out": Fault("dropped out"),
    "late": Fault("came too late"),
    "not_a_number": Fault("sent weights that are not numbers", _LOOK),
    "exploded": Fault("had a loss, or weights, beyond all measure (faults.explosion)", _LOOK),
    "refused": Fault("sent what is no message of the round"),
}


def duration(seconds: float) -> str:
    """Time for humans.

    >>> duration(7.4), duration(75), duration(3725)
    ('7 s', '1 min 15 s', '1 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def seconds_left(records: list[RoundRecord], rounds: int) -> float:
    """An estimate from the median of the last rounds: the first one also compiles."""
    recent = [record.seconds for record in records[-5:]]
    return float(np.median(recent)) * (rounds - records[-1].round)


def round_line(record: RoundRecord, task: Task, rounds: int, left: float) -> str:
    """One round as one line; ``left`` are the seconds until the end."""
    width, form = len(str(rounds)), f".{task.digits}f"
    known = "" if math.isnan(record.baseline) else f" ({task.brief} {record.baseline:{form}})"  # a server knows no ages
    parts = [
        f"round {record.round:{width}d}/{rounds}",
        f"sparsity {record.sparsity:.3f} (asked {record.target_sparsity:.3f})",
        f"train loss {record.train_loss:{8 if task.unit else 6}.{2 if task.unit else 3}f}",
        f"test {task.label} {record.test[task.headline]:5{form}}{task.unit}{known}",
    ]
    if record.validation:
        parts.append(f"validation {_measured(record.validation, task)}")
    if task.headline in record.own:
        part = "sites" if task.lower_is_better else "classes"
        parts.append(f"own {part} {record.own[task.headline]:{form}}{task.unit}")
    if record.epsilon is not None:
        parts.append(f"epsilon {record.epsilon:.3g}")
    return "  ".join([*parts, f"{record.seconds:4.1f} s, {duration(left)} left"])


def _measured(measures: dict[str, float | None], task: Task) -> str:
    """The headline measure with its name and unit."""
    value = measures.get(task.headline)
    return f"{task.label} " + ("undefined" if value is None else f"{value:.{task.digits}f}{task.unit}")


def best_line(best: RoundRecord | None, task: Task) -> str:
    """Which round is the best on validation, and how good it is."""
    if best is None:
        return "No round is the best on validation: none that was measured asks for the final sparsity."
    return f"Best on validation: round {best.round}, {_measured(best.validation, task)} (--which=best takes it)."


def early_end_line(best: RoundRecord, last: int, patience: int, task: Task) -> str:
    """Why a run ended before its last round."""
    return (
        f"Training ended after round {last}: no round after {best.round} had a better validation {task.label} than "
        f"{_measured(best.validation, task).removeprefix(task.label).strip()}, and early_stopping.patience is "
        f"{patience}."
    )


def warnings(record: RoundRecord, before: RoundRecord | None) -> list[str]:
    """What went wrong in this round, with clients, or with masks that were whole in the round before, as sentences."""
    told = []
    for reason, clients in record.left_out.items():
        names = ", ".join(map(client_name, clients))
        fault = ABSENCES[reason]
        told.append(f"Warning: {names} {fault.what}, and did not count in round {record.round}{fault.remedy}.")
    if record.void:
        told.append(
            f"Warning: round {record.round} changed nothing, as too few clients were left (faults.min_clients); its "
            "sparsity is that of the round before."
        )
    new = [name for name in record.collapsed if before is None or name not in before.collapsed]
    if new:
        told.append(
            f"Warning: {', '.join(new)} {'keep' if len(new) > 1 else 'keeps'} no weight any more, which cuts the "
            "network; begin pruning later, set pruning.floor, or choose another pruning.scope."
        )
    return told


_SHOWN = {  # label and form of each measure
    "mae": ("MAE", ".2f"),
    "rmse": ("RMSE", ".2f"),
    "r": ("r", ".2f"),
    "r2": ("R2", ".2f"),
    "bias": ("bias", "+.2f"),
    "accuracy": ("accuracy", ".3f"),
    "balanced_accuracy": ("balanced", ".3f"),
    "auc": ("AUC", ".3f"),
}
_WITH_UNIT = ("mae", "rmse", "bias")


def measures_line(measures: dict[str, Any], task: Task) -> str:
    """Measures of a quality (`runs.quality`) as one line, each with its interval where there is one."""
    intervals, shown = measures.get("intervals", {}), []
    for key, (label, form) in _SHOWN.items():
        if key in measures:
            low, high = intervals.get(key, (math.nan, math.nan))
            between = f" ({low:{form}} to {high:{form}})" if math.isfinite(low) else ""
            shown.append(f"{label} {measures[key]:{form}}{task.unit if key in _WITH_UNIT else ''}{between}")
    return ", ".join(shown)


def quality_line(quality: dict[str, Any], task: Task) -> str:
    """A quality (`runs.quality`) as one line."""
    naive = "predicting their own mean" if task.lower_is_better else "naming their commonest class"
    known = f"{task.label} {quality[task.baseline_key]:.{task.digits}f}{task.unit}"
    return f"{measures_line(quality, task)} on {quality['n']} scans ({naive}: {known})"


def sites_line(judged: dict[str, Any], task: Task) -> str:
    """How sites differ (`quality.judge_sites`), as one line."""

    def spread(key: str) -> str:
        label, form = _SHOWN[key]
        low, q25, middle, q75, high = (f"{judged[key][name]:{form}}" for name in QUANTILES)
        return (
            f"{label}{task.unit and f' ({task.unit.strip()})'} from {low} to {high}, quartiles {q25}, {middle}, {q75}"
        )

    worst, keys = judged["worst"], [key for key in (task.headline, BIAS) if key in judged]
    at = judged["sites"][worst]
    return (
        f"{len(judged['sites'])} sites: {'; '.join(map(spread, keys))}; worst {worst} "
        f"({task.label} {at[task.headline]:.{task.digits}f}{task.unit} on {at['n']} scans)"
    )

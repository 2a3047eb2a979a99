"""What a run says in the console: a line a round, the time left, and what went wrong with the masks."""

from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.tasks import Task
from fedsparse_jax.data.roster import client_name
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
    parts = [
        f"round {record.round:{width}d}/{rounds}",
        f"sparsity {record.sparsity:.3f} (asked {record.target_sparsity:.3f})",
        f"train loss {record.train_loss:{8 if task.unit else 6}.{2 if task.unit else 3}f}",
        f"test {task.label} {record.test[task.headline]:5{form}}{task.unit} ({task.brief} {record.baseline:{form}})",
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


def quality_line(quality: dict[str, float], task: Task) -> str:
    """Measures as one line."""
    if not task.lower_is_better:
        return (
            f"accuracy {quality['accuracy']:.3f}, balanced {quality['balanced_accuracy']:.3f}, AUC {quality['auc']:.3f}"
            f" on {quality['n']} scans (naming their commonest class: accuracy {quality[task.baseline_key]:.3f})"
        )
    unit, own_mean = task.unit, quality[task.baseline_key]
    return (
        f"MAE {quality['mae']:.2f}{unit}, RMSE {quality['rmse']:.2f}{unit}, r {quality['r']:.2f}, "
        f"R2 {quality['r2']:.2f} on {quality['n']} scans (predicting their own mean: MAE {own_mean:.2f}{unit})"
    )

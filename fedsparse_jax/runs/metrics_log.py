"""What a human sees of a run: one JSON line and one console line a round, TensorBoard, time left."""

import contextlib
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np

from fedsparse_jax.core.tasks import Task

METRICS = "metrics.jsonl"


def append(workdir: Path, record: dict) -> None:
    """Adds one round to ``metrics.jsonl``."""
    with open(workdir / METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(workdir: Path) -> list[dict]:
    """All rounds of ``metrics.jsonl``, oldest first; a last line that was cut off is left out."""
    path = workdir / METRICS
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def truncate(workdir: Path, last_round: int) -> list[dict]:
    """Drops what was logged after ``last_round``, the round of the checkpoint; returns what stays."""
    kept = [record for record in read(workdir) if record["round"] <= last_round]
    write_text(workdir / METRICS, "".join(json.dumps(record) + "\n" for record in kept))
    return kept


def write_text(path: Path, text: str) -> None:
    """Writes a whole file or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, value) -> None:
    """Writes a whole JSON file or nothing; what JSON does not know is written as text."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def read_json(path: Path):
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def predictions_table(people: list[dict], ages, predictions) -> str:
    """Predictions as TSV: participant_id, session, site, age, predicted_age, error (all ages in years)."""
    lines = ["participant_id\tsession\tsite\tage\tpredicted_age\terror"]
    for person, age, predicted in zip(people, ages, predictions, strict=True):
        who = "\t".join(str(person[key]) or "n/a" for key in ("participant_id", "session", "site"))
        lines.append(f"{who}\t{age:.2f}\t{predicted:.3f}\t{predicted - age:.3f}")
    return "\n".join(lines) + "\n"


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


def round_line(record: dict, task: Task, rounds: int, seconds_left: float) -> str:
    """One round as one line of the console."""
    width, form = len(str(rounds)), f".{task.digits}f"
    own = record.get(f"own_{task.headline}")
    return (
        f"round {record['round']:{width}d}/{rounds}"
        f"  sparsity {record['sparsity']:.3f} (asked {record['target_sparsity']:.3f})"
        f"  train loss {record['train_loss']:{8 if task.unit else 6}.{2 if task.unit else 3}f}"
        f"  test {task.label} {record[f'test_{task.headline}']:5{form}}{task.unit}"
        f" ({task.brief} {record[task.baseline_key]:{form}})"
        + (f"  own classes {own:{form}}" if own is not None else "")
        + (f"  epsilon {record['epsilon']:.3g}" if "epsilon" in record else "")
        + f"  {record['seconds']:4.1f} s, {duration(seconds_left)} left"
    )


def warnings(record: dict, before: dict) -> list[str]:
    """What went wrong with the masks in this round and had not in the round before, as sentences."""
    new = [name for name in record["collapsed"] if name not in before.get("collapsed", ())]
    if not new:
        return []
    return [
        f"Warning: {', '.join(new)} {'keep' if len(new) > 1 else 'keeps'} no weight any more, which cuts the network; "
        "begin pruning later, set pruning.floor, or choose another pruning.scope."
    ]


def classes_table(people: list[dict], labels, logits) -> str:
    """Predictions as TSV: participant_id, label, predicted_label, probability of the predicted one."""
    lines = ["participant_id\tlabel\tpredicted_label\tprobability"]
    z = np.asarray(logits, np.float64)
    shares = np.exp(z - z.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    for person, label, share in zip(people, labels, shares, strict=True):
        lines.append(f"{person['participant_id']}\t{int(label)}\t{share.argmax()}\t{share.max():.4f}")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def tensorboard(workdir: Path, records: list[dict]):
    """A function that adds a round to ``workdir/tensorboard``; starts by writing the rounds there are, anew."""
    from tensorboardX import SummaryWriter

    shutil.rmtree(workdir / "tensorboard", ignore_errors=True)
    with SummaryWriter(str(workdir / "tensorboard")) as writer:

        def add(record: dict) -> None:
            for name, value in scalars(record).items():
                writer.add_scalar(name, value, record["round"])
            writer.flush()

        for record in records:
            add(record)
        yield add


def quality_line(quality: dict) -> str:
    """Error measures as one line."""
    return (
        f"MAE {quality['mae']:.2f} y, RMSE {quality['rmse']:.2f} y, r {quality['r']:.2f}, R2 {quality['r2']:.2f}"
        f" on {quality['n']} scans (predicting their own mean: MAE {quality['predict_mean_mae']:.2f} y)"
    )


def scalars(record: dict, prefix: str = "") -> dict[str, float]:
    """The finite numbers of a record, nested ones as ``outer/inner``."""
    flat: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat.update(scalars(value, f"{prefix}{name}/"))
        elif isinstance(value, (int, float)) and math.isfinite(value):
            flat[prefix + name] = value
    return flat

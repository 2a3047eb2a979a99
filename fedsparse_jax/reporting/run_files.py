"""The files of a run folder, parsed for the report; a missing or damaged file is empty and hides no other."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json, read_npz, read_tsv
from fedsparse_jax.core.tasks import AGE, TASKS, Task, classification_measures, task_for
from fedsparse_jax.runs.evaluation import PREDICTED
from fedsparse_jax.runs.metrics_log import METRICS, read_records
from fedsparse_jax.runs.quality import QUALITY
from fedsparse_jax.runs.records import RoundRecord
from fedsparse_jax.runs.series import as_number, dense_exchanged, exchanged


class RunFiles(NamedTuple):
    """The files of a run folder, parsed; what is missing is empty."""

    workdir: Path
    records: list[RoundRecord]
    config: dict
    environment: dict
    federation: dict
    predictions: dict[str, np.ndarray]  # the truth and what was predicted, f64[N] each, and participant_id
    slices: dict[str, np.ndarray]  # volumes f32[K, X, Y, Z], or images f32[K, H, W], and targets f32[K]
    attack: dict  # of an audit, by kind of threat
    quality: dict = {}  # of the final model, see `runs.quality`  # noqa: RUF012

    @property
    def task(self) -> Task:
        """What was predicted; runs of before there was a choice are regressions."""
        name, data = str(self.config.get("task")), self.config.get("data", {})
        return task_for(name if name in TASKS else "regression", data.get("label", AGE), data.get("unit", ""))

    @property
    def classified(self) -> bool:
        """Whether the targets are classes."""
        return self.task.measure is classification_measures

    @property
    def class_names(self) -> list[str]:
        """What the classes are called; by their numbers where they have no names."""
        return self.federation.get("class_names") or [str(k) for k in range(self.federation.get("classes", 0))]

    @property
    def method(self) -> str:
        """The label of the method."""
        return str(self.federation.get("method") or self.config.get("method") or "run")

    @property
    def headline(self) -> float:
        """The headline measure of the last round."""
        return as_number(self.records[-1].test.get(self.task.headline))

    @property
    def validated(self) -> bool:
        """Whether the models were measured on validation."""
        return any(record.validation for record in self.records)

    @property
    def dense_total(self) -> float:
        """Bytes, or weights, that dense FedAvg exchanges in the same rounds; 0 if the size of the model is unknown."""
        if not self.federation:
            return 0.0
        clients, weights = len(self.federation["clients"]), self.federation["total_weights"]
        total = float(dense_exchanged(self.records, weights, clients)[-1])
        return 4 * total if exchanged(self.records)[1] == "bytes" else total


def read_run_files(workdir: Path) -> RunFiles:
    """Reads a run folder.

    Raises:
        UsageError: the folder holds no round.
    """
    records = read_records(workdir)
    if not records:
        raise UsageError(f"{workdir} holds no finished round (no {METRICS}); train at least one round first.")
    federation = _read_object(workdir / "federation.json")
    return RunFiles(
        workdir,
        records,
        _read_object(workdir / "config.json").get("config", {}),
        _read_object(workdir / "environment.json"),
        federation,
        _read_predictions(workdir / "predictions.tsv", federation.get("class_names") or ()),
        _read_slices(workdir / "slices.npz"),
        _read_object(workdir / "attack.json"),
        _read_object(workdir / QUALITY),
    )


def _read_object(path: Path) -> dict:
    """The file's object; empty where it is missing or damaged, so that the rest can still be shown."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def _read_predictions(path: Path, classes: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The columns of the predictions whose target and prediction are numbers, or classes; empty if there are none."""
    rows = read_tsv(path)
    predicted = next((name for name in rows[0] if name.startswith(PREDICTED)), "") if rows else ""
    names = predicted.removeprefix(PREDICTED), predicted
    number = lambda text: classes.index(text) if text in classes else as_number(text)
    pairs = [[number(row.get(name)) for name in names] for row in rows]
    good = [i for i, pair in enumerate(pairs) if np.isfinite(pair).all()]
    if not good:
        return {}
    truth, predicted = np.array([pairs[i] for i in good]).T
    people = np.array([rows[i].get("participant_id") or "" for i in good])
    return {"truth": truth, "predicted": predicted, "participant_id": people}


def _read_slices(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = read_npz(path)
    except (OSError, UsageError):
        return {}
    if "ages" in arrays:  # the name of before there were classes
        arrays["targets"] = arrays.pop("ages")
    return arrays if len(arrays.get("volumes", ())) else {}

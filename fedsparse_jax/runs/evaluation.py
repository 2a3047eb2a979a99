"""How good a model is on the central test set, and the tables of what it predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import softmax

from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.files import tsv_text, write_whole
from fedsparse_jax.core.types import Params, ServerState
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.loading import predict_batches
from fedsparse_jax.runs.round import Runner


class Evaluation(NamedTuple):
    """Measures by name; None stands for what is undefined."""

    test: dict[str, float | None]  # on the test set; where clients have masks of their own, the mean over their models
    own: dict[str, float]  # with classes: the headline measure on the classes of each client, by its own model


def evaluate_server(runner: Runner, server: ServerState) -> Evaluation:
    """Measures of the global model, or of every client's own one, on the test set."""
    data, task = runner.experiment.federation, runner.experiment.task
    targets, num_clients = data.targets[data.test], len(data.members)
    if server.memory.masks is None:
        shared = predict_test(runner, server.params)
        measures = task.measure(shared, targets)
        by_client = [shared] * num_clients
    else:
        own_masks = [tree.gather(server.memory.masks, i) for i in range(num_clients)]
        by_client = [predict_test(runner, masks.apply(mask, server.params)) for mask in own_masks]
        each = [task.measure(predictions, targets) for predictions in by_client]
        measures = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    test = {name: value if np.isfinite(value) else None for name, value in measures.items()}
    return Evaluation(test, _on_own_classes(runner, by_client) if data.classes else {})


def _on_own_classes(runner: Runner, by_client: list[np.ndarray]) -> dict[str, float]:
    """The headline measure on test examples of the client's own classes, the mean over the clients that have some."""
    data, task = runner.experiment.federation, runner.experiment.task
    values, targets = [], data.targets[data.test]
    for client, predictions in enumerate(by_client):
        rows = data.test_of_own_classes(client)
        if len(rows):
            values.append(task.measure(predictions[rows], targets[rows])[task.headline])
    return {task.headline: float(np.mean(values))}


def predict_test(runner: Runner, params: Params) -> np.ndarray:
    """Predictions ``f32[N]``, or logits ``f32[N, K]``, for the test set."""
    params = jax.device_put(params, jax.devices()[0])  # one device predicts, however many train
    rows, batch_size = runner.experiment.federation.test, runner.experiment.execution.eval_batch
    return predict_batches(runner.apply, params, runner.read, rows, batch_size)


def write_predictions(data: Federation, predictions: np.ndarray, workdir: Path) -> None:
    """``predictions.tsv`` of the test set, by the global model, and a few test examples for the report."""
    people, targets = [data.people[i] for i in data.test], data.targets[data.test]
    table = classes_table if data.classes else ages_table
    write_whole(workdir / "predictions.tsv", table(people, targets, predictions))
    shown = min(10 if data.classes else 5, len(targets))
    chosen = np.argsort(targets, kind="stable")[np.linspace(0, len(targets) - 1, shown).round().astype(int)]
    np.savez(workdir / "slices.npz", volumes=data.inputs[data.test[chosen], ..., 0], targets=targets[chosen])


def ages_table(people: list[dict], ages: np.ndarray, predictions: np.ndarray, sets: Sequence[str] = ()) -> str:
    """Predictions as TSV: participant_id, session, site, age, predicted_age, error (all ages in years).

    With ``sets`` there is a last column, set: the run's client who was trained on the person, or its test set.
    """
    rows: list[tuple] = [
        (
            *(str(person[key]) for key in ("participant_id", "session", "site")),
            f"{age:.2f}",
            f"{predicted:.3f}",
            f"{predicted - age:.3f}",
        )
        for person, age, predicted in zip(people, ages, predictions, strict=True)
    ]
    head: tuple[str, ...] = ("participant_id", "session", "site", "age", "predicted_age", "error")
    if sets:
        head, rows = (*head, "set"), [(*row, name) for row, name in zip(rows, sets, strict=True)]
    return tsv_text(head, rows)


def classes_table(people: list[dict], labels: np.ndarray, logits: np.ndarray) -> str:
    """Predictions as TSV: participant_id, label, predicted_label, probability of the predicted one."""
    rows = [
        (person["participant_id"], int(label), shares.argmax(), f"{shares.max():.4f}")
        for person, label, shares in zip(people, labels, softmax(np.asarray(logits, np.float64), -1), strict=True)
    ]
    return tsv_text(("participant_id", "label", "predicted_label", "probability"), rows)

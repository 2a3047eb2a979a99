"""How good a model is on the central test set and on validation, and the tables of what it predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import softmax

from fedsparse_jax.core.files import tsv_text, write_whole
from fedsparse_jax.core.tasks import REGRESSION, Task
from fedsparse_jax.core.types import Params, ServerState
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.loading import predict_batches
from fedsparse_jax.data.roster import VALIDATION, client_name
from fedsparse_jax.federated.personal import has_own_models, model_of_client
from fedsparse_jax.runs.round import Runner

VALIDATION_PREDICTIONS = "validation_predictions.tsv"
PREDICTED = "predicted_"  # before the name of a column of truths


class Evaluation(NamedTuple):
    """Measures by name; None stands for what is undefined."""

    test: dict[str, float | None]  # on the test set; where clients have models of their own, the mean over these
    own: dict[str, float]  # the headline measure on each client's own classes, or sites, by its own model
    validation: dict[str, float | None] = {}  # as test, on all who validate; empty where nobody does  # noqa: RUF012


def evaluate_server(runner: Runner, server: ServerState) -> Evaluation:
    """Measures of the global model, or of every client's own one, on the test set and on validation."""
    data, task = runner.experiment.federation, runner.experiment.task
    num_clients = len(data.members)
    models = [model_of_client(server, i) for i in range(num_clients)] if has_own_models(server) else [server.params]
    by_model = [predict_test(runner, params) for params in models]
    by_client = by_model if len(by_model) == num_clients else by_model * num_clients
    test = _mean_measures([_measure_sets(data, task, predictions) for predictions in by_model])
    own = _on_own_part(runner, by_client) if data.classes or server.memory.params is not None else {}
    rows = data.validation_rows
    if not len(rows):
        return Evaluation(test, own)
    if server.memory.params is not None:  # whom a client validates on, its own model predicts
        by_own = [predict_rows(runner, *pair) for pair in zip(models, data.validation, strict=True) if len(pair[1])]
        return Evaluation(test, own, _mean_measures([task.measure(np.concatenate(by_own), data.targets[rows])]))
    each = [task.measure(predict_rows(runner, params, rows), data.targets[rows]) for params in models]
    return Evaluation(test, own, _mean_measures(each))


def _mean_measures(each: list[dict[str, float]]) -> dict[str, float | None]:
    """The mean of each measure over the models; None where it is undefined."""
    means = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    return {name: value if np.isfinite(value) else None for name, value in means.items()}


def _measure_sets(data: Federation, task: Task, predictions: np.ndarray) -> dict[str, float]:
    """Measures on all who are tested and, where the data have several test sets of their own, on each of these."""
    targets = data.targets[data.test]
    measures = dict(task.measure(predictions, targets))
    for name, places in data.test_sets.items():
        of_set = task.measure(predictions[places], targets[places])
        measures |= {f"{name}_{key}": value for key, value in of_set.items()}
    return measures


def _on_own_part(runner: Runner, by_client: list[np.ndarray]) -> dict[str, float]:
    """The headline measure on test examples of the client's own classes, or else of its sites, the mean over the
    clients that have some; empty where none has.
    """
    data, task = runner.experiment.federation, runner.experiment.task
    values, targets = [], data.targets[data.test]
    for client, predictions in enumerate(by_client):
        rows = data.test_of_own_classes(client) if data.classes else data.test_of_own_sites(client)
        if len(rows):
            values.append(task.measure(predictions[rows], targets[rows])[task.headline])
    return {task.headline: float(np.mean(values))} if values else {}


def predict_as_server(runner: Runner, server: ServerState, rows: np.ndarray) -> np.ndarray:
    """What a stranger is predicted: by the global model or, where leaves stay with the clients, by the mean of all."""
    models = models_for_strangers(server, len(runner.experiment.federation.members))
    return np.mean([predict_rows(runner, params, rows) for params in models], 0)


def models_for_strangers(server: ServerState, num_clients: int) -> list[Params]:
    """The models whose mean predicts who is of no client: the global one, if there is a whole one."""
    if server.memory.params is None:
        return [server.params]
    return [model_of_client(server, i) for i in range(num_clients)]


def predict_test(runner: Runner, params: Params) -> np.ndarray:
    """Predictions ``f32[N]``, or logits ``f32[N, K]``, for the test set."""
    return predict_rows(runner, params, runner.experiment.federation.test)


def predict_rows(runner: Runner, params: Params, rows: np.ndarray) -> np.ndarray:
    """Predictions ``f32[N]``, or logits ``f32[N, K]``, for the examples ``rows [N]`` of the federation."""
    params = jax.device_put(params, jax.devices()[0])  # one device predicts, however many train
    return predict_batches(runner.apply, params, runner.read, rows, runner.experiment.execution.eval_batch)


def write_predictions(data: Federation, predictions: np.ndarray, workdir: Path, task: Task = REGRESSION) -> None:
    """``predictions.tsv`` of the test set, by the global model, and a few test examples for the report."""
    people, targets = [data.people[i] for i in data.test], data.targets[data.test]
    write_whole(workdir / "predictions.tsv", predictions_table(people, targets, predictions, task, data.class_names))
    shown = min(10 if data.classes else 5, len(targets))
    chosen = np.argsort(targets, kind="stable")[np.linspace(0, len(targets) - 1, shown).round().astype(int)]
    np.savez(workdir / "slices.npz", volumes=data.inputs[data.test[chosen], ..., 0], targets=targets[chosen])


def write_validation_predictions(runner: Runner, server: ServerState, workdir: Path) -> None:
    """``validation_predictions.tsv`` of all who validate, with their set; no file where nobody does."""
    data, task = runner.experiment.federation, runner.experiment.task
    rows = data.validation_rows
    if not len(rows):
        return
    sets = [client_name(i) + VALIDATION for i, of_client in enumerate(data.validation) for _ in of_client]
    people, targets = [data.people[i] for i in rows], data.targets[rows]
    predictions = predict_as_server(runner, server, rows)
    table = predictions_table(people, targets, predictions, task, data.class_names, sets)
    write_whole(workdir / VALIDATION_PREDICTIONS, table)


def predictions_table(
    people: list[dict],
    targets,
    predictions,
    task: Task = REGRESSION,
    class_names: Sequence[str] = (),
    sets: Sequence[str] = (),
) -> str:
    """Predictions as TSV: participant_id, session and site, then what depends on the task, then set.

    Of a number there are target, prediction and error, such as age, predicted_age, error; of a class the label, the
    predicted label and its probability.

    Args:
        people: one row an example.
        targets: ``[N]``; NaN where it is not known, whose cells are empty.
        predictions: ``[N]``, or logits ``[N, K]``.
        task: what was predicted.
        class_names: what the classes are called; empty for their numbers, and images without people.
        sets: of each example, the run's client who was trained on the person, or its test set; empty for no column.
    """
    head: tuple[str, ...] = ("participant_id",)
    if class_names or not _classified(predictions):
        head = (*head, "session", "site")
    rows = [[str(person[key]) for key in head] for person in people]
    columns: tuple[str, ...]
    if _classified(predictions):
        columns, cells = ("label", f"{PREDICTED}label", "probability"), _class_cells(targets, predictions, class_names)
    else:
        columns, cells = (task.target, f"{PREDICTED}{task.target}", "error"), _number_cells(targets, predictions)
    rows = [[*row, *more] for row, more in zip(rows, cells, strict=True)]
    if sets:
        columns, rows = (*columns, "set"), [[*row, name] for row, name in zip(rows, sets, strict=True)]
    return tsv_text((*head, *columns), rows)


def _classified(predictions) -> bool:
    return np.ndim(predictions) == 2


def _number_cells(targets, predictions) -> list[tuple[str, str, str]]:
    known = [not np.isnan(target) for target in targets]
    return [
        (f"{target:.2f}" if there else "", f"{predicted:.3f}", f"{predicted - target:.3f}" if there else "")
        for target, predicted, there in zip(targets, predictions, known, strict=True)
    ]


def _class_cells(labels, logits, class_names: Sequence[str]) -> list[tuple[str, str, str]]:
    name = lambda label: "" if np.isnan(label) else class_names[int(label)] if class_names else str(int(label))
    return [
        (name(label), name(shares.argmax()), f"{shares.max():.4f}")
        for label, shares in zip(labels, softmax(np.asarray(logits, np.float64), -1), strict=True)
    ]

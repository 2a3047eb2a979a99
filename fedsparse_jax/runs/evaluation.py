"""How good a model is on the central test set and on validation, by client and site, and tables of predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import softmax

from fedsparse_jax.core.age_bias import AgeBias, correct_age_bias, fit_age_bias
from fedsparse_jax.core.files import tsv_text, write_whole
from fedsparse_jax.core.tasks import REGRESSION, Task
from fedsparse_jax.core.types import Params, ServerState
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.loading import predict_batches
from fedsparse_jax.data.roster import VALIDATION, client_name
from fedsparse_jax.federated.personal import has_own_models, model_of_client
from fedsparse_jax.runs.quality import judge_sites, places_of_sets
from fedsparse_jax.runs.round import Runner

VALIDATION_PREDICTIONS = "validation_predictions.tsv"
PREDICTED = "predicted_"  # before the name of a column of truths
CORRECTED = "corrected_error"


class Evaluation(NamedTuple):
    """Measures by name; None stands for what is undefined."""

    test: dict[str, float | None]  # on the test set; where clients have models of their own, the mean over these
    own: dict[str, float]  # the headline measure on each client's own classes, or sites, by its own model
    validation: dict[str, float | None] = {}  # as test, on all who validate; empty where nobody does  # noqa: RUF012
    sites: dict[str, dict] = {}  # of each test set, see `quality.judge_sites`; empty without sites  # noqa: RUF012
    clients: dict[str, float] = {}  # the headline measure on each client's own validation, by its name  # noqa: RUF012
    age_bias: AgeBias | None = None  # of the global model, on validation


def evaluate_server(runner: Runner, server: ServerState) -> Evaluation:
    """Measures of the global model, or of every client's own one, on the test set and on validation."""
    data, task = runner.experiment.federation, runner.experiment.task
    num_clients = len(data.members)
    models = [model_of_client(server, i) for i in range(num_clients)] if has_own_models(server) else [server.params]
    by_model = [predict_test(runner, params) for params in models]
    of_clients = lambda each: each if len(each) == num_clients else each * num_clients
    test = _mean_measures([_measure_sets(data, task, predictions) for predictions in by_model])
    personal = server.memory.params is not None
    own = _on_own_part(runner, of_clients(by_model)) if data.classes or personal else {}
    measured = Evaluation(test, own, sites=_by_site(data, task, by_model))
    rows = data.validation_rows
    if not len(rows):
        return measured
    validated = [predict_rows(runner, params, rows) for params in models]
    by_global = validated[0] if len(models) == 1 else predict_as_server(runner, server, rows)
    judged = [np.concatenate(_by_own_clients(data, validated))] if personal else validated
    return measured._replace(
        validation=_mean_measures([task.measure(predictions, data.targets[rows]) for predictions in judged]),
        clients=_on_own_validation(data, task, of_clients(validated)),
        age_bias=age_bias_of(data, task, by_global),
    )


def age_bias_of(data: Federation, task: Task, predictions: np.ndarray) -> AgeBias | None:
    """The line through predictions of all who validate; None of what is no age, and where they are too few."""
    return fit_age_bias(predictions, data.targets[data.validation_rows]) if task.of_age and not data.classes else None


def _by_site(data: Federation, task: Task, by_model: list[np.ndarray]) -> dict[str, dict]:
    """How the sites of each test set do; sets of fewer than two sites are left out."""
    targets, sites = data.targets[data.test], np.array([data.people[row].get("site", "") for row in data.test])
    judged = {
        name: judge_sites(task, [predictions[at] for predictions in by_model], targets[at], sites[at])
        for name, at in places_of_sets(data).items()
    }
    return {name: of_set for name, of_set in judged.items() if of_set}


def _by_own_clients(data: Federation, by_client: list[np.ndarray]) -> list[np.ndarray]:
    """What those who validate at each client are predicted by its model, of predictions of all who validate."""
    ends = np.cumsum([len(rows) for rows in data.validation])
    return [own[end - len(rows) : end] for own, rows, end in zip(by_client, data.validation, ends, strict=True)]


def _on_own_validation(data: Federation, task: Task, by_client: list[np.ndarray]) -> dict[str, float]:
    """The headline measure on who validates the client's model, by that model; clients without anybody are left out."""
    own = zip(_by_own_clients(data, by_client), data.validation, strict=True)
    measured = {
        client_name(i): task.measure(predictions, data.targets[rows])[task.headline]
        for i, (predictions, rows) in enumerate(own)
        if len(rows)
    }
    return {name: value for name, value in measured.items() if np.isfinite(value)}


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
    clients that have some; empty where none has. Clients alike, in model and in examples, are measured once.
    """
    data, task = runner.experiment.federation, runner.experiment.task
    targets, measured = data.targets[data.test], dict[tuple[int, int], float]()
    parts = [one for one in zip(by_client, runner.own_tests, strict=True) if len(one[1])]
    for predictions, places in parts:
        if (id(predictions), id(places)) not in measured:
            measures = task.measure(predictions[places], targets[places])
            measured[id(predictions), id(places)] = measures[task.headline]
    values = [measured[id(predictions), id(places)] for predictions, places in parts]
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
    params = jax.device_put(params, jax.local_devices()[0])  # one device predicts, however many train
    return predict_batches(runner.apply, params, runner.read, rows, runner.experiment.execution.eval_batch)


def write_predictions(
    data: Federation, predictions: np.ndarray, workdir: Path, task: Task = REGRESSION, bias: AgeBias | None = None
) -> None:
    """``predictions.tsv`` of the test set, by the global model, and a few test examples for the report."""
    people, targets = [data.people[i] for i in data.test], data.targets[data.test]
    table = predictions_table(people, targets, predictions, task, data.class_names, bias=bias)
    write_whole(workdir / "predictions.tsv", table)
    shown = min(10 if data.classes else 5, len(targets))
    chosen = np.argsort(targets, kind="stable")[np.linspace(0, len(targets) - 1, shown).round().astype(int)]
    np.savez(workdir / "slices.npz", volumes=data.inputs[data.test[chosen], ..., 0], targets=targets[chosen])


def write_validation_predictions(runner: Runner, server: ServerState, workdir: Path) -> AgeBias | None:
    """``validation_predictions.tsv`` of all who validate, with their set, and the line through them; no file where
    nobody does.
    """
    data, task = runner.experiment.federation, runner.experiment.task
    rows = data.validation_rows
    if not len(rows):
        return None
    sets = [client_name(i) + VALIDATION for i, of_client in enumerate(data.validation) for _ in of_client]
    people, targets = [data.people[i] for i in rows], data.targets[rows]
    predictions = predict_as_server(runner, server, rows)
    table = predictions_table(people, targets, predictions, task, data.class_names, sets)
    write_whole(workdir / VALIDATION_PREDICTIONS, table)
    return age_bias_of(data, task, predictions)


def predictions_table(
    people: list[dict],
    targets,
    predictions,
    task: Task = REGRESSION,
    class_names: Sequence[str] = (),
    sets: Sequence[str] = (),
    bias: AgeBias | None = None,
) -> str:
    """Predictions as TSV: participant_id, session and site, then what depends on the task, then set.

    Of a number there are target, prediction and error, such as age, predicted_age, error; of a class the label, the
    predicted label and its probability. The error of an age is the brain-age gap.

    Args:
        people: one row an example.
        targets: ``[N]``; NaN where it is not known, whose cells are empty.
        predictions: ``[N]``, or logits ``[N, K]``.
        task: what was predicted.
        class_names: what the classes are called; empty for their numbers, and images without people.
        sets: of each example, the run's client who was trained on the person, or its test set; empty for no column.
        bias: of ages, for a column ``corrected_error``, the gap without its age bias; None for no column.
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
    if bias is not None:
        gaps = correct_age_bias(bias, predictions, targets) - np.asarray(targets)
        columns = (*columns, CORRECTED)
        rows = [[*row, "" if np.isnan(gap) else f"{gap:.3f}"] for row, gap in zip(rows, gaps, strict=True)]
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

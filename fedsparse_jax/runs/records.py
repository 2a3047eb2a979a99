"""The record of a round: one line of ``metrics.jsonl``, typed. Everybody who reads the log reads it from here."""

import dataclasses
from typing import Annotated, Any, get_type_hints

import jax
import numpy as np

from fedsparse_jax.communication.transport import Traffic
from fedsparse_jax.core import tree
from fedsparse_jax.core.tasks import TASKS
from fedsparse_jax.core.types import Absence
from fedsparse_jax.data.roster import client_name
from fedsparse_jax.federated.privacy_accounting import most_rounds
from fedsparse_jax.models.flops import flops_per_example
from fedsparse_jax.runs.evaluation import Evaluation
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.round import RoundResult, mean_loss

NAN = float("nan")
SAME_SPARSITY = 1e-6  # of float32
UNSENT = tuple(  # nothing arrived
    one.name.lower() for one in (Absence.NO_DATA, Absence.DROPPED_OUT, Absence.LATE, Absence.REFUSED)
)
SICK = (Absence.NOT_A_NUMBER.name.lower(), Absence.EXPLODED.name.lower())  # reasons that a model has diverged
BASELINES = tuple(task.baseline_key for task in TASKS.values())
BY_KEY = ("test", "own", "validation", "leakage", "baseline")  # fields whose keys are spread over the line
LEFT_OUT_IF_EMPTY = ("clients", "sites", "age_bias", "left_out", "void", "may_be_best")
LEAKAGE = ("train_mae", "train_nll", "membership_auc_")  # beginnings of the keys that share a field


@dataclasses.dataclass(frozen=True, eq=False)
class RoundRecord:
    """What is known of a finished round. A key that does not apply is left out of the line."""

    round: Annotated[int, "number of the round, from 1"]
    target_sparsity: Annotated[float, "sparsity that the schedule asks for, as a share of all weights"] = NAN
    sparsity: Annotated[float, "share of zeros in the global model"] = NAN
    train_loss: Annotated[float, "mean loss of the clients' examples during their local training"] = NAN
    test: Annotated[
        dict[str, float | None],
        "`test_MEASURE`: on the central test set; `mae`, `rmse`, `bias` (in years, or the label's unit), `r`, `r2`, or "
        "`accuracy`, `balanced_accuracy`, `f1`, `auc`, `nll`; null where it is undefined; of several test sets "
        "`test_SET_MEASURE`, too",
    ] = dataclasses.field(default_factory=dict)
    own: Annotated[
        dict[str, float],
        "`own_accuracy`: on test examples of a client's own classes, by the model it would use; mean over clients; "
        "with `client.personal`, of numbers, `own_mae` on those of its own sites",
    ] = dataclasses.field(default_factory=dict)
    validation: Annotated[
        dict[str, float | None],
        "`validation_MEASURE`: the same measures on the people of all clients on whom models are chosen "
        "(`data.validation_share`)",
    ] = dataclasses.field(default_factory=dict)
    clients: Annotated[
        dict[str, dict[str, float]],
        "by client, such as `L1`: `examples` that its local steps went through, its mean `loss` on them, and the "
        "headline measure of the new model on its own validation (`validation_mae`)",
    ] = dataclasses.field(default_factory=dict)
    sites: Annotated[
        dict[str, dict[str, Any]],
        "by test set (`test` where there is one): of all `sites` the number of scans, the headline measure and the "
        "`bias`; minimum, quartiles and maximum of these measures over the sites; the `worst` site",
    ] = dataclasses.field(default_factory=dict)
    age_bias: Annotated[
        dict[str, Any],
        "the line of the global model's predicted age over the true one, on validation: `slope`, `offset` in years, "
        "number of `scans`",
    ] = dataclasses.field(default_factory=dict)
    may_be_best: Annotated[
        bool,
        "true where the round was measured on validation and asks for the final sparsity: the best is one of these",
    ] = False
    leakage: Annotated[
        dict[str, float],
        "`train_mae` or, of a classifier, `train_nll`, and `membership_auc_ATTACK`: how well an outsider tells members "
        "from others (`log.audit_every`)",
    ] = dataclasses.field(default_factory=dict)
    baseline: Annotated[
        float, "`predict_mean_mae` or `commonest_class_accuracy`: the headline measure of knowing nothing"
    ] = NAN
    params_up: Annotated[float, "non-zero weights, and scores, that all clients sent"] = NAN
    params_down: Annotated[float, "non-zero weights that were sent to all clients"] = NAN
    params_up_total: Annotated[float, "the same since round 1"] = NAN
    params_down_total: Annotated[float, "the same since round 1"] = NAN
    bytes_down: Annotated[list[int] | None, "length of the message to each client, in the order of `cohort`"] = None
    bytes_down_total: Annotated[float, "their sum since round 1"] = NAN
    bytes_up: Annotated[list[int] | None, "length of the message from each client"] = None
    bytes_up_total: Annotated[float, "their sum since round 1"] = NAN
    agreement: Annotated[float, "Jaccard overlap of the clients' masks, pooled over all pairs"] = NAN
    vote_margin: Annotated[
        float,
        "how clear the clients' votes on the masks are: how many more keep a weight than drop it, or drop than keep, "
        "as a share of the voters; the mean over the weights that anybody keeps",
    ] = NAN
    drift: Annotated[float, "weights whose mask changed in this round"] = NAN
    flops: Annotated[float | None, "floating-point operations of one prediction, on kept weights"] = None
    finite: Annotated[bool, "whether every weight is a number"] = True
    client_rate_factor: Annotated[
        float, "what the clients' learning rate was multiplied by (`client.learning_rate_schedule`)"
    ] = NAN
    server_rate_factor: Annotated[
        float, "what the server's learning rate was multiplied by (`server.learning_rate_schedule`)"
    ] = NAN
    padding: Annotated[float, "share of the computed local steps that no client needed"] = NAN
    cohort: Annotated[list[int], "the clients that took part"] = dataclasses.field(default_factory=list)
    left_out: Annotated[
        dict[str, list[int]],
        "those of them that did not count, by the reason: `no_data`, `dropped_out`, `late`, `not_a_number` (NaN or "
        "infinity), `exploded` (loss or weights), `refused` (no message of the round, where sites are real)",
    ] = dataclasses.field(default_factory=dict)
    void: Annotated[bool, "true where too few clients were left, so that the round changed nothing"] = False
    epsilon: Annotated[float | None, "of the busiest client's data, where training is differentially private"] = None
    density: Annotated[dict[str, float], "share of weights kept, by leaf"] = dataclasses.field(default_factory=dict)
    dead_channels: Annotated[dict[str, int], "output channels without a kept weight, by kernel"] = dataclasses.field(
        default_factory=dict
    )
    collapsed: Annotated[list[str], "kernels without any kept weight"] = dataclasses.field(default_factory=list)
    seconds: Annotated[float, "wall time since the round before"] = NAN

    def __eq__(self, other: object) -> bool:
        """Whether the lines are the same. NaN, which marks what is missing, would equal nothing."""
        return isinstance(other, RoundRecord) and self.to_json() == other.to_json()

    def to_json(self) -> dict[str, Any]:
        """The line's object, in the order of the fields."""
        entry: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("test", "own", "validation"):
                entry |= {f"{field.name}_{name}": number for name, number in value.items()}
            elif field.name == "leakage":
                entry |= value
            elif field.name == "baseline":
                keys = [task.baseline_key for task in TASKS.values() if task.headline in self.test]
                entry |= {key: value for key in keys if not np.isnan(value)}
            elif field.name in LEFT_OUT_IF_EMPTY:
                entry |= {field.name: value} if value else {}
            elif value is not None and not (isinstance(value, float) and np.isnan(value)):
                entry[field.name] = value
        return entry

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "RoundRecord":
        """The record of a line; of older logs, too, which lack some keys."""
        plain = {field.name for field in dataclasses.fields(cls)} - set(BY_KEY)
        known = {key: value for key, value in entry.items() if key in plain and value is not None}
        by_prefix = lambda prefix: {
            key.removeprefix(prefix): value for key, value in entry.items() if key.startswith(prefix)
        }
        return cls(
            **known,
            test=by_prefix("test_"),
            own=by_prefix("own_"),
            validation=by_prefix("validation_"),
            leakage={key: value for key, value in entry.items() if key.startswith(LEAKAGE)},
            baseline=next((entry[key] for key in BASELINES if entry.get(key) is not None), NAN),
        )


def describe_fields() -> list[tuple[str, str]]:
    """Key and meaning of every field, for the documentation."""
    hints = get_type_hints(RoundRecord, include_extras=True)
    return [(field.name, hints[field.name].__metadata__[0]) for field in dataclasses.fields(RoundRecord)]


def make_record(
    experiment: Experiment,
    result: RoundResult,
    evaluation: Evaluation,
    leakage: dict[str, float],
    traffic: Traffic | None,
    before: list[RoundRecord],
    seconds: float,
) -> RoundRecord:
    """The record of a round that was played.

    Args:
        experiment, result: what was run, and what came out.
        evaluation, leakage: measures of the new model.
        traffic: bytes of the round's messages; None where nobody asked.
        before: the records of all earlier rounds.
        seconds: since the round before.
    """
    data, task, info = experiment.federation, experiment.task, result.info
    leaves, names = jax.tree.leaves(result.server.masks), tree.leaf_names(result.server.masks)
    sizes, kept = [leaf.size for leaf in leaves], np.asarray(info.kept)
    by_leaf = zip(names, kept, info.dead_channels, leaves, strict=True)
    kernels = [(name, count, dead) for name, count, dead, leaf in by_leaf if leaf.ndim > 1]
    left_out = {
        reason.name.lower(): result.client_ids[np.asarray(info.left_out) == reason].tolist()
        for reason in Absence
        if reason and (np.asarray(info.left_out) == reason).any()
    }
    up, down = (int(np.asarray(counts, np.int64).sum()) for counts in (info.params_up, info.params_down))
    return RoundRecord(
        round=int(info.round),
        target_sparsity=float(info.target_sparsity),
        sparsity=1 - int(np.sum(kept)) / int(np.sum(sizes)),
        train_loss=mean_loss(result.steps, np.asarray(info.left_out) == Absence.NONE),
        test=evaluation.test,
        own=evaluation.own,
        validation=evaluation.validation,
        clients=_by_client(result, evaluation, task.headline),
        sites=evaluation.sites,
        age_bias=evaluation.age_bias._asdict() if evaluation.age_bias else {},
        may_be_best=_may_be_best(experiment, result, evaluation),
        leakage=leakage,
        baseline=task.baseline(data.train_targets, data.targets[data.test]),
        params_up=up,
        params_down=down,
        params_up_total=(before[-1].params_up_total if before else 0) + up,
        params_down_total=(before[-1].params_down_total if before else 0) + down,
        **(_bytes(traffic, before) if traffic else {}),
        agreement=float(info.agreement),
        vote_margin=NAN if info.vote_margin is None else float(info.vote_margin),
        drift=int(info.drift),
        flops=flops_per_example(kept, experiment.multiply_adds),
        finite=bool(info.finite),
        client_rate_factor=NAN if info.client_rate_factor is None else float(info.client_rate_factor),
        server_rate_factor=NAN if info.server_rate_factor is None else float(info.server_rate_factor),
        padding=round(info.padding, 4),
        cohort=result.client_ids.tolist(),
        left_out=left_out,
        void=bool(info.void),
        epsilon=_epsilon(experiment, result, before),
        density={name: int(count) / size for name, count, size in zip(names, kept, sizes, strict=True)},
        dead_channels={name: int(dead) for name, _, dead in kernels},
        collapsed=[name for name, count, _ in kernels if count == 0],
        seconds=round(seconds, 3),
    )


def _by_client(result: RoundResult, evaluation: Evaluation, headline: str) -> dict[str, dict[str, float]]:
    """What is known of single clients: of the cohort's training, and of everybody's validation."""
    nobody = np.zeros(len(result.client_ids))
    counts = sum((np.asarray(info.examples).sum(1) for info in result.steps), nobody)
    losses = sum((np.asarray(info.loss, np.float64).sum(1) for info in result.steps), nobody)
    known: dict[str, dict[str, float]] = {}
    for client, examples, loss in zip(result.client_ids, counts, losses, strict=True):
        known[client_name(int(client))] = {"examples": int(examples)}
        if examples and np.isfinite(loss):
            known[client_name(int(client))]["loss"] = float(loss / examples)
    for name, value in evaluation.clients.items():
        known.setdefault(name, {})[f"validation_{headline}"] = value
    return known


def _may_be_best(experiment: Experiment, result: RoundResult, evaluation: Evaluation) -> bool:
    """Whether the round has a measure on validation at the final sparsity, of a model that is its own."""
    final, asked = experiment.model_choice.final_sparsity, float(result.info.target_sparsity)
    at_the_end = final is None or abs(asked - final) < SAME_SPARSITY
    measured = evaluation.validation.get(experiment.task.headline) is not None
    return measured and at_the_end and not bool(result.info.void)


def _bytes(traffic: Traffic, before: list[RoundRecord]) -> dict[str, Any]:
    """Lengths of the messages of each client, in the order of the cohort, and their sum since round 1."""
    totals = (before[-1].bytes_down_total, before[-1].bytes_up_total) if before else (0, 0)
    down, up = (int(np.nan_to_num(total)) for total in totals)  # a run may have begun without measuring
    return {
        "bytes_down": traffic.down,
        "bytes_down_total": down + sum(traffic.down),
        "bytes_up": traffic.up,
        "bytes_up_total": up + sum(traffic.up),
    }


def _epsilon(experiment: Experiment, result: RoundResult, before: list[RoundRecord]) -> float | None:
    """Epsilon of the client who took part most, where training is private."""
    if not experiment.epsilon:
        return None
    cohorts = [record.cohort for record in before]
    return experiment.epsilon(most_rounds([*cohorts, result.client_ids.tolist()]))

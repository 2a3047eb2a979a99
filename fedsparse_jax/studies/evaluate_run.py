"""A trained model on the scans of a folder or table: what it predicts, and how wrong it is for whom.

An error on people whom the model was trained on is no test, nor is one on people by whom it was chosen. They are marked
in the table, by the run's own record, and their errors are given apart from that of all others. Of these others the
error has intervals, is given site by site and, where the run has a validation, without the age bias, too. Where only
names agree, which proves nothing, a remark gives both errors.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedsparse_jax.config import checks
from fedsparse_jax.config.saved_runs import load_run, with_other_scans
from fedsparse_jax.config.scans import label_from_config, list_scans, no_progress, people_of_scans, read_scans
from fedsparse_jax.core.age_bias import AgeBias
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.tasks import Task
from fedsparse_jax.core.types import Model, ServerState
from fedsparse_jax.data.image_sources import IMAGE_SOURCES
from fedsparse_jax.data.labels import targets_of
from fedsparse_jax.data.loading import predict_batches, streamed_reader
from fedsparse_jax.data.roster import TEST, Roster, is_same_cohort, is_trained_on, is_validation, sets_by_name, some_of
from fedsparse_jax.data.scan_cache import ScanSet
from fedsparse_jax.data.tables import Drop
from fedsparse_jax.runs.console import quality_line
from fedsparse_jax.runs.evaluation import models_for_strangers, predictions_table
from fedsparse_jax.runs.metrics_log import read_records
from fedsparse_jax.runs.quality import judge_predictions, judge_sites, why_no_age_bias
from fedsparse_jax.runs.run_dir import is_of_0_1, recorded_people
from fedsparse_jax.studies.site_predictability import ChallengeScore, score_challenge


class OtherScans(NamedTuple):
    """What a model makes of some scans.

    Errors are measures by name with their intervals, see `runs.quality`; knowing nothing predicts their own mean.
    """

    table: str  # predictions as TSV
    quality: dict[str, Any] | None  # errors on people who had no part in the run but in its test; None for nobody
    trained_quality: dict[str, Any] | None  # errors on people whom it was trained on; None where there are none
    trained_on: str  # the run's data source
    read_as: str  # how the scans were read, in words
    dropped: tuple[Drop, ...]  # what was left out, and why
    task: Task  # what was predicted, and how it is judged
    remarks: tuple[str, ...]  # what to look at before the numbers are trusted
    validation_quality: dict[str, Any] | None = None  # errors on people of the run's validation; None for nobody
    by_test_set: dict[str, dict[str, Any]] = {}  # errors on each of the run's several test sets, by name  # noqa: RUF012
    sites: dict[str, Any] = {}  # the errors of `quality` by site; empty for fewer than two sites  # noqa: RUF012
    age_bias: AgeBias | None = None  # of the model on the run's validation; None of what is no age, or of too few there
    challenge: ChallengeScore | None = None  # where there are sites that the model was trained on, and others
    uncorrected: str = ""  # why there is no line of the age bias, and what mends that


def evaluate_run(
    workdir: Path, root: str, settings: Sequence[tuple[str, str]] = (), round_: int | None = None, progress=no_progress
) -> OtherScans:
    """Predicts every scan of a folder or table with a trained model, which are read as the run's own scans were.

    Args:
        workdir: the run.
        root: the folder or the file.
        settings: keys of ``data`` that are other than the run's, ``(key, text)`` as on the command line.
        round_: which checkpoint; None for the newest.
        progress: shown while scans are read.

    Raises:
        NothingLeft: not one scan can be used.
        UsageError: no such run, round or scans, or a run that cannot be asked.
    """
    config, network, server = load_run(workdir, round_)
    if is_of_0_1(workdir):
        raise UsageError(
            f"{workdir} was trained by version 0.1, which recorded nobody, so that training people could pass for "
            "others. Give the command that trained it once more: it trains no further and writes people.tsv."
        )
    trained_on = config.data.source
    if trained_on in IMAGE_SOURCES:
        raise UsageError(f"{workdir} was trained on images; only a run on scans can be given other scans.")
    label = label_from_config(config)
    reading = with_other_scans(config, root, settings, need_age=label.is_age)
    scan_set, task = read_scans(reading, progress, trained=True), checks.check_task(config)
    targets = targets_of(scan_set.scans, label, config.data.classes)
    predictions = predictions_of(config, network, server, scan_set)
    people, recorded = people_of_scans(scan_set), recorded_people(workdir)
    by_name = sets_by_name(people, recorded)
    same = is_same_cohort(people, targets, recorded) or _has_same_files(config, reading, scan_set)
    sets = by_name if same else [""] * len(people)
    trained, validating = (np.array([judge(name) for name in sets]) for judge in (is_trained_on, is_validation))
    bias, others = age_bias_of_round(workdir, int(server.round)), ~trained & ~validating
    names, sites = (np.array([person[key] for person in people]) for key in ("participant_id", "site"))
    judge: Callable[..., Any] = lambda rows, bias=None: (
        judge_predictions(task, predictions[rows], targets[rows], names[rows].tolist(), targets[rows], bias)
        if rows.any()
        else None
    )
    namesakes = () if same or trained_on == "phantom" else _of_namesakes(task, names, by_name, judge)
    challenge, refused = None, ""
    if task.of_age and predictions.ndim == 1:
        try:
            about = scan_set.inputs, predictions, targets, sites, trained, others
            challenge = score_challenge(network, server, *about)
        except UsageError as error:
            refused = f"no score of the OpenBHB challenge: {error}"
    return OtherScans(
        table=predictions_table(people, targets, predictions, task, config.data.classes, sets, bias),
        task=task,
        quality=judge(others, bias),
        trained_quality=judge(trained),
        validation_quality=judge(validating),
        trained_on=trained_on,
        read_as=_in_words(reading),
        dropped=scan_set.dropped,
        remarks=(*namesakes, *_remarks(scan_set), *filter(None, [refused])),
        by_test_set={name: judge(rows) for name, rows in _test_sets(recorded, names, np.array(sets) == TEST).items()},
        sites=judge_sites(task, [predictions[others]], targets[others], sites[others]),
        age_bias=bias,
        challenge=challenge,
        uncorrected="" if bias else why_no_age_bias([e.target for e in recorded if is_validation(e.set)]),
    )


def _test_sets(recorded: Roster, names, tested: np.ndarray) -> dict[str, np.ndarray]:
    """``bool[N]`` by name: who of the tested people is in which of a run's several test sets."""
    set_of = {entry.participant_id: entry.test_set for entry in recorded if entry.test_set}
    each = np.array([set_of.get(name, "") for name in names])
    several = sorted(set(set_of.values()))
    return {name: rows for name in several if len(several) > 1 and (rows := tested & (each == name)).any()}


def age_bias_of_round(workdir: Path, round_: int) -> AgeBias | None:
    """The line of ages that the log of a run has for a round; None where nobody validated it."""
    lines = [record.age_bias for record in read_records(workdir) if record.round == round_]
    return AgeBias(**lines[0]) if lines and lines[0] else None


def predictions_of(config, network: Model, server: ServerState, scan_set: ScanSet) -> np.ndarray:
    """Predictions ``f32[N]``, or logits ``f32[N, K]``, by the global model; where leaves stay with the clients, the
    mean of their models.
    """
    everything, batch_size = np.arange(len(scan_set.scans)), config.execution.eval_batch
    apply, read = jax.jit(network.apply), streamed_reader(scan_set.inputs)
    models = models_for_strangers(server, config.partition.num_clients)
    return np.mean([predict_batches(apply, params, read, everything, batch_size) for params in models], 0)


def _in_words(config) -> str:
    """How scans are read, by a config."""
    data = config.data
    options = [f"{name} {value}" for name, value in data.options.items() if value not in (None, False)]
    return ", ".join([f"source {data.source}", f"align {data.align}", f"normalise {data.normalise}", *options])


def _remarks(scan_set: ScanSet) -> tuple[str, ...]:
    """Warnings of quality with their counts, and notes of how tables were read."""
    counts = Counter(warning for quality in scan_set.quality for warning in quality.warnings)
    return (*(f"{count} x {warning}" for warning, count in counts.most_common()), *scan_set.notes)


def _has_same_files(config, reading, scan_set: ScanSet) -> bool:
    """Whether other scans lie where those of the run did, all of them or one."""
    if not config.data.root:  # the phantom's own
        return False
    if Path(config.data.root).expanduser().resolve() == Path(reading.data.root).expanduser().resolve():
        return True
    try:
        own = list_scans(config, Path(config.data.cache_dir), need_age=False).scans
    except (UsageError, OSError):  # they lie there no more
        return False
    return not {scan.path.resolve() for scan in own}.isdisjoint(scan.path.resolve() for scan in scan_set.scans)


def _of_namesakes(task: Task, names: np.ndarray, by_name: Sequence[str], judge: Callable[..., Any]) -> tuple[str, ...]:
    """A remark on people who have the names of some who were trained on, with their error and that of all others."""
    theirs = np.array([is_trained_on(name) for name in by_name])
    if not theirs.any():
        return ()
    told = "; others: ".join(quality_line(judge(rows), task) if rows.any() else "nobody" for rows in (theirs, ~theirs))
    shared = sorted(set(names[theirs].tolist()))
    return (
        f"{len(shared)} {'name is that of a person' if len(shared) == 1 else 'names are those of people'} whom the run "
        f"trained on ({some_of(shared)}), and if they are the same people, this is no test of them: {told}",
    )

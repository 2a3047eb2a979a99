"""What a trained model predicts for scans of whom nothing is known, and where it should not be trusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from fedsparse_jax.config.overrides import OPTIONS
from fedsparse_jax.config.saved_runs import load_run, with_other_scans
from fedsparse_jax.config.scans import (
    ingest_scans,
    label_from_config,
    list_scans,
    no_progress,
    options_of_source,
    people_of_scans,
    refused_argument,
)
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import tsv_text
from fedsparse_jax.data.bids import scans_of_nobody
from fedsparse_jax.data.image_sources import IMAGE_SOURCES
from fedsparse_jax.data.labels import targets_of
from fedsparse_jax.data.loose_scans import is_image_file, list_loose
from fedsparse_jax.data.roster import is_trained_on
from fedsparse_jax.data.scan_cache import ScanSet
from fedsparse_jax.data.tables import Drop, Listing, OtherLayout
from fedsparse_jax.runs.evaluation import PREDICTED
from fedsparse_jax.runs.likeness import TrainingLook, likeness, read_likeness
from fedsparse_jax.runs.run_dir import recorded_people
from fedsparse_jax.studies.evaluate_run import predictions_of

Settings = Sequence[tuple[str, str]]  # (key, text) as on the command line
FEWEST_PREDICTIONS = 3  # predictions from which their spread says something
NO_SPREAD = 0.01  # of the spread of the training targets
WIDER = 0.1  # of the range of the training targets, by which a prediction may lie outside of it


class Predicted(NamedTuple):
    """Predictions for some scans."""

    table: str  # as TSV, a row a scan
    scans: int  # with a prediction
    warned: int  # scans with a warning
    notes: tuple[str, ...]  # of all scans together
    dropped: tuple[Drop, ...]  # what could not be read, and why
    trained_on: str  # the run's data source


def predict_scans(
    workdir: Path, places: Sequence[str], settings: Settings = (), round_: int | None = None, progress=no_progress
) -> Predicted:
    """Predicts scans of which no age need be known.

    Args:
        workdir: the run.
        places: image files, folders, and tables of paths; they are read as the run's own scans were.
        settings: keys of ``data`` that are other than the run's, ``(key, text)`` as on the command line.
        round_: which checkpoint; None for the newest.
        progress: shown while scans are read.

    Raises:
        NothingLeft: not one scan can be used.
        UsageError: no such run, round or place, or a run on images.
    """
    config, network, server = load_run(workdir, round_)
    if config.data.source in IMAGE_SOURCES:
        raise UsageError(f"{workdir} was trained on images; only a run on scans can be given other scans.")
    readings = _readings(config, [place for place in places if not is_image_file(place)], settings)
    like_the_run = _other(config, places[0], _split(settings)[0] if readings else settings)
    options = {**config.data.options, **like_the_run.data.options}
    of_files = {name: options[name] for name in ("affine", "volumes") if options.get(name)}
    known = lambda place: _known_in(readings[place])
    scan_set = ingest_scans(like_the_run, lambda cache: list_loose(places, known, **of_files), progress, trained=True)
    predictions = predictions_of(config, network, server, scan_set)
    warnings, notes = look_at(workdir, config, scan_set, predictions)
    table = _table(config, scan_set, predictions, warnings)
    return Predicted(table, len(warnings), sum(map(bool, warnings)), notes, scan_set.dropped, config.data.source)


def _readings(config, places: Sequence[str], settings: Settings) -> dict[str, Any]:
    """How each folder or table is read: a config, with the options that its source takes.

    Each has those that no source takes, too, so that they are refused by name.
    """
    others, options = _split(settings)
    plain = {place: _other(config, place, others) for place in places}
    taken = {place: options_of_source(reading.data.source) for place, reading in plain.items()}
    everywhere, name = set().union(*taken.values()), lambda key: key.removeprefix(f"{OPTIONS}.")
    fitting = lambda key, place: name(key) in taken[place] or name(key) not in everywhere
    return {
        place: _other(config, place, [*others, *(one for one in options if fitting(one[0], place))]) for place in places
    }


def _split(settings: Settings) -> tuple[Settings, Settings]:
    """Settings that every place has, and the options of sources."""
    is_option = lambda one: one[0].startswith(f"{OPTIONS}.")
    return [one for one in settings if not is_option(one)], [one for one in settings if is_option(one)]


def _other(config, place: str, settings: Settings):
    return with_other_scans(config, place, settings, need_age=False)


def _known_in(reading) -> Listing | None:
    """A table or a folder as a config reads it; None for a folder with neither a table of people nor BIDS names."""
    if reading.data.source != "bids" or not isinstance(refused_argument(reading, need_age=False), OtherLayout):
        return list_scans(reading, Path(reading.data.cache_dir), need_age=False)
    options = {name: value for name, value in reading.data.options.items() if name in ("space", "desc", "suffixes")}
    root = Path(reading.data.root).expanduser()
    named = scans_of_nobody(root, **options)
    named = named if named.scans else scans_of_nobody(root)
    return named if named.scans else None


def look_at(
    workdir: Path, config, scan_set: ScanSet, predictions: np.ndarray
) -> tuple[list[list[str]], tuple[str, ...]]:
    """What makes predictions doubtful: warnings of each scan, and notes of all together."""
    warnings, notes = [list(quality.warnings) for quality in scan_set.quality], list(scan_set.notes)
    look = read_likeness(workdir)
    if look is None:
        notes.append("the run has no likeness.npz, so that nobody can say how like its own these scans are")
    else:
        _compare_scans(look, scan_set, warnings)
    trained = np.array([entry.target for entry in recorded_people(workdir) if is_trained_on(entry.set)])
    if predictions.ndim == 1 and len(trained):
        targets = targets_of(scan_set.scans, label_from_config(config))
        _compare_numbers(config.data.label, trained, targets, predictions, warnings)
        if len(predictions) >= FEWEST_PREDICTIONS and np.ptp(predictions) < NO_SPREAD * trained.std():
            notes.append(f"all predictions are about {predictions[0]:.2f}; the model has not learned, or sees nothing")
    return warnings, tuple(notes)


def _compare_scans(look: TrainingLook, scan_set: ScanSet, warnings: list[list[str]]) -> None:
    """Adds a warning where a scan is less like the mean of the training than its scans were."""
    for place, told in enumerate(warnings):
        found = likeness(scan_set.inputs[place], look.mean)
        if found < look.limit:
            of_own = f"correlation {found:.2f} with their mean, of which each of them had at least {look.least:.2f}"
            told.append(f"unlike the scans trained on ({of_own})")


def _compare_numbers(name: str, trained, targets, predictions, warnings: list[list[str]]) -> None:
    """Adds a warning where a number is outside of those trained on."""
    low, high = trained.min(), trained.max()
    room, of_training = WIDER * (high - low), f"outside of the training, which had {low:.1f} to {high:.1f}"
    for told, target, predicted in zip(warnings, targets, predictions, strict=True):
        if target < low or target > high:
            told.append(f"the {name} is {of_training}")
        if predicted < low - room or predicted > high + room:
            told.append(f"the predicted {name} is {of_training}")


def _table(config, scan_set: ScanSet, predictions: np.ndarray, warnings: list[list[str]]) -> str:
    """participant_id, session, the prediction (of classes also the probability of each), warnings, file."""
    people = people_of_scans(scan_set)
    if predictions.ndim == 1:
        head, cells = [f"{PREDICTED}{config.data.label}"], [[f"{value:.3f}"] for value in predictions]
    else:
        names = tuple(config.data.classes)
        shares = softmax(predictions.astype(np.float64), -1)
        head = [f"{PREDICTED}{config.data.label}", *(f"probability_{name}" for name in names)]
        cells = [[names[share.argmax()], *(f"{one:.4f}" for one in share)] for share in shares]
    rows = [
        [who["participant_id"], who["session"], *cell, "; ".join(told), str(scan.path)]
        for who, cell, told, scan in zip(people, cells, warnings, scan_set.scans, strict=True)
    ]
    return tsv_text(["participant_id", "session", *head, "warnings", "file"], rows)

"""A trained model on the scans of a folder or table: what it predicts, and how wrong it is for whom.

An error on people whom the model was trained on is no test. They are marked in the table, by the run's own record, and
their error is given apart from that of all others.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedsparse_jax.config.build import no_progress, people_of_scans, read_scans
from fedsparse_jax.config.saved_runs import load_run, with_other_scans
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.tasks import predict_mean_mae, regression_measures
from fedsparse_jax.data.image_sources import IMAGE_SOURCES
from fedsparse_jax.data.loading import predict_batches, streamed_reader
from fedsparse_jax.data.roster import TEST, sets_of
from fedsparse_jax.runs.evaluation import ages_table
from fedsparse_jax.runs.run_dir import is_of_0_1, recorded_people


class OtherScans(NamedTuple):
    """What a model makes of some scans.

    Errors are measures by name, with the number of scans and the error of predicting their own mean.
    """

    table: str  # predictions as TSV
    quality: dict[str, Any] | None  # errors on people whom the model was not trained on; None where there are none
    trained_quality: dict[str, Any] | None  # errors on people whom it was trained on; None where there are none
    trained_on: str  # the run's data source


def evaluate_run(
    workdir: Path, source: str, root: str, round_: int | None = None, align: str = "", progress=no_progress
) -> OtherScans:
    """Predicts every scan of a folder or table with a trained model.

    Args:
        workdir: the run.
        source: a member of ``SCAN_SOURCES``, ``bids`` or ``table``.
        root: the folder or the file.
        round_: which checkpoint; None for the newest.
        align: how to bring the scans onto the grid; empty for what the run was trained with.
        progress: shown while scans are read.
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
    scan_set = read_scans(with_other_scans(config, source, root, align), progress)
    ages = np.array([scan.age for scan in scan_set.scans], np.float32)
    read = streamed_reader(scan_set.inputs)
    predictions = predict_batches(
        jax.jit(network.apply), server.params, read, np.arange(len(ages)), config.execution.eval_batch
    )
    people = people_of_scans(scan_set)
    sets = sets_of(people, ages, recorded_people(workdir))
    trained = np.array([name not in ("", TEST) for name in sets])
    quality, trained_quality = (_quality(predictions[rows], ages[rows]) for rows in (~trained, trained))
    return OtherScans(ages_table(people, ages, predictions, sets), quality, trained_quality, trained_on)


def _quality(predictions: np.ndarray, ages: np.ndarray) -> dict[str, Any] | None:
    if not len(ages):
        return None
    measures = regression_measures(predictions, ages)
    return {**measures, "n": len(ages), "predict_mean_mae": predict_mean_mae(ages, ages)}

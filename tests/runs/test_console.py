"""What a run says: the line of a round, the time left, warnings."""

import dataclasses
import math

import pytest

from fedsparse_jax.core import tasks
from fedsparse_jax.runs import RoundRecord
from fedsparse_jax.runs.console import (
    duration,
    measures_line,
    quality_line,
    round_line,
    seconds_left,
    sites_line,
    warnings,
)

RECORD = RoundRecord(
    round=7,
    target_sparsity=0.5,
    sparsity=0.4994,
    train_loss=31.256,
    test={"mae": 6.504, "rmse": 8.0},
    baseline=7.75,
    seconds=2.34,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (90_061, "25 h 1 min"),
    ],
)
def test_durations_are_rounded_to_what_matters(seconds, text):
    assert duration(seconds) == text


def test_a_round_of_a_regression_is_one_line():
    assert round_line(RECORD, tasks.REGRESSION, 40, 75) == (
        "round  7/40  sparsity 0.499 (asked 0.500)  train loss    31.26  test MAE  6.50 y (mean 7.75)"
        "   2.3 s, 1 min 15 s left"
    )


def test_a_server_that_knows_no_ages_says_nothing_of_their_mean():
    line = round_line(dataclasses.replace(RECORD, baseline=math.nan), tasks.REGRESSION, 40, 75)
    assert "test MAE  6.50 y   2.3 s" in line


def test_a_round_of_a_classification_shows_own_classes_and_epsilon():
    record = dataclasses.replace(
        RECORD, train_loss=1.5, test={"accuracy": 0.75}, own={"accuracy": 0.875}, baseline=0.125, epsilon=1.2345
    )
    assert round_line(record, tasks.CLASSIFICATION, 7, 0) == (
        "round 7/7  sparsity 0.499 (asked 0.500)  train loss  1.500  test accuracy 0.750 (commonest 0.125)"
        "  own classes 0.875  epsilon 1.23   2.3 s, 0 s left"
    )


def test_the_time_left_is_the_median_of_the_last_five_rounds():
    times = [60.0, 1.0, 2.0, 3.0, 9.0, 4.0]  # the first round compiles; of the last five the median is 3
    records = [RoundRecord(i + 1, seconds=seconds) for i, seconds in enumerate(times)]
    assert seconds_left(records, rounds=10) == 3.0 * 4
    assert seconds_left(records[:1], rounds=10) == 60.0 * 9
    assert seconds_left(records, rounds=6) == 0


def test_a_collapsed_kernel_is_warned_of_when_it_is_new():
    nothing, some = RoundRecord(1), RoundRecord(2, collapsed=["conv1/kernel"])
    more = RoundRecord(3, collapsed=["conv1/kernel", "conv2/kernel", "head/kernel"])
    assert warnings(nothing, None) == warnings(some, some) == warnings(nothing, some) == []
    first = warnings(some, None)
    assert first == warnings(some, nothing) and len(first) == 1
    assert first[0].startswith("Warning: conv1/kernel keeps no weight any more") and "set pruning.floor" in first[0]
    assert warnings(more, some)[0].startswith("Warning: conv2/kernel, head/kernel keep no weight any more")


def test_error_measures_are_one_line():
    quality = {"mae": 6.504, "rmse": 8.0, "r": 0.5, "r2": -0.25, "n": 12, "predict_mean_mae": 7.75}
    assert quality_line(quality, tasks.REGRESSION) == (
        "MAE 6.50 y, RMSE 8.00 y, r 0.50, R2 -0.25 on 12 scans (predicting their own mean: MAE 7.75 y)"
    )
    points = tasks.task_for("regression", "memory", "points")
    assert quality_line(quality, points).startswith("MAE 6.50 points, RMSE 8.00 points, r 0.50")
    found = {"accuracy": 0.75, "balanced_accuracy": 0.7, "auc": 0.8125, "n": 8, "commonest_class_accuracy": 0.625}
    assert quality_line(found, tasks.CLASSIFICATION) == (
        "accuracy 0.750, balanced 0.700, AUC 0.812 on 8 scans (naming their commonest class: accuracy 0.625)"
    )


def test_intervals_stand_behind_their_measures():
    quality = {"mae": 6.504, "r": 0.5, "bias": -0.25, "intervals": {"mae": [5.9, 7.1], "r": [math.nan] * 2}}
    assert measures_line(quality, tasks.REGRESSION) == "MAE 6.50 y (5.90 to 7.10), r 0.50, bias -0.25 y"
    found = {"accuracy": 0.75, "auc": 0.8125, "intervals": {"auc": [0.5, 1.0]}}
    assert measures_line(found, tasks.CLASSIFICATION) == "accuracy 0.750, AUC 0.812 (0.500 to 1.000)"


def test_sites_are_one_line():
    spread = dict(zip(("min", "q25", "median", "q75", "max"), (1.0, 2.0, 3.0, 4.0, 5.0)))
    judged = {"sites": {"A": {"n": 3, "mae": 1.0}, "B": {"n": 2, "mae": 5.0}}, "mae": spread, "worst": "B"}
    assert sites_line(judged, tasks.REGRESSION) == (
        "2 sites: MAE (y) from 1.00 to 5.00, quartiles 2.00, 3.00, 4.00; worst B (MAE 5.00 y on 2 scans)"
    )
    judged = {"sites": {"A": {"n": 3, "accuracy": 0.5}}, "accuracy": spread, "worst": "A"}
    assert sites_line(judged, tasks.CLASSIFICATION).endswith("2.000, 3.000, 4.000; worst A (accuracy 0.500 on 3 scans)")

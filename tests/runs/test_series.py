"""One number over the rounds, and what was exchanged, summed by hand."""

import math

import numpy as np
import pytest

from fedsparse_jax.core import tasks
from fedsparse_jax.runs import RoundRecord
from fedsparse_jax.runs.series import as_number, dense_exchanged, exchanged, headline_series, params_exchanged, series

NAN = math.nan


@pytest.mark.parametrize(("value", "number"), [(3, 3.0), ("0.5", 0.5), (True, 1.0), (np.float32(0.25), 0.25)])
def test_numbers_become_floats(value, number):
    assert as_number(value) == number and isinstance(as_number(value), float)


@pytest.mark.parametrize("value", [None, "n/a", [1], {}])
def test_what_is_no_number_is_nan(value):
    assert math.isnan(as_number(value))


def test_a_series_has_a_gap_where_a_round_lacks_the_number():
    records = [RoundRecord(1, sparsity=0.25, epsilon=1.0), RoundRecord(2), RoundRecord(3, sparsity=0.75)]
    np.testing.assert_array_equal(series(records, lambda record: record.sparsity), [0.25, NAN, 0.75])
    np.testing.assert_array_equal(series(records, lambda record: record.epsilon), [1.0, NAN, NAN])
    assert series([], lambda record: record.sparsity).shape == (0,)


def test_the_headline_is_that_of_the_task():
    records = [RoundRecord(1, test={"mae": 6.0, "accuracy": 0.5}), RoundRecord(2, test={"mae": None}), RoundRecord(3)]
    np.testing.assert_array_equal(headline_series(records, tasks.REGRESSION), [6.0, NAN, NAN])
    np.testing.assert_array_equal(headline_series(records, tasks.CLASSIFICATION), [0.5, NAN, NAN])


def test_weights_are_the_totals_of_the_log():
    # The log was cut: rounds 1 and 2 are not in it, but the totals count them.
    records = [
        RoundRecord(3, params_up=10, params_down=20, params_up_total=50, params_down_total=70),
        RoundRecord(4, params_up=5, params_down=10, params_up_total=55, params_down_total=80),
    ]
    np.testing.assert_array_equal(params_exchanged(records), [120, 135])


def test_weights_of_an_old_log_without_totals_are_summed():
    records = [
        RoundRecord(1, params_up=10, params_down=20),
        RoundRecord(2),  # unknown: counts as nothing
        RoundRecord(3, params_up=5, params_down=10),
    ]
    np.testing.assert_array_equal(params_exchanged(records), [30, 30, 45])


def test_bytes_are_shown_where_every_round_has_measured_them():
    measured = RoundRecord(
        1,
        params_up_total=4,
        params_down_total=6,
        bytes_up=[30],
        bytes_up_total=30,
        bytes_down=[40],
        bytes_down_total=40,
    )
    totals, unit = exchanged([measured])
    assert (totals.tolist(), unit) == ([70.0], "bytes")
    totals, unit = exchanged([measured, RoundRecord(2, params_up_total=8, params_down_total=12)])
    assert (totals.tolist(), unit) == ([10.0, 20.0], "weights")


def test_dense_federated_averaging_sends_every_weight_down_and_up():
    # 100 weights, there and back: 2 clients, then all 5 because the old line does not say who took part, then 1.
    records = [RoundRecord(1, cohort=[0, 3]), RoundRecord(2), RoundRecord(3, cohort=[4])]
    np.testing.assert_array_equal(dense_exchanged(records, total_weights=100, num_clients=5), [400, 1400, 1600])

"""A line of ``metrics.jsonl`` as a typed record, there and back; and lines of older logs."""

import dataclasses
import json
import math

import pytest

from fedsparse_jax.runs import RoundRecord, metrics_log
from fedsparse_jax.runs.records import describe_fields

REGRESSION = RoundRecord(
    round=2,
    target_sparsity=0.5,
    sparsity=0.4375,
    train_loss=31.25,
    test={"mae": 6.5, "rmse": 8.0, "r": None, "r2": -0.25},
    leakage={"train_mae": 5.5, "membership_auc_error_threshold": 0.625},
    baseline=7.75,
    params_up=90,
    params_down=100,
    params_up_total=210,
    params_down_total=220,
    bytes_down=[300, 310],
    bytes_down_total=1250,
    bytes_up=[280, 290],
    bytes_up_total=1170,
    agreement=0.75,
    vote_margin=0.5,
    drift=12,
    flops=180.0,
    padding=0.1,
    cohort=[2, 0],
    epsilon=1.5,
    density={"conv/kernel": 0.5, "conv/bias": 1.0},
    dead_channels={"conv/kernel": 1},
    collapsed=[],
    seconds=0.25,
)
KEYS = [
    "round", "target_sparsity", "sparsity", "train_loss", "test_mae", "test_rmse", "test_r", "test_r2", "train_mae",
    "membership_auc_error_threshold", "predict_mean_mae", "params_up", "params_down", "params_up_total",
    "params_down_total", "bytes_down", "bytes_down_total", "bytes_up", "bytes_up_total", "agreement", "vote_margin", "drift",
    "flops", "finite", "padding", "cohort", "epsilon", "density", "dead_channels", "collapsed", "seconds",
]  # fmt: skip
CLASSIFICATION = RoundRecord(
    round=1, test={"accuracy": 0.75, "nll": 0.5}, own={"accuracy": 0.875}, baseline=0.125, cohort=[1]
)


@pytest.mark.parametrize("record", [REGRESSION, CLASSIFICATION], ids=["regression", "classification"])
def test_a_record_comes_back_from_its_line(record):
    line = json.dumps(record.to_json())
    assert RoundRecord.from_json(json.loads(line)) == record
    assert json.dumps(RoundRecord.from_json(json.loads(line)).to_json()) == line


def test_the_keys_of_a_line_stand_in_the_order_of_the_fields():
    line = REGRESSION.to_json()
    assert list(line) == KEYS
    assert line["test_r"] is None and line["predict_mean_mae"] == 7.75 and line["finite"] is True


def test_a_classifier_has_measures_and_a_baseline_of_its_own():
    line = CLASSIFICATION.to_json()
    assert line["own_accuracy"] == 0.875 and line["commonest_class_accuracy"] == 0.125
    assert "predict_mean_mae" not in line


def test_what_does_not_apply_is_left_out_of_the_line():
    assert RoundRecord(round=4).to_json() == {
        "round": 4,
        "finite": True,
        "cohort": [],
        "density": {},
        "dead_channels": {},
        "collapsed": [],
    }


def test_an_old_line_that_lacks_keys_can_be_read():
    old = {"round": 3, "sparsity": 0.5, "train_loss": 40.0, "test_mae": 6.0, "test_r": None, "predict_mean_mae": 7.0,
           "params_up": 80, "params_down": 80, "seconds": 2.0}  # fmt: skip
    record = RoundRecord.from_json(old)
    assert (record.round, record.sparsity, record.params_up, record.baseline) == (3, 0.5, 80, 7.0)
    assert record.test == {"mae": 6.0, "r": None}
    assert record.bytes_up is None and record.flops is None and record.epsilon is None
    assert math.isnan(record.params_up_total) and math.isnan(record.bytes_up_total) and math.isnan(record.padding)
    assert record.own == record.leakage == record.density == {} and record.cohort == record.collapsed == []
    assert record.finite
    assert record.to_json().items() >= old.items()


def test_keys_that_nobody_knows_and_nulls_do_no_harm():
    record = RoundRecord.from_json({"round": 1, "flops": None, "agreement": None, "colour": "green"})
    assert record.round == 1 and record.flops is None and math.isnan(record.agreement)


def test_the_log_gives_back_what_was_added(tmp_path):
    assert metrics_log.read_records(tmp_path) == []
    for round_ in (1, 2, 3):
        metrics_log.append_record(tmp_path, dataclasses.replace(REGRESSION, round=round_))
    before = (tmp_path / "metrics.jsonl").read_text()
    assert [record.round for record in metrics_log.truncate_records(tmp_path, 2)] == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == before.splitlines()[:2]
    assert metrics_log.read_records(tmp_path)[1] == REGRESSION


def test_every_field_of_a_record_is_described():
    described = describe_fields()
    assert [name for name, _ in described] == [field.name for field in dataclasses.fields(RoundRecord)]
    assert all(len(meaning) > 10 for _, meaning in described)

"""What the report says of a made-up run by client and site, with intervals and without the age bias."""

import json

import pytest

from fedsparse_jax.core.tasks import CLASSIFICATION
from fedsparse_jax.reporting import read_run_files
from fedsparse_jax.reporting.quality_tables import age_bias_parts, by_client_section, by_site_section, measures_table
from fedsparse_jax.runs import RoundRecord

SPREAD = {"min": 1.0, "q25": 1.5, "median": 2.0, "q75": 3.0, "max": 4.0}
SITES = {
    "sites": {"Guys": {"n": 5, "mae": 1.0, "bias": -1.0}, "HH": {"n": 7, "mae": 4.0, "bias": 4.0}},
    "mae": SPREAD,
    "bias": {**SPREAD, "min": -1.0},
    "worst": "HH",
}
RECORDS = [
    RoundRecord(1, test={"mae": 3.0}, clients={"L2": {"examples": 8, "loss": 9.0}}, cohort=[1]),
    RoundRecord(
        2,
        test={"mae": 2.5, "bias": -0.5, "external_mae": 4.0},
        validation={"mae": 2.75},
        baseline=6.0,
        sites={"test": SITES},
        clients={"L10": {"validation_mae": 3.5}, "L2": {"examples": 8, "loss": 4.5, "validation_mae": 2.0}},
        cohort=[1],
    ),
]
OF_TEST = {
    **{"mae": 2.5, "bias": -0.5, "n": 12, "people": 12, "intervals": {"mae": [2.0, 3.1], "bias": [-1.0, None]}},
    "corrected": {"mae": 1.5, "intervals": {"mae": [1.25, 1.75]}},
}
QUALITY = {
    "round": 2,
    "age_bias": {"slope": 0.625, "offset": 23.4, "scans": 9},
    "sets": {"test": OF_TEST, "external": {"mae": 4.0, "intervals": {"mae": [3.0, 5.0]}}},
}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(record.to_json()) for record in RECORDS))
    (tmp_path / "quality.json").write_text(json.dumps(QUALITY))
    return read_run_files(tmp_path)


def test_measures_stand_beside_their_intervals(run):
    assert measures_table(run).rows == [
        ("MAE", "2.50 y", "2.00 to 3.10"),
        ("MAE of predicting the mean", "6.00 y", ""),
        ("bias, mean of predicted minus true", "-0.50 y", "–"),
        ("MAE, test set external", "4.00 y", "3.00 to 5.00"),
    ]


def test_a_quality_of_another_round_is_not_shown(run):
    stale = run._replace(quality={**QUALITY, "round": 1})
    assert measures_table(stale).rows[0] == ("MAE", "2.50 y")
    assert [part.kind for part in age_bias_parts(stale)] == ["note"]


def test_the_mean_over_models_of_clients_has_no_interval_of_the_global_model(run):
    own = run._replace(records=[RoundRecord(2, test={"mae": 2.25}, baseline=6.0)])
    assert measures_table(own).rows[0] == ("MAE", "2.25 y", "–")


def test_errors_stand_with_and_without_the_correction(run):
    note, table = age_bias_parts(run)
    assert "On the 9 scans of the validation the predicted age is 0.62 times the true one plus 23.4 years" in note.text
    assert table.rows == [("MAE", "2.50 y", "2.00 to 3.10", "1.50 y", "1.25 to 1.75")]
    (note,) = age_bias_parts(run._replace(quality={}))
    assert "No correction for it is applied, as quality.json is missing" in note.text


@pytest.mark.parametrize(
    ("federation", "why"),
    [
        ({}, "as the run has no validation to learn it from; train anew with --config.data.validation_share=0.2."),
        (
            {"validation": {"n": 2, "ages": [50.0, 60.0]}},
            "as the run's validation has 2 scans, and to learn it takes 3",
        ),
    ],
)
def test_why_nothing_is_corrected_hangs_on_the_validation_of_the_run(run, federation, why):
    of_test = {key: value for key, value in OF_TEST.items() if key != "corrected"}
    quality = {"round": 2, "age_bias": None, "sets": {"test": of_test}}
    (note,) = age_bias_parts(run._replace(quality=quality, federation=federation))
    assert f"No correction for it is applied, {why}" in note.text


def test_clients_of_the_last_round(run):
    _, table = by_client_section(run).parts
    assert table.head == ["client", "rounds", "examples", "training loss", "validation MAE"]
    assert table.rows == [("L2", "2", "8", "4.500", "2.00 y"), ("L10", "0", "–", "–", "3.50 y")]
    assert by_client_section(run._replace(records=[RoundRecord(1, test={"mae": 1.0})])) is None


def test_sites_from_the_worst_on(run):
    text, spread, fold = by_site_section(run).parts
    assert text.text == "2 sites; the worst is HH."
    assert spread.rows[0] == ("MAE", "1.00 y", "1.50 y", "2.00 y", "3.00 y", "4.00 y")
    assert spread.rows[1][:2] == ("bias", "-1.00 y")
    assert fold.parts[0].rows == [("HH", "7", "4.00 y", "+4.00 y"), ("Guys", "5", "1.00 y", "-1.00 y")]
    assert by_site_section(run._replace(records=RECORDS[:1])) is None


def test_sites_of_a_classifier(run):
    judged = {
        "sites": {"A": {"n": 2, "accuracy": 0.5}, "B": {"n": 2, "accuracy": 1.0}},
        "accuracy": SPREAD,
        "worst": "A",
    }
    record = RoundRecord(1, test={"accuracy": 0.75}, sites={"internal": judged, "external": judged})
    classified = run._replace(records=[record], config={"task": "classification"})
    assert classified.task == CLASSIFICATION
    parts = by_site_section(classified).parts
    assert len(parts) == 6 and parts[3].text == "2 sites of the test set external; the worst is A."
    assert parts[2].parts[0].rows[0] == ("A", "2", "0.500")  # the worst comes first

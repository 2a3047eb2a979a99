"""Errors by client and site, with intervals and without the age bias: by hand, and in the files of a run."""

import json
import re

import jax
import numpy as np
import pytest

from fedsparse_jax.core.age_bias import AgeBias, fit_age_bias
from fedsparse_jax.core.tasks import CLASSIFICATION, REGRESSION
from fedsparse_jax.runs import read_records, run_experiment
from fedsparse_jax.runs.evaluation import evaluate_server, predict_rows, write_predictions
from fedsparse_jax.runs.quality import judge_predictions, judge_sites, why_no_age_bias
from fedsparse_jax.runs.round import make_runner
from tests.helpers import toy_federation
from tests.helpers.interrupted import QUIET


def test_sites_by_hand():
    # At A the errors are 1 and -3, at B 4, at C -1 twice; one scan has no site.
    predictions, targets = np.array([61.0, 57, 64, 59, 59, 90]), np.full(6, 60.0)
    judged = judge_sites(REGRESSION, [predictions], targets, ["A", "A", "B", "C", "C", "n/a"])
    assert judged["sites"] == {
        "A": {"n": 2, "mae": 2.0, "bias": -1.0},
        "B": {"n": 1, "mae": 4.0, "bias": 4.0},
        "C": {"n": 2, "mae": 1.0, "bias": -1.0},
    }
    assert judged["mae"] == {"min": 1.0, "q25": 1.5, "median": 2.0, "q75": 3.0, "max": 4.0}
    assert judged["bias"] == {"min": -1.0, "q25": -1.0, "median": -1.0, "q75": 1.5, "max": 4.0}
    assert judged["worst"] == "B"


def test_sites_of_classes_have_an_accuracy_and_no_bias():
    logits = np.eye(2)[[0, 1, 1, 1]]
    judged = judge_sites(CLASSIFICATION, [logits, np.eye(2)[[0, 0, 1, 1]]], np.array([0, 0, 1, 0]), list("AABB"))
    assert judged["sites"] == {"A": {"n": 2, "accuracy": 0.75}, "B": {"n": 2, "accuracy": 0.5}}  # mean of two models
    assert judged["worst"] == "B" and "bias" not in judged


def test_one_site_and_unknown_ones_are_no_sites():
    judge = lambda sites: judge_sites(REGRESSION, [np.zeros(3)], np.zeros(3), sites)
    assert judge(["A"] * 3) == judge(["n/a"] * 3) == judge(["A", "A", ""]) == {}


def test_a_quality_has_intervals_with_and_without_the_correction():
    rng = np.random.default_rng(0)
    ages = rng.uniform(45, 80, 80)
    predictions = 0.5 * ages + 35 + rng.normal(0, 2, 80)
    judge = lambda bias: judge_predictions(REGRESSION, predictions, ages, [f"s{i // 2}" for i in range(80)], [60], bias)
    plain, corrected = judge(None), judge(AgeBias(0.5, 35.0, 80))
    assert (plain["n"], plain["people"]) == (80, 40) and "corrected" not in plain
    assert plain["predict_mean_mae"] == pytest.approx(np.abs(ages - 60).mean())
    assert set(plain["intervals"]) == {"mae", "rmse", "r", "r2", "bias"}
    for quality in (plain, corrected["corrected"]):
        for name, (low, high) in quality["intervals"].items():
            assert low < quality[name] < high
    error = predictions - (0.5 * ages + 35)
    assert corrected["corrected"]["mae"] == pytest.approx(np.abs(error).mean())
    assert corrected["corrected"]["mae"] < corrected["mae"]
    assert {name: corrected[name] for name in ("mae", "bias")} == {name: plain[name] for name in ("mae", "bias")}


# --- a run --------------------------------------------------------------------------------------


def with_sites(data):
    """The toy federation with two test sets and three sites, of which each client validates on its last three."""
    rows = [{**row, "site": "ABC"[i % 3]} for i, row in enumerate(data.people)]
    for place, row in enumerate(data.test):
        rows[row] |= {"test_set": "internal" if place < 6 else "external"}
    members, validation = [part[:-3] for part in data.members], tuple(part[-3:] for part in data.members)
    return data._replace(people=rows, members=members, validation=validation)


def experiment(**changes):
    plain = toy_federation.experiment(2, cohort_size=2, **changes)
    return plain._replace(federation=with_sites(plain.federation))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_experiment(experiment(), folder, QUIET)
    return folder


def rows_of(path):
    head, *rows = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_log_tells_how_every_client_did(finished):
    data = with_sites(toy_federation.federation())
    rows = rows_of(finished / "validation_predictions.tsv")
    for record in read_records(finished):
        trained = [f"L{client + 1}" for client in record.cohort]
        assert set(record.clients) == {"L1", "L2", "L3"} and len(trained) == 2
        assert all(("loss" in known) == (name in trained) for name, known in record.clients.items())
        for client in record.cohort:
            assert record.clients[f"L{client + 1}"]["examples"] == 2 * len(data.members[client])  # two epochs
        losses, counts = zip(*((record.clients[name]["loss"], record.clients[name]["examples"]) for name in trained))
        assert record.train_loss == pytest.approx(np.average(losses, weights=counts), rel=1e-5)
    for name, known in record.clients.items():
        errors = [abs(float(row["error"])) for row in rows if row["set"] == f"{name}-validation"]
        assert len(errors) == 3 and known["validation_mae"] == pytest.approx(np.mean(errors), abs=1e-3)


def test_the_log_tells_of_every_test_set_how_its_sites_did(finished):
    sites = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])["sites"]
    rows, data = rows_of(finished / "predictions.tsv"), with_sites(toy_federation.federation())
    assert set(sites) == {"internal", "external"}
    sets = [data.people[row]["test_set"] for row in data.test]
    for name, judged in sites.items():
        assert sum(one["n"] for one in judged["sites"].values()) == sets.count(name)
        for site, one in judged["sites"].items():
            errors = [float(row["error"]) for row, of in zip(rows, sets) if (of, row["site"]) == (name, site)]
            assert one == pytest.approx(
                {"n": len(errors), "mae": np.abs(errors).mean(), "bias": np.mean(errors)}, abs=2e-3
            )


def test_where_clients_keep_masks_each_is_judged_by_its_own_model_and_ages_by_the_global_one():
    runner = make_runner(experiment(placement="client"))
    server, data = runner.algorithm.init(jax.random.key(0)), runner.experiment.federation
    masks = jax.tree.map(lambda leaf: np.stack([np.full(leaf.shape, i != 1) for i in range(3)]), server.masks)
    own = evaluate_server(runner, server._replace(memory=server.memory._replace(masks=masks)))
    whole = evaluate_server(runner, server)
    nothing = np.abs(data.targets[data.validation[1]]).mean()  # a model without weights predicts 0
    assert own.clients == pytest.approx({**whole.clients, "L2": nothing})
    assert own.age_bias == whole.age_bias and own.sites != whole.sites


def test_gaps_are_written_with_and_without_the_correction_that_validation_gives(finished):
    validated = rows_of(finished / "validation_predictions.tsv")
    ages, predicted = (np.array([float(row[key]) for row in validated]) for key in ("age", "predicted_age"))
    slope, offset = np.polyfit(ages, predicted, 1)
    line = read_records(finished)[-1].age_bias
    assert line == pytest.approx({"slope": slope, "offset": offset, "scans": 9}, abs=1e-2)
    quality = json.loads((finished / "quality.json").read_text())
    assert quality["age_bias"] == pytest.approx(line) and quality["round"] == 2
    rows = rows_of(finished / "predictions.tsv")
    assert list(rows[0])[-2:] == ["error", "corrected_error"]
    gaps = [float(row["predicted_age"]) - slope * float(row["age"]) - offset for row in rows]
    written = np.array([float(row["corrected_error"]) for row in rows])
    np.testing.assert_allclose(written, gaps, atol=0.02)
    of_all = quality["sets"]["test"]
    assert of_all["corrected"]["mae"] == pytest.approx(np.abs(written).mean(), abs=1e-3)
    assert of_all["mae"] == pytest.approx(read_records(finished)[-1].test["mae"], rel=1e-5)
    assert of_all["n"] == of_all["people"] == 8 and set(quality["sets"]) == {"test", "internal", "external"}
    assert quality["sets"]["external"]["n"] == 2 and quality["sets"]["external"]["intervals"]["mae"][0] > 0


def test_without_validation_there_is_no_line_and_no_column(tmp_path):
    runner = make_runner(toy_federation.experiment(1))
    data, server = runner.experiment.federation, runner.algorithm.init(jax.random.key(0))
    evaluation = evaluate_server(runner, server)
    assert evaluation.age_bias is None and evaluation.clients == evaluation.sites == {}
    write_predictions(data, predict_rows(runner, server.params, data.test), tmp_path)
    assert "corrected" not in (tmp_path / "predictions.tsv").read_text()


@pytest.mark.parametrize(
    ("ages", "why"),
    [
        ([], r"the run has no validation .*; train anew with --config.data.validation_share=0.2"),
        ([50.0], r"the run's validation has 1 scan, and to learn it takes 3; train anew with a larger --config.data"),
        ([50.0, 60.0], r"the run's validation has 2 scans, .* a larger --config.data.validation_share, or with more"),
        ([50.0, 50.0, 50.0], r"the 3 scans of the run's validation are all of one age; train anew with a larger"),
        ([50.0, 60.0, 70.0], r"the model predicts what is no number for the 3 scans .*; evaluate another round"),
    ],
)
def test_why_nothing_is_corrected_names_the_reason_that_holds(ages, why):
    assert re.match(why, why_no_age_bias(ages))
    assert fit_age_bias([np.nan] * len(ages), ages) is None  # in all of these cases there is no line

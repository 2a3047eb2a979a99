"""Runs that predict something else than the age: trained, shown, judged on other scans, compared and attacked."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from fedsparse_jax.config import experiment_from_config, load_config, load_run
from fedsparse_jax.core.files import read_tsv
from fedsparse_jax.reporting.report import write_report
from fedsparse_jax.runs import read_records, run_experiment
from fedsparse_jax.runs.run_dir import stored_config
from fedsparse_jax.studies import AuditOptions, audit_run, evaluate_run, predict_scans, train_shadows
from tests.helpers.interrupted import QUIET

pytestmark = pytest.mark.slow  # runs of seconds, and many of them

CONFIG = f"{Path(__file__).parents[2]}/configs/labels.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """The folder of a smoke run for each label, trained once."""
    folders = {}

    def of(label):
        if label not in folders:
            config = load_config(f"{CONFIG}:{label}+smoke")
            config.data.cache_dir, config.log.tensorboard = cache, False
            folders[label] = tmp_path_factory.mktemp("runs") / label
            run_experiment(experiment_from_config(config), folders[label], QUIET)
        return folders[label]

    return of


def phantom(cache):
    (folder,) = Path(cache).glob("phantom-*")
    return str(folder)


@pytest.mark.parametrize(("label", "names"), [("sex", ["F", "M"]), ("diagnosis", ["control", "patient"])])
def test_classes_of_scans(trained, cache, label, names):
    folder = trained(label)
    assert stored_config(folder)["data"]["classes"] == names
    table = {row["participant_id"]: row[label] for row in read_tsv(Path(phantom(cache)) / "participants.tsv")}
    predictions = read_tsv(folder / "predictions.tsv")
    assert [table[row["participant_id"]] for row in predictions] == [row["label"] for row in predictions]
    right = np.mean([row["label"] == row["predicted_label"] for row in predictions])
    assert read_records(folder)[-1].test["accuracy"] == pytest.approx(right)
    page = write_report(folder).read_text()
    assert "AUC" in page and "balanced accuracy" in page and (folder / "figures/confusion.png").exists()
    assert "Test people by class" in page and (folder / "figures/scans.png").exists()


def test_a_number_with_a_unit(trained, cache):
    folder = trained("memory")
    table = {row["participant_id"]: float(row["memory"]) for row in read_tsv(Path(phantom(cache)) / "participants.tsv")}
    predictions = read_tsv(folder / "predictions.tsv")
    errors = [abs(table[row["participant_id"]] - float(row["predicted_memory"])) for row in predictions]
    assert read_records(folder)[-1].test["mae"] == pytest.approx(np.mean(errors), abs=1e-2)
    page = write_report(folder).read_text()
    assert "points" in page and "years" not in page and (folder / "figures/error_by_target.png").exists()


def test_other_scans_are_judged_by_the_label_of_the_run(trained, cache):
    scans = evaluate_run(trained("sex"), phantom(cache))
    head, *rows = (line.split("\t") for line in scans.table.splitlines())
    assert head == ["participant_id", "session", "site", "label", "predicted_label", "probability", "set"]
    tested = [row for row in rows if row[-1] == "test"]
    truth, predicted = ([row[place] == "M" for row in tested] for place in (3, 4))
    assert scans.quality["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    men = [float(row[5]) if row[4] == "M" else 1 - float(row[5]) for row in tested]
    assert scans.quality["auc"] == pytest.approx(metrics.roc_auc_score(truth, men), abs=0.03)  # four digits may tie
    assert scans.quality["n"] == len(tested) and scans.trained_quality["n"] == len(rows) - len(tested)


def test_somebody_of_no_class_of_the_run_is_left_out(trained, cache, tmp_path):
    table = (Path(phantom(cache)) / "participants.tsv").read_text().replace("\tpatient\t", "\tunclear\t", 3)
    (tmp_path / "participants.tsv").write_text(table)
    settings = [("data.options.participants", str(tmp_path / "participants.tsv"))]
    scans = evaluate_run(trained("diagnosis"), phantom(cache), settings)
    assert [drop.reason for drop in scans.dropped] == ["diagnosis is none of data.classes"] * 3


def test_predictions_of_classes_need_no_label(trained, cache, tmp_path):
    (image,) = Path(phantom(cache)).glob("sub-0003/anat/*.nii.gz")
    found = predict_scans(trained("sex"), [str(image)])
    head, row = (line.split("\t") for line in found.table.splitlines())
    assert head == ["participant_id", "session", "predicted_sex", "probability_F", "probability_M", "warnings", "file"]
    shares = [float(value) for value in row[3:5]]
    assert sum(shares) == pytest.approx(1, abs=2e-4) and row[2] == "FM"[int(np.argmax(shares))]


def test_a_classifier_is_attacked_with_shadows_and_shown(trained, cache, tmp_path):
    folder = trained("sex")
    train_shadows(load_run(folder)[0], tmp_path / "shadows", 4, run=folder, print_fn=QUIET)
    audit = audit_run(folder, "outsider", shadows=tmp_path / "shadows", options=AuditOptions(draws=20), print_fn=QUIET)
    found = audit["threats"]["outsider"]
    for name in ("error_threshold", "lira_online", "lira_offline", "rmia"):
        assert 0 <= found[name]["everybody"]["auc"]["value"] <= 1
    test = read_records(folder)[-1].test["accuracy"]
    assert audit["test_accuracy"] == pytest.approx(test) and audit["gap"] == audit["train_accuracy"] - test
    assert "Train accuracy" in write_report(folder).read_text()
    assert json.loads((folder / "attack.json").read_text())["outsider"]["shadows"] == 4


def test_sexes_of_the_phantom_can_be_read(tmp_path, cache):
    """The task can be learned: a small dense run beats naming the commonest class."""
    config = load_config(f"{CONFIG}:sex+smoke")
    config.rounds, config.pruning.placement, config.data.cache_dir = 15, "none", cache
    with config.unlocked():
        config.data.options = {**config.data.options, "people": 160}
    records = run_experiment(experiment_from_config(config), tmp_path, QUIET)
    assert records[-1].test["auc"] > 0.7 and records[-1].test["accuracy"] > records[-1].baseline

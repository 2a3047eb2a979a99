"""A trained model on scans that its run did not have."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config, load_run, saved_rounds
from fedsparse_jax.config.saved_runs import with_other_scans
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.runs import read_records, run_experiment
from fedsparse_jax.runs.run_dir import recorded_people
from fedsparse_jax.studies import evaluate_run
from tests.helpers.interrupted import QUIET

ROOT = Path(__file__).parents[2]
SCANS = str(ROOT / "tests/files/ds002748_small")  # six real people


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, cache):
    # Dense, because a network that is pruned after so few steps predicts the same age for everybody.
    config = load_config(f"{ROOT}/configs/quickstart.py:dense+smoke")
    config.data.cache_dir, config.log.tensorboard = cache, False
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_experiment(experiment_from_config(config), folder, QUIET)
    return folder


def columns(table):
    head, *rows = (line.split("\t") for line in table.splitlines())
    return dict(zip(head, zip(*rows, strict=True), strict=True))


def test_every_scan_is_predicted_and_judged(workdir):
    scans = evaluate_run(workdir, "bids", SCANS)
    table = columns(scans.table)
    assert list(table) == ["participant_id", "session", "site", "age", "predicted_age", "error", "set"]
    assert table["participant_id"] == ("sub-01", "sub-10", "sub-19", "sub-23", "sub-31", "sub-58")
    ages, predicted = (np.array(table[name], float) for name in ("age", "predicted_age"))
    assert scans.quality["mae"] == pytest.approx(np.abs(predicted - ages).mean(), abs=1e-2)
    assert scans.quality["predict_mean_mae"] == pytest.approx(np.abs(ages - ages.mean()).mean(), abs=1e-2)
    assert scans.quality["n"] == 6 and scans.trained_on == "phantom"
    assert scans.trained_quality is None and set(table["set"]) == {"n/a"}


def phantom_folder(cache):
    (folder,) = Path(cache).glob("phantom-*")
    return folder


def test_people_in_training_are_marked_and_judged_apart(workdir, cache):
    scans, records = evaluate_run(workdir, "bids", str(phantom_folder(cache))), read_records(workdir)
    table, where = columns(scans.table), {e.participant_id: e.set for e in recorded_people(workdir)}
    assert [where[person] for person in table["participant_id"]] == list(table["set"])
    trained, error = np.array(table["set"]) != "test", np.abs(np.array(table["error"], float))
    assert 0 < scans.quality["n"] == (~trained).sum() and scans.trained_quality["n"] == trained.sum()
    assert scans.quality["mae"] == pytest.approx(error[~trained].mean(), abs=1e-3)
    assert scans.trained_quality["mae"] == pytest.approx(error[trained].mean(), abs=1e-3)
    assert scans.quality["mae"] == pytest.approx(records[-1].test["mae"], rel=1e-4)  # the test set of the run


def test_where_nobody_else_is_left_there_is_no_test(workdir, cache, tmp_path):
    root, members = phantom_folder(cache), {e.participant_id for e in recorded_people(workdir) if e.set != "test"}
    shutil.copytree(root, tmp_path / "bids")
    for folder in (tmp_path / "bids").glob("sub-*"):
        if folder.name not in members:
            shutil.rmtree(folder)
    scans = evaluate_run(workdir, "bids", str(tmp_path / "bids"))
    assert scans.quality is None and scans.trained_quality["n"] == len(members)


def test_any_kept_round_can_be_asked_for(workdir):
    first, *_, last = saved_rounds(workdir)
    tables = [evaluate_run(workdir, "bids", SCANS, round_).table for round_ in (first, last, None)]
    assert tables[0] != tables[1] == tables[2]
    with pytest.raises(UsageError, match="no checkpoint of round 99"):
        evaluate_run(workdir, "bids", SCANS, 99)


def test_the_scans_are_brought_onto_the_grid_as_asked(workdir):
    affine, rough = (evaluate_run(workdir, "bids", SCANS, align=align) for align in ("", "rough"))
    assert affine.table == evaluate_run(workdir, "bids", SCANS, align="affine").table != rough.table
    with pytest.raises(UsageError, match="data.align is 'never'"):
        evaluate_run(workdir, "bids", SCANS, align="never")


def test_a_table_of_paths_gives_the_same_predictions(workdir, tmp_path):
    names = columns(evaluate_run(workdir, "bids", SCANS).table)
    lines = ["participant_id,age,path"]
    for person, age in zip(names["participant_id"], names["age"]):
        (path,) = Path(SCANS).glob(f"{person}/anat/*.nii.gz")
        lines.append(f"{person},{age},{path}")
    (tmp_path / "scans.csv").write_text("\n".join(lines) + "\n")
    table = columns(evaluate_run(workdir, "table", str(tmp_path / "scans.csv")).table)
    assert table["predicted_age"] == names["predicted_age"]


def test_the_grid_is_that_of_the_run(workdir):
    config, _, _ = load_run(workdir)
    other = with_other_scans(config, "bids", SCANS)
    assert other.data.source == "bids" and other.data.root == SCANS and other.data.options.to_dict() == {}
    for key in ("shape", "align", "normalise", "cache_dir"):
        assert other.data[key] == config.data[key]
    assert config.data.source == "phantom"  # the run's own config stays as it is


@pytest.mark.parametrize(("source", "root", "message"), [
    ("bids", "/nowhere", "'/nowhere': there is no such folder"),
    ("table", "/nowhere.csv", "/nowhere.csv"),
    ("dicom", SCANS, "data.source is 'dicom'"),
])  # fmt: skip
def test_scans_that_are_not_there_are_refused(workdir, source, root, message):
    with pytest.raises(UsageError, match=message):
        evaluate_run(workdir, source, root)


def test_a_run_on_images_has_no_use_for_scans(tmp_path):
    config = load_config(f"{ROOT}/configs/methods/fedavg.py:digits+smoke")
    run_experiment(experiment_from_config(config), tmp_path / "run", QUIET)
    with pytest.raises(UsageError, match="was trained on images"):
        evaluate_run(tmp_path / "run", "bids", SCANS)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        evaluate_run(tmp_path, "bids", SCANS)

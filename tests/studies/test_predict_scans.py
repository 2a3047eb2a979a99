"""Predictions for scans of whom nothing is known: from files, folders and tables, with warnings."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_tsv, write_whole
from fedsparse_jax.data.tables import NothingLeft
from fedsparse_jax.runs import run_experiment
from fedsparse_jax.studies import evaluate_run, predict_scans
from tests.helpers.interrupted import QUIET

ROOT = Path(__file__).parents[2]
REAL = ROOT / "tests/files/ds002748_small"  # six real people


@pytest.fixture(scope="module")
def workdir(dense_run):
    return dense_run


@pytest.fixture(scope="module")
def cache(phantom_cache):
    return phantom_cache


@pytest.fixture(scope="module")
def phantom(workdir, cache):
    (folder,) = Path(cache).glob("phantom-*")
    return folder


def rows_of(found, tmp_path):
    write_whole(tmp_path / "found.tsv", found.table)
    return read_tsv(tmp_path / "found.tsv")


def images(phantom, count):
    return sorted(phantom.glob("sub-*/anat/*.nii.gz"))[:count]


def test_without_ages_as_evaluate_has_them(workdir, phantom, tmp_path):
    """By files, by a folder without any table, by one with the people's, and by a table of paths."""
    known = {
        line.split("\t")[0]: float(line.split("\t")[4])
        for line in evaluate_run(workdir, str(phantom)).table.splitlines()[1:]
    }
    (tmp_path / "loose").mkdir()
    for image in images(phantom, 3):
        shutil.copy(image, tmp_path / "loose" / image.name)
    table = tmp_path / "paths.csv"
    table.write_text("id,path\n" + "".join(f"{path.name.split('_')[0]},{path}\n" for path in images(phantom, 3)))
    for places in (list(map(str, images(phantom, 3))), [str(tmp_path / "loose")], [str(table)]):
        found = predict_scans(workdir, places)
        rows = rows_of(found, tmp_path)
        assert [row["participant_id"] for row in rows] == ["sub-0001", "sub-0002", "sub-0003"]
        for row in rows:
            assert float(row["predicted_age"]) == pytest.approx(known[row["participant_id"]], abs=2e-3)
        assert found.scans == 3 and found.warned == 0 and found.trained_on == "phantom"
    assert predict_scans(workdir, [str(phantom)]).scans == len(known)


def test_a_name_that_bids_does_not_know_is_the_person(workdir, phantom, tmp_path):
    shutil.copy(images(phantom, 1)[0], tmp_path / "Mrs X.nii.gz")
    (row,) = rows_of(predict_scans(workdir, [str(tmp_path / "Mrs X.nii.gz")]), tmp_path)
    assert row["participant_id"] == "sub-Mrs X" and row["file"].endswith("Mrs X.nii.gz")


def changed(path, where, change):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), where)
    return str(where)


def test_what_is_unlike_the_training_is_warned_of(workdir, phantom, tmp_path):
    image = images(phantom, 1)[0]
    upside_down = changed(image, tmp_path / "turned.nii.gz", lambda data: data[:, :, ::-1].copy())
    inverted = changed(image, tmp_path / "inverted.nii.gz", lambda data: np.where(data > 0, data.max() + 1 - data, 0))
    as_it_is, *odd = rows_of(predict_scans(workdir, [str(image), upside_down, inverted]), tmp_path)
    assert as_it_is["warnings"] in ("", "n/a")
    assert all("unlike the scans trained on (correlation" in row["warnings"] for row in odd)


def test_ages_outside_of_the_training_are_warned_of(workdir, phantom, tmp_path):
    table = tmp_path / "old.csv"
    first, second = images(phantom, 2)
    table.write_text(f"id,path,age\na,{first},60\nb,{second},101\n")
    middle, old = rows_of(predict_scans(workdir, [str(table)]), tmp_path)
    assert middle["warnings"] in ("", "n/a") and "the age is outside of the training, which had" in old["warnings"]


def test_predictions_that_are_all_the_same_are_noted(workdir, phantom, tmp_path):
    config = load_config(f"{ROOT}/configs/quickstart.py:smoke")
    config.data.cache_dir, config.log.tensorboard, config.rounds = str(tmp_path / "cache"), False, 1
    config.client.optimizer.learning_rate = 1e-30
    with config.unlocked():
        config.pruning.placement = "none"
        config.model.zero_head = True
    run_experiment(experiment_from_config(config), tmp_path / "run", QUIET)
    found = predict_scans(tmp_path / "run", list(map(str, images(phantom, 3))))
    assert any(note.startswith("all predictions are about") for note in found.notes)
    assert not any("all predictions" in note for note in predict_scans(workdir, [str(phantom)]).notes)


def test_what_cannot_be_read_is_left_out_with_its_reason(workdir, phantom, tmp_path):
    (tmp_path / "empty.nii").write_bytes(b"")
    found = predict_scans(workdir, [str(images(phantom, 1)[0]), str(tmp_path / "empty.nii")])
    assert found.scans == 1 and [drop.reason for drop in found.dropped] == ["empty file"]
    with pytest.raises(NothingLeft, match="empty file"):
        predict_scans(workdir, [str(tmp_path / "empty.nii")])


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "There is no .*nowhere; give image files"), ("text.md", "is no image and no table"), ("", "no image")],
)
def test_places_that_hold_nothing_are_refused(workdir, tmp_path, name, message):
    (tmp_path / "text.md").write_text("words")
    with pytest.raises(UsageError, match=message):
        predict_scans(workdir, [str(tmp_path / name)])


def test_a_run_of_before_there_was_a_measure_says_so(workdir, phantom, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "run/likeness.npz").unlink()
    assert any("no likeness.npz" in note for note in predict_scans(tmp_path / "run", [str(phantom)]).notes)

"""Predictions for scans of whom nothing is known: from files, folders and tables, with warnings."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.config import defaults, experiment_from_config, load_config, load_run
from fedsparse_jax.config.saved_runs import with_other_scans
from fedsparse_jax.config.scans import ingest_scans, list_scans
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_tsv, write_whole
from fedsparse_jax.data.loose_scans import list_loose
from fedsparse_jax.data.scan_sources import SCAN_SOURCES
from fedsparse_jax.data.tables import NothingLeft
from fedsparse_jax.runs import run_experiment
from fedsparse_jax.studies import evaluate_run, predict_scans
from tests.helpers import stand_ins
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


# --- runs on other sources, and tables that lack what the run's had -----------------------------

OPTIONS = {
    "radiata": dict(site_col="study", test="own"),
    "openbhb": dict(site_col="site"),
    "abide": dict(controls=True),
}
PATHS = ("data.options.path_col", "t1w,flair")
COHORTS = sorted(set(SCAN_SOURCES) - {"phantom", "bids", "table"})


def folder_of(folder, some, *names):
    folder.mkdir()
    for image, name in zip(some, names):
        shutil.copy(image, folder / f"{name}.nii.gz")
    return str(folder)


@pytest.mark.parametrize("source", COHORTS)
def test_a_folder_that_is_not_laid_out_as_the_runs_is_bids(source, tmp_path):
    config = defaults()
    with config.unlocked():
        config.data.source, config.data.options = source, OPTIONS.get(source, {})
    (tmp_path / "Mrs X.nii.gz").touch()
    for folder in (tmp_path, REAL):  # and whatever is a folder of files stays one
        own = "files" if source == "files" else "bids"
        assert with_other_scans(config, str(folder), need_age=False).data.source == own
        assert with_other_scans(config, str(folder), [("data.source", source)], need_age=False).data.source == source


@pytest.mark.parametrize("source", ["radiata", "cat12"])
def test_a_run_on_a_cohort_reads_images_of_any_name_and_a_bids_folder(source, trained_on, phantom, tmp_path):
    run = trained_on(source, options=OPTIONS.get(source, {}))
    places = [
        folder_of(tmp_path / "any", images(phantom, 2), "a", "b"),
        folder_of(tmp_path / "named", images(phantom, 4)[2:], "sub-7_T1w", "sub-8_T1w"),
    ]
    rows = rows_of(predict_scans(run, places), tmp_path)
    assert [row["participant_id"] for row in rows] == ["sub-a", "sub-b", "sub-7", "sub-8"]
    assert predict_scans(run, [str(REAL)]).scans == evaluate_run(run, str(REAL)).quality["n"] == 6


@pytest.mark.parametrize(
    ("source", "write"), [("cat12", stand_ins.write_cat12), ("freesurfer", stand_ins.write_freesurfer)]
)
def test_outputs_of_a_pipeline_need_no_table(source, write, trained_on, tmp_path):
    root = write(tmp_path / "in")
    (root / "participants.csv").unlink()
    rows = rows_of(predict_scans(trained_on(source), [str(root)]), tmp_path)
    assert [row["participant_id"] for row in rows] == [f"sub-0{i}" for i in range(1, 7)]
    wanted = {"cat12": "mwp1", "freesurfer": "norm.mgz"}[source]
    assert all(Path(row["file"]).name.startswith(wanted) for row in rows)


def test_scans_are_read_in_the_space_of_the_run_where_there_is_no_table(trained_on, phantom, tmp_path):
    for space, image in zip("AB", images(phantom, 2)):
        shutil.copy(image, tmp_path / f"sub-1_space-{space}_T1w.nii.gz")
    for space in "AB":
        (row,) = rows_of(predict_scans(trained_on("bids", options=dict(space=space)), [str(tmp_path)]), tmp_path)
        assert f"_space-{space}_" in row["file"]
    assert predict_scans(trained_on("bids", options=dict(space="C")), [str(tmp_path)]).scans == 1


@pytest.mark.parametrize(
    ("source", "options"),
    [("table", dict(age_col="years", sex_col="gender", session_col="visit")), ("radiata", OPTIONS["radiata"])],
)
def test_columns_of_the_run_that_a_table_lacks_are_left_behind(source, options, trained_on, phantom, tmp_path):
    """But not one that is asked for now."""
    run, table = trained_on(source, options=options), tmp_path / "t.csv"
    table.write_text("id,scan\n" + "".join(f"{i},{path}\n" for i, path in enumerate(images(phantom, 2))))
    path_col = ("data.options.path_col", "scan")
    assert predict_scans(run, [str(table)], [path_col]).scans == 2
    column = next(iter(options))
    with pytest.raises(UsageError, match=f"^data.options.{column} is 'mine': .*t.csv has no column 'mine'"):
        predict_scans(run, [str(table)], [path_col, (f"data.options.{column}", "mine")])


def test_the_age_is_not_guessed_where_it_is_judged(trained_on):
    run = trained_on("bids", options=dict(age_col="years", site_col="hospital"))
    with pytest.raises(UsageError, match=r"^data.options.age_col is 'years': .*participants.tsv has no column 'years'"):
        evaluate_run(run, str(REAL))
    assert evaluate_run(run, str(REAL), [("data.options.age_col", "age")]).quality["n"] == 6


# --- several channels, and arrays ---------------------------------------------------------------


def test_a_network_of_more_channels_is_told_how_they_are_named(workdir, cache, phantom, tmp_path):
    """And so they are read."""
    config, _, _ = load_run(workdir)
    config.data.channels = 2
    first, second = images(phantom, 2)
    said = (
        "^The network takes data.channels=2, but here each head has 1 channel; .* --data.options.path_col=t1w,flair.$"
    )
    with pytest.raises(UsageError, match=said):
        ingest_scans(config, lambda cache: list_loose([str(first)], None), trained=True)
    (tmp_path / "two.csv").write_text(f"id,t1w,flair\na,{first},{second}\n")
    named = with_other_scans(config, str(tmp_path / "two.csv"), [PATHS], need_age=False)
    listed = lambda cache: list_scans(named, cache, need_age=False)
    assert ingest_scans(named, listed, trained=True).inputs.shape[-1] == 2
    with pytest.raises(UsageError, match="data.channels is as the run was trained"):
        predict_scans(workdir, [str(first)], [("data.channels", "1")])


def test_files_are_read_by_the_options_of_the_run(trained_on, phantom, tmp_path):
    """An array lies as those of the run did."""
    image = nib.load(images(phantom, 1)[0])
    np.save(tmp_path / "a.npy", np.asarray(image.dataobj))
    affine = tuple(map(float, image.affine.ravel()))
    (as_image,) = rows_of(predict_scans(trained_on("files"), [str(images(phantom, 1)[0])]), tmp_path)
    for place in (tmp_path / "a.npy", tmp_path):
        found = predict_scans(trained_on("files", options=dict(affine=affine)), [str(place)])
        assert rows_of(found, tmp_path)[0]["predicted_age"] == as_image["predicted_age"]

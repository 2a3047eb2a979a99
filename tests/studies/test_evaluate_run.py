"""A trained model on scans that its run did not have."""

import itertools
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.config import chosen_round, experiment_from_config, load_config, load_run, override, saved_rounds
from fedsparse_jax.config.saved_runs import with_other_scans
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.roster import is_trained_on, is_validation, write_roster
from fedsparse_jax.data.tables import NothingLeft
from fedsparse_jax.runs import read_records, run_experiment
from fedsparse_jax.runs.run_dir import recorded_people
from fedsparse_jax.studies import evaluate_run
from tests.helpers.interrupted import QUIET

ROOT = Path(__file__).parents[2]
SCANS = str(ROOT / "tests/files/ds002748_small")  # six real people


@pytest.fixture(scope="module")
def workdir(dense_run):
    return dense_run


@pytest.fixture(scope="module")
def cache(phantom_cache):
    return phantom_cache


def columns(table):
    head, *rows = (line.split("\t") for line in table.splitlines())
    return dict(zip(head, zip(*rows, strict=True), strict=True))


def test_every_scan_is_predicted_and_judged(workdir):
    scans = evaluate_run(workdir, SCANS)
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


def test_an_error_has_an_interval_and_is_given_by_site(workdir, cache):
    scans = evaluate_run(workdir, str(phantom_folder(cache)))
    table = columns(scans.table)
    tested, sites, error = (np.array(table[name]) for name in ("set", "site", "error"))
    tested, error = tested == "test", error.astype(float)
    low, high = scans.quality["intervals"]["mae"]
    assert low < scans.quality["mae"] < high and scans.quality["people"] == tested.sum()
    assert scans.quality["bias"] == pytest.approx(error[tested].mean(), abs=1e-3)
    assert set(scans.sites["sites"]) == set(sites[tested])
    for site, found in scans.sites["sites"].items():
        assert found["mae"] == pytest.approx(np.abs(error[tested & (sites == site)]).mean(), abs=1e-3)
    assert scans.age_bias is None and "corrected" not in scans.quality  # nobody validated
    assert scans.uncorrected.startswith("the run has no validation")
    known = np.isin(sites, sites[~tested])
    assert scans.challenge[3:] == (len(set(sites[~tested])), (tested & known).sum(), (tested & ~known).sum())


def test_each_of_the_runs_test_sets_is_judged(workdir, cache, tmp_path):
    copied = shutil.copytree(workdir, tmp_path / "run")
    record, sets = recorded_people(workdir), itertools.cycle(["internal", "external"])
    named = tuple(e._replace(test_set=next(sets)) if e.set == "test" else e for e in record)
    write_roster(copied / "people.tsv", named)
    scans = evaluate_run(copied, str(phantom_folder(cache)))
    assert list(scans.by_test_set) == ["external", "internal"]
    table, external = columns(scans.table), {e.participant_id for e in named if e.test_set == "external"}
    error = [abs(float(e)) for e, who in zip(table["error"], table["participant_id"]) if who in external]
    assert scans.by_test_set["external"]["n"] == len(error)
    assert scans.by_test_set["external"]["mae"] == pytest.approx(np.mean(error), abs=1e-3)
    assert evaluate_run(copied, SCANS).by_test_set == {}  # of other people


def test_the_score_of_the_challenge_where_some_are_of_other_sites(workdir, cache, tmp_path):
    root = phantom_folder(cache)
    table = columns(evaluate_run(workdir, str(root)).table)
    lines, elsewhere = ["participant_id,age,site,path"], []
    for i, (person, age, part) in enumerate(zip(table["participant_id"], table["age"], table["set"])):
        (path,) = root.glob(f"{person}/anat/*.nii.gz")
        if part == "test" and len(elsewhere) < 2:
            elsewhere.append(i)
        lines.append(f"{person},{age},{'elsewhere' if i in elsewhere else 'AB'[i % 2]},{path}")
    (tmp_path / "scans.csv").write_text("\n".join(lines) + "\n")
    found = evaluate_run(workdir, str(tmp_path / "scans.csv")).challenge
    error = np.abs(np.array(table["error"], float))[elsewhere].mean()
    assert found.external_mae == pytest.approx(error, abs=1e-2)
    assert (found.sites, found.external, found.internal) == (2, 2, list(table["set"]).count("test") - 2)
    assert 0 <= found.site_accuracy <= 1
    assert found.score == pytest.approx(found.external_mae * found.site_accuracy**0.3)


def test_people_in_training_are_marked_and_judged_apart(workdir, cache):
    scans, records = evaluate_run(workdir, str(phantom_folder(cache))), read_records(workdir)
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
    scans = evaluate_run(workdir, str(tmp_path / "bids"))
    assert scans.quality is None and scans.trained_quality["n"] == len(members)


def test_any_kept_round_can_be_asked_for(workdir):
    first, *_, last = saved_rounds(workdir)
    tables = [evaluate_run(workdir, SCANS, round_=round_).table for round_ in (first, last, None)]
    assert tables[0] != tables[1] == tables[2]
    with pytest.raises(UsageError, match="no checkpoint of round 99"):
        evaluate_run(workdir, SCANS, round_=99)


def test_the_scans_are_brought_onto_the_grid_as_asked(workdir):
    affine, rough = (evaluate_run(workdir, SCANS, align and [("data.align", align)]) for align in ("", "rough"))
    assert affine.table == evaluate_run(workdir, SCANS, [("data.align", "affine")]).table != rough.table
    with pytest.raises(UsageError, match="data.align is 'never'"):
        evaluate_run(workdir, SCANS, [("data.align", "never")])


def test_a_table_of_paths_gives_the_same_predictions(workdir, tmp_path):
    names = columns(evaluate_run(workdir, SCANS).table)
    lines = ["participant_id,age,path"]
    for person, age in zip(names["participant_id"], names["age"]):
        (path,) = Path(SCANS).glob(f"{person}/anat/*.nii.gz")
        lines.append(f"{person},{age},{path}")
    (tmp_path / "scans.csv").write_text("\n".join(lines) + "\n")
    table = columns(evaluate_run(workdir, str(tmp_path / "scans.csv")).table)
    assert table["predicted_age"] == names["predicted_age"]


def test_the_grid_is_that_of_the_run(workdir):
    config, _, _ = load_run(workdir)
    other = with_other_scans(config, SCANS)
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
        evaluate_run(workdir, root, [("data.source", source)])


def test_a_run_on_images_has_no_use_for_scans(tmp_path):
    config = load_config(f"{ROOT}/configs/methods/fedavg.py:digits+smoke")
    run_experiment(experiment_from_config(config), tmp_path / "run", QUIET)
    with pytest.raises(UsageError, match="was trained on images"):
        evaluate_run(tmp_path / "run", SCANS)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        evaluate_run(tmp_path, SCANS)


def two_images_a_person(root, people):
    """Derivatives with a scan in each of two spaces, the second one upside down, and two columns of ages."""
    import nibabel as nib

    rows = ["participant_id\tage\tage_at_scan"]
    for i, path in enumerate(people):
        image, name = nib.load(path), path.parts[-3]
        folder = root / name / "anat"
        folder.mkdir(parents=True)
        nib.save(image, folder / f"{name}_space-A_T1w.nii.gz")
        flipped = nib.Nifti1Image(np.asanyarray(image.dataobj)[:, :, ::-1], image.affine)
        nib.save(flipped, folder / f"{name}_space-B_T1w.nii.gz")
        rows.append(f"{name}\t10\t{60 + i}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory, cache, workdir):
    """A run on one of two images, by one of two columns; and its folder."""
    root = two_images_a_person(
        tmp_path_factory.mktemp("own") / "bids", sorted(phantom_folder(cache).glob("sub-*/anat/*.nii.gz"))[:16]
    )
    settings = dict(source="bids", root=str(root), cache_dir=cache, align="rough")
    options = dict(space="B", age_col="age_at_scan")
    pairs = [(f"data.{key}", text) for key, text in settings.items()]
    pairs += [(f"data.options.{key}", text) for key, text in options.items()] + [
        ("partition.num_clients", "2"),
        ("rounds", "1"),
    ]
    workdir = tmp_path_factory.mktemp("own-runs") / "run"
    config = override(load_config(f"{ROOT}/configs/quickstart.py:dense+smoke"), pairs)
    run_experiment(experiment_from_config(config), workdir, QUIET)
    return workdir, root


def test_scans_are_read_as_the_run_read_its_own(workdir, own):
    run, root = own
    scans, said = evaluate_run(run, str(root)), columns((run / "predictions.tsv").read_text())
    table = columns(scans.table)
    told = dict(zip(table["participant_id"], zip(table["age"], table["predicted_age"])))
    for person, age, predicted in zip(said["participant_id"], said["age"], said["predicted_age"]):
        assert told[person] == (age, predicted)
    assert set(table["set"]) == {"test", "L1", "L2"}
    for part in ("source bids", "align rough", "space B", "age_col age_at_scan"):
        assert part in scans.read_as
    other = columns(evaluate_run(run, str(root), [("data.options.space", "A")]).table)
    assert other["predicted_age"] != table["predicted_age"]


def test_options_of_the_run_hold_for_other_folders_too_and_can_be_set_anew(own, tmp_path):
    run, root = own
    shutil.copytree(root, tmp_path / "other")
    config, _, _ = load_run(run)
    assert with_other_scans(config, str(tmp_path / "other")).data.options.to_dict() == dict(
        space="B", age_col="age_at_scan"
    )
    (tmp_path / "other/participants.tsv").write_text(
        "participant_id\tage\n" + "".join(f"sub-{i:04d}\t6{i % 10}\n" for i in range(1, 17))
    )
    with pytest.raises(UsageError, match=r"^data.options.age_col is 'age_at_scan': .*participants.tsv has no column"):
        evaluate_run(run, str(tmp_path / "other"))
    assert evaluate_run(run, str(tmp_path / "other"), [("data.options.age_col", "")]).quality["n"] == 16


def test_people_are_known_by_where_their_scans_lie_whatever_their_age_is_said_to_be(own, tmp_path):
    """By another column of ages in the same folder, and by a table of its images."""
    run, root = own
    other_age = evaluate_run(run, str(root), [("data.options.age_col", "age")])
    trained = sum(is_trained_on(entry.set) for entry in recorded_people(run))
    assert other_age.trained_quality["n"] == trained and other_age.quality["n"] == 16 - trained
    rows = [f"{path.parts[-3]},33,{path}" for path in sorted(root.glob("sub-*/anat/*_space-B_T1w.nii.gz"))]
    (tmp_path / "t.csv").write_text("\n".join(["id,age_at_scan,path", *rows]) + "\n")
    assert evaluate_run(run, str(tmp_path / "t.csv")).trained_quality["n"] == trained


def test_where_names_alone_agree_both_errors_are_told(own, tmp_path):
    """Follow-ups of two people trained on and of one tested, and a stranger, who come from somewhere else."""
    run, root = own
    trained = [e.participant_id for e in recorded_people(run) if is_trained_on(e.set)][:2]
    tested = next(e.participant_id for e in recorded_people(run) if e.set == "test")
    images = sorted(root.glob("sub-*/anat/*_space-B_T1w.nii.gz"))
    rows = [
        f"{name},ses-2,70,{shutil.copy(path, tmp_path)}" for name, path in zip([*trained, tested, "sub-99"], images)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["id,session,age_at_scan,path", *rows]) + "\n")
    scans = evaluate_run(run, str(tmp_path / "t.csv"))
    assert scans.trained_quality is None and scans.quality["n"] == 4
    table = columns(scans.table)
    error = np.abs(np.array(table["error"], float))
    like = np.isin(table["participant_id"], trained)
    (told,) = [remark for remark in scans.remarks if "names are those of people" in remark]
    assert told.startswith(f"2 names are those of people whom the run trained on ({', '.join(sorted(trained))})")
    theirs, others = (float(part) for part in re.findall(r"MAE ([\d.]+) y[^,;]*, RMSE", told))
    assert theirs == pytest.approx(error[like].mean(), abs=0.01)
    assert others == pytest.approx(error[~like].mean(), abs=0.01)


def test_files_of_the_runs_own_data_are_left_behind_where_the_data_are_others(own, tmp_path):
    config, _, _ = load_run(own[0])
    options = [("data.options.participants", "p.tsv"), ("data.options.splits", "split")]
    config = override(config, options)
    assert "participants" not in with_other_scans(config, str(tmp_path)).data.options
    assert with_other_scans(config, str(own[1])).data.options.participants == "p.tsv"
    assert "splits" not in with_other_scans(config, str(own[1])).data.options


def test_a_file_is_a_table_and_a_folder_is_what_the_run_reads(own, workdir, tmp_path):
    (tmp_path / "t.csv").touch()
    for run, in_folder in ((own[0], "bids"), (workdir, "bids")):
        config, _, _ = load_run(run)
        assert with_other_scans(config, str(tmp_path)).data.source == in_folder
        assert with_other_scans(config, str(tmp_path / "t.csv")).data.source == "table"


@pytest.mark.parametrize("key", ["data.shape", "data.normalise", "rounds", "model.name"])
def test_what_the_network_was_trained_for_cannot_be_set_anew(workdir, key):
    with pytest.raises(UsageError, match=f"{key} is as the run was trained"):
        evaluate_run(workdir, SCANS, [(key, "1")])


def test_what_is_left_out_and_what_looks_wrong_is_told(workdir, tmp_path):
    good = next(Path(SCANS).glob("sub-01/anat/*.nii.gz"))
    (tmp_path / "bad.nii.gz").write_bytes(good.read_bytes()[:1000])
    upright = nib.load(good)
    nib.save(nib.Nifti1Image(np.asarray(upright.dataobj)[:, :, ::-1], upright.affine), tmp_path / "turned.nii.gz")
    (tmp_path / "t.csv").write_text(f"id,age,path\n1,30,turned.nii.gz\n2,31,bad.nii.gz\n3,n/a,{good}\n")
    scans = evaluate_run(workdir, str(tmp_path / "t.csv"))
    assert scans.quality["n"] == 1
    assert sorted(drop.reason for drop in scans.dropped) == ["age is missing", "damaged compression"]
    assert any("upside down" in remark for remark in scans.remarks)
    (tmp_path / "t.csv").write_text("id,age,path\n2,31,bad.nii.gz\n")
    with pytest.raises(
        NothingLeft, match=r"None of the 1 scans can be used \(1 x damaged compression\); the first is .*bad.nii.gz"
    ):
        evaluate_run(workdir, str(tmp_path / "t.csv"))


# --- validation ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validated(tmp_path_factory, cache):
    config = load_config(f"{ROOT}/configs/quickstart.py:dense+smoke")
    config.data.cache_dir, config.log.tensorboard, config.rounds = cache, False, 1
    config.data.validation_share = 0.3
    folder = tmp_path_factory.mktemp("runs") / "validated"
    run_experiment(experiment_from_config(config), folder, QUIET)
    return folder


def test_people_of_the_validation_are_marked_and_are_neither_trained_on_nor_a_test(validated, cache):
    scans, (record,) = evaluate_run(validated, str(phantom_folder(cache))), read_records(validated)
    sets, error = (np.array(columns(scans.table)[name]) for name in ("set", "error"))
    validating, error = np.char.endswith(sets, "-validation"), np.abs(error.astype(float))
    assert scans.validation_quality["n"] == validating.sum() > 0
    assert scans.validation_quality["mae"] == pytest.approx(error[validating].mean(), abs=1e-3)
    assert scans.validation_quality["mae"] == pytest.approx(record.validation["mae"], rel=1e-4)
    assert scans.quality["n"] == (sets == "test").sum()
    assert scans.quality["mae"] == pytest.approx(record.test["mae"], rel=1e-4)
    assert scans.trained_quality["n"] == len(sets) - scans.quality["n"] - scans.validation_quality["n"]


def test_the_age_bias_of_the_validation_corrects_whatever_is_evaluated(validated, cache):
    scans, (record,) = evaluate_run(validated, SCANS), read_records(validated)
    table, line = columns(scans.table), record.age_bias
    ages, predicted, corrected = (np.array(table[name], float) for name in ("age", "predicted_age", "corrected_error"))
    np.testing.assert_allclose(corrected, predicted - line["slope"] * ages - line["offset"], atol=0.01)
    assert scans.quality["corrected"]["mae"] == pytest.approx(np.abs(corrected).mean(), abs=1e-2)
    assert scans.uncorrected == ""
    assert scans.age_bias._asdict() == line and line["scans"] == len(
        [entry for entry in recorded_people(validated) if entry.set.endswith("-validation")]
    )
    of_all = columns(evaluate_run(validated, str(phantom_folder(cache))).table)
    validating = np.char.endswith(np.array(of_all["set"]), "-validation")
    assert np.array(of_all["corrected_error"], float)[validating].mean() == pytest.approx(0, abs=1e-3)


def test_too_small_a_validation_is_not_taken_for_none(validated, tmp_path):
    few = shutil.copytree(validated, tmp_path / "few")
    recorded = recorded_people(few)
    spare = [entry for entry in recorded if is_validation(entry.set)][2:]
    write_roster(few / "people.tsv", tuple(entry for entry in recorded if entry not in spare))
    records = [record.to_json() for record in read_records(few)]
    (few / "metrics.jsonl").write_text("".join(json.dumps(one | {"age_bias": {}}) + "\n" for one in records))
    scans = evaluate_run(few, SCANS)
    assert scans.age_bias is None and scans.uncorrected.startswith("the run's validation has 2 scans, and to learn it")


def test_the_best_round_is_asked_for_by_name(validated, workdir):
    assert chosen_round(validated, "best") == 1 and chosen_round(validated, "last") is None
    assert chosen_round(validated, "7") == 7
    with pytest.raises(
        UsageError, match="has no validation that could tell which round is the best; give --which=last"
    ):
        chosen_round(workdir, "best")
    with pytest.raises(UsageError, match="--which is '-1': it must be best, last, or the number of a round"):
        chosen_round(validated, "-1")
    records = [record.to_json() | {"may_be_best": False} for record in read_records(validated)]
    before = (validated / "metrics.jsonl").read_text()
    (validated / "metrics.jsonl").write_text(json.dumps(records[0]) + "\n")
    with pytest.raises(UsageError, match="no round of .* was measured on validation at the final sparsity"):
        chosen_round(validated, "best")
    (validated / "metrics.jsonl").write_text(before)


def test_a_folder_with_validation_is_opened_as_it_was_divided(validated):
    experiment = experiment_from_config(load_run(validated)[0], workdir=validated)
    named = {e.participant_id for e in recorded_people(validated) if e.set.endswith("-validation")}
    data = experiment.federation
    assert {data.people[row]["participant_id"] for row in data.validation_rows} == named != set()
    assert not named & {data.people[row]["participant_id"] for rows in (*data.members, data.test) for row in rows}

"""Who is who from the first round to the last audit: a run goes on with its own people, or refuses others by name."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config, load_run
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.phantom.cohort import write_cohort
from fedsparse_jax.runs import read_records, run_experiment
from fedsparse_jax.runs.run_dir import recorded_people
from fedsparse_jax.studies import train_shadows
from fedsparse_jax.studies.audit_run import load_audited_run
from tests.helpers.interrupted import QUIET, Killed, stop_after

PEOPLE = 16


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Fewer people than there are files for in `more`, which begins with the same ones."""
    root = tmp_path_factory.mktemp("cohort")
    for name, people in (("bids", PEOPLE), ("more", PEOPLE + 1)):
        write_cohort(root / name, people=people, shape=(16, 18, 16))
    return root


@pytest.fixture(scope="module")
def half_done(cohort, tmp_path_factory, repository):
    """A run that was stopped after its second round of four, and the function that goes on with it."""
    cache = tmp_path_factory.mktemp("cache")

    def go_on(root, workdir, print_fn=QUIET):
        config = load_config(f"{repository}/configs/leakage_study.py:smoke+0")
        config.log.tensorboard, config.rounds = False, 4
        with config.unlocked():
            config.data.update(source="bids", root=str(root), cache_dir=str(cache))
            config.data.options = {}
            config.model.update(output_mean=62.0, output_scale=7.0)  # fixed, so that the config tells nothing of people
        return run_experiment(experiment_from_config(config, workdir=workdir), workdir, print_fn)

    workdir = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(Killed):
        go_on(cohort / "bids", workdir, stop_after(2))
    return workdir, go_on


@pytest.fixture
def copies(half_done, cohort, tmp_path):
    """The stopped run and its scans, to be changed."""
    workdir, go_on = half_done
    shutil.copytree(workdir, tmp_path / "run")
    shutil.copytree(cohort / "bids", tmp_path / "bids")
    return tmp_path / "run", tmp_path / "bids", go_on


def lose(root):
    next((root / "sub-0007").rglob("*.nii.gz")).unlink()


def break_(root):
    file = next((root / "sub-0007").rglob("*.nii.gz"))
    file.write_bytes(file.read_bytes()[:200])


def scan_again(root):
    """A second session of somebody who was there; his table says when."""
    person = root / "sub-0007"
    first = next(person.rglob("*_T1w.nii.gz"))
    second = person / "ses-2/anat/sub-0007_ses-2_T1w.nii.gz"
    second.parent.mkdir(parents=True)
    image = nib.load(first)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 1.5, image.affine), second)
    (person / "sub-0007_sessions.tsv").write_text("session_id\tage\nses-2\t70\n")


def copy_under_another_name(root):
    """Somebody comes for a second time, as another person; the copy is left out, and the run goes on."""
    shutil.copytree(root / "sub-0007", root / "sub-9999")
    for file in (root / "sub-9999").rglob("*sub-0007*"):
        file.rename(file.with_name(file.name.replace("sub-0007", "sub-9999")))
    table = root / "participants.tsv"
    (row,) = [line for line in table.read_text().splitlines() if line.startswith("sub-0007")]
    table.write_text(table.read_text().rstrip("\n") + "\n" + row.replace("sub-0007", "sub-9999") + "\n")


def swap_for_larger(root):
    shutil.rmtree(root)
    shutil.copytree(root.parent / "more", root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose, r"missing here: sub-0007\)"),
        (break_, r"missing here: sub-0007\)"),
        (scan_again, r"new here: sub-0007\)"),
        (swap_for_larger, r"new here: sub-"),
    ],
)
def test_a_run_does_not_go_on_with_other_people(copies, cohort, change, message):
    workdir, root, go_on = copies
    shutil.copytree(cohort / "more", root.parent / "more")
    before = (workdir / "people.tsv").read_text()
    change(root)
    with pytest.raises(UsageError, match=message):
        go_on(root, workdir)
    assert (workdir / "people.tsv").read_text() == before and len(read_records(workdir)) == 2


def test_a_copy_of_somebody_by_another_name_changes_nothing(copies):
    workdir, root, go_on = copies
    copy_under_another_name(root)
    assert len(go_on(root, workdir)) == 4
    assert "sub-9999" not in {entry.participant_id for entry in recorded_people(workdir)}


def test_scans_may_move_to_another_folder(copies):
    workdir, root, go_on = copies
    records = go_on(root, workdir)
    assert len(records) == 4 and {entry.set for entry in recorded_people(workdir)} == {"L1", "test"}


def test_without_a_record_scans_may_not_move(copies):
    workdir, root, go_on = copies
    (workdir / "people.tsv").unlink()  # as in a run folder of an earlier version
    with pytest.raises(UsageError, match=r"holds another experiment: there data.root is "):
        go_on(root, workdir)


def test_neither_audits_nor_shadows_divide_anew(copies, tmp_path):
    workdir, root, go_on = copies
    go_on(root, workdir)
    run = load_audited_run(workdir)
    trained = {entry.participant_id for entry in recorded_people(workdir) if entry.set == "L1"}
    assert {run.data.people[row]["participant_id"] for row in np.concatenate(run.data.members)} == trained
    lose(root)
    with pytest.raises(UsageError, match="missing here: sub-0007"):
        load_audited_run(workdir)
    with pytest.raises(UsageError, match="missing here: sub-0007"):
        train_shadows(load_run(workdir)[0], tmp_path / "shadows", 2, run=workdir, print_fn=QUIET)


def test_the_recorded_split_counts_and_not_the_drawn_one(copies):
    """As where a later version draws the split otherwise."""
    workdir, root, go_on = copies
    head, *rows = (workdir / "people.tsv").read_text().splitlines()
    flipped = [row.replace("\ttest", "\tx").replace("\tL1", "\ttest").replace("\tx", "\tL1") for row in rows]
    (workdir / "people.tsv").write_text("\n".join([head, *flipped]) + "\n")
    go_on(root, workdir)
    predicted = {line.split("\t")[0] for line in (workdir / "predictions.tsv").read_text().splitlines()[1:]}
    assert predicted == {row.split("\t")[0] for row in flipped if row.endswith("\ttest")}

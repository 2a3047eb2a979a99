"""The scripts as a user runs them: exit codes, sentences, and a run that is killed."""

import json
import signal
import time

import numpy as np
import pytest

from fedsparse_jax.data import coarse_brain
from fedsparse_jax.runs.migrations import RENAMED_KEYS

SCRIPTS = (
    "train",
    "evaluate",
    "prepare",
    "report",
    "study",
    "cross_validate",
    "audit_run",
    "train_shadows",
    "study_leakage",
    "study_poison",
    "study_registration",
    "make_coarse_brain",
)


@pytest.fixture(scope="module")
def trained(call, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "smoke"
    done = call("train", "--config=configs/quickstart.py:smoke", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_train_shows_a_line_a_round_and_writes_the_report(trained):
    workdir, shown = trained
    lines = [line for line in shown.splitlines() if line.startswith("round")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    for name in ("config", "environment", "federation"):
        assert (workdir / f"{name}.json").exists()
    for name in ("metrics.jsonl", "predictions.tsv", "report.html"):
        assert (workdir / name).exists()
    environment = json.loads((workdir / "environment.json").read_text())
    assert environment["seed"] == 1990 and "jax" in environment["versions"]


def test_a_finished_run_is_not_trained_again(call, trained):
    workdir, _ = trained
    before = (workdir / "metrics.jsonl").read_text()
    again = call("train", "--config=configs/quickstart.py:smoke", f"--workdir={workdir}")
    assert again.returncode == 0 and "round 1/" not in again.stdout
    assert (workdir / "metrics.jsonl").read_text() == before


def test_report_is_written_anew(call, trained):
    workdir, _ = trained
    (workdir / "report.html").unlink()
    done = call("report", f"--workdir={workdir}")
    assert done.returncode == 0 and done.stdout == f"Report: {workdir / 'report.html'}\n"
    assert "<h2>Accuracy</h2>" in (workdir / "report.html").read_text()


def test_evaluate_on_real_brains(call, trained, tmp_path):
    workdir, _ = trained
    table = tmp_path / "predictions.tsv"
    done = call("evaluate", f"--workdir={workdir}", "--root=tests/files/ds002748_small", f"--output={table}")
    assert done.returncode == 0, done.stderr
    assert "knows nothing about real brains" in done.stdout
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert rows[0][:1] == ["participant_id"] and len(rows) == 7
    assert np.isfinite([float(row[4]) for row in rows[1:]]).all()


def test_prepare_real_brains(call, tmp_path):
    done = call(
        "prepare",
        "--config=configs/real_scans.py",
        "--config.data.root=tests/files/ds002748_small",
        f"--output={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    assert "accepted  6 scans of 6 people" in done.stdout
    assert (tmp_path / "contact_sheet.png").stat().st_size > 10_000
    assert len((tmp_path / "accepted.tsv").read_text().splitlines()) == 7
    assert "align     rough: " in done.stdout and "<h2>Quality</h2>" in (tmp_path / "cohort.html").read_text()


def test_prepare_shows_people_who_cannot_be_divided(call, tmp_path):
    flags = ["--config=configs/real_scans.py", "--config.data.root=tests/files/ds002748_small", f"--output={tmp_path}"]
    done = call("prepare", *flags, "--config.partition.num_clients=9")
    assert done.returncode == 0 and "not divided: " in done.stdout
    assert "cannot be divided so" in (tmp_path / "cohort.html").read_text()


@pytest.mark.slow
def test_raw_scans_are_registered_and_the_study_counts_them(call, tmp_path):
    pytest.importorskip("SimpleITK")
    root = one_scan_of(tmp_path)
    flags = ["--config=configs/real_scans.py", f"--config.data.root={root}", f"--output={tmp_path / 'prepared'}"]
    cache = f"--config.data.cache_dir={tmp_path / 'cache'}"
    done = call("prepare", *flags, "--config.data.align=register", "--config.data.workers=2", cache)
    assert done.returncode == 0, done.stderr
    assert "align     register: " in done.stdout and len(list((tmp_path / "cache/registrations").glob("*.npz"))) == 1
    done = call("study_registration", f"--root={root}", "--workers=2", f"--picture={tmp_path / 'picture.png'}")
    assert done.returncode == 0, done.stderr
    assert "of 1 landed right." in done.stdout and (tmp_path / "picture.png").stat().st_size > 10_000


def one_scan_of(folder):
    """A BIDS folder with one head in it."""
    import nibabel as nib

    from tests.helpers.heads import template_brain, with_skull

    (folder / "bids/sub-1/anat").mkdir(parents=True)
    (folder / "bids/participants.tsv").write_text("participant_id\tage\nsub-1\t44\n")
    nib.save(nib.Nifti1Image(*with_skull(*template_brain())), folder / "bids/sub-1/anat/sub-1_T1w.nii.gz")
    return folder / "bids"


def test_the_coarse_brain_is_what_its_script_makes(call, tmp_path):
    pytest.importorskip("nilearn")
    done = call("make_coarse_brain", f"--output={tmp_path / 'made.npz'}")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "made.npz") as made, np.load(coarse_brain.COARSE_FILE) as kept:
        assert sorted(made) == sorted(kept)
        for name in kept:
            np.testing.assert_allclose(made[name].astype(float), kept[name].astype(float), atol=1)


def test_a_folder_that_cannot_be_made_is_one_sentence(call, tmp_path):
    (tmp_path / "file").touch()
    done = call("train", "--config=configs/methods/fedavg.py:digits+smoke", f"--workdir={tmp_path}/file/run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "file/run: Not a directory; a part of that path is a file; choose another folder." in done.stderr


def test_prepare_refuses_images(call, tmp_path):
    done = call("prepare", "--config=configs/methods/fedavg.py:digits", f"--output={tmp_path}")
    assert done.returncode == 2 and "data.source is 'digits': it must be one of phantom" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.rouns=3"], "no key 'rouns'; did you mean 'rounds'?"),
        (["--config.zzz=3"], "no key"),
        (["--config.rounds=many"], "many"),
        (["--bogus=1"], "bogus"),
        (["extra"], "'extra' is not a flag"),
        (["--config=configs/nope.py"], "no config file configs/nope.py"),
        (["--config=configs/quickstart.py:tiny"], "no form 'tiny'; behind the file name may stand: smoke, dense"),
        (["--config.data.shape=(3,9,9)"], "does not survive 2 poolings"),
        (["--config.partition.num_clients=99"], "only 19 people are left"),
        (["--config.pruning.placement=arrival"], "pruning.placement is 'arrival': it must be none, or some of"),
    ],
)
def test_bad_flags_are_one_sentence_and_exit_code_2(call, tmp_path, flags, message):
    done = call("train", "--config=configs/quickstart.py:smoke", f"--workdir={tmp_path / 'run'}", *flags)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


VALUES = {
    "client.towards": "zero",
    "pruning.over": "one",
    "pruning.gate": "0.2",
    "pruning.rewind": "False",
    "wire.mode": "through",
    "wire.dtype": "int8",
    "wire.feedback": "True",
}


@pytest.mark.parametrize("old", RENAMED_KEYS)
def test_a_key_by_its_old_name_is_refused_with_the_new_one(call, tmp_path, old):
    flag = f"--config.{old}={VALUES[old]}"
    done = call("train", "--config=configs/quickstart.py:smoke", f"--workdir={tmp_path / 'run'}", flag)
    assert done.returncode == 2 and f"the config's key {old} is now called {RENAMED_KEYS[old]}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_the_command_and_the_flags(call, script):
    shown = call(script, "--help").stdout
    assert f"python scripts/{script}.py" in shown and "--" in shown


def test_other_scripts_refuse_in_one_sentence(call, tmp_path):
    for script, flags in {"evaluate": ["--root=x"], "report": [], "audit_run": []}.items():
        done = call(script, f"--workdir={tmp_path}", *flags)
        assert done.returncode == 2 and str(tmp_path) in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_audit_shows_a_table_and_adds_to_the_report(call, trained):
    workdir, _ = trained
    flags = ["--attacks=error_threshold,rmia", "--draws=20"]
    done = call("audit_run", f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    assert "| error_threshold | 0." in done.stdout and "Train MAE" in done.stdout
    assert "rmia needs shadow models" in done.stdout and "untrained" in done.stdout
    assert (workdir / "attack.json").exists() and "<h2>Privacy</h2>" in (workdir / "report.html").read_text()
    refused = call("audit_run", f"--workdir={workdir}", "--attacks=magic")
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_shadows_are_trained_from_a_run(call, trained, tmp_path):
    workdir, _ = trained
    done = call("train_shadows", f"--run={workdir}", "--shadows=2", f"--workdir={tmp_path / 'shadows'}")
    assert done.returncode == 0, done.stderr
    assert "shadow 2 of 2" in done.stdout and f"Shadows: {tmp_path / 'shadows'}" in done.stdout
    assert json.loads((tmp_path / "shadows/shadows.json").read_text()) == {"count": 2}
    odd = call("train_shadows", f"--run={workdir}", "--shadows=3", f"--workdir={tmp_path / 'odd'}")
    assert odd.returncode == 2 and "shadows is 3: it must be an even number" in odd.stderr


@pytest.mark.slow
def test_methods_are_compared_in_a_table_and_a_picture(call, tmp_path):
    (tmp_path / "list.txt").write_text("configs/methods/snip.py:digits+smoke  # sparse\n")
    specs = f"configs/methods/fedavg.py:digits+smoke,@{tmp_path / 'list.txt'}"
    done = call("study", f"--configs={specs}", "--seeds=1", "--set=rounds=1,2", f"--workdir={tmp_path / 'runs'}")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "runs/study.md").read_text().partition("\n\n")[0]
    assert "| configs/methods/snip.py:digits+smoke | 2 | 1 | 0.936 |" in table and table in done.stdout
    known = f"--known={tmp_path / 'runs/runs.jsonl.gz'}"
    again = call("study", f"--configs={specs}", "--seeds=1", "--set=rounds=1,2", known, f"--workdir={tmp_path / 'new'}")
    assert again.returncode == 0 and table in again.stdout and "Run 1" not in again.stdout
    assert (tmp_path / "runs/study.png").read_bytes().startswith(b"\x89PNG")
    typed = ("--study=configs/studies/grid.py:headline+smoke", "--seeds=1", f"--workdir={tmp_path / 'headline'}")
    headline = call("study", *typed)
    assert headline.returncode == 0 and "| uniform, non-IID | Global, paced | 95 % | 1 | 0.95" in headline.stdout
    neither = call("study", f"--workdir={tmp_path / 'runs'}")
    assert neither.returncode == 2 and "either --study=FILE, or --configs=" in neither.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on(call, start, trained, tmp_path, how):
    whole, _ = trained
    flags = ["--config=configs/quickstart.py:smoke", f"--workdir={tmp_path / 'run'}"]
    process = start("train", *flags)
    for line in process.stdout:
        if line.startswith("round 1/"):
            break
    process.send_signal(how)
    process.wait()
    assert process.returncode == (130 if how == signal.SIGTERM else -9)
    time.sleep(0.1)
    assert call("train", *flags).returncode == 0
    assert (tmp_path / "run/predictions.tsv").read_text() == (whole / "predictions.tsv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "how"), [("reading scans", signal.SIGTERM), ("compiling", signal.SIGINT), ("training", signal.SIGTERM)]
)
def test_a_run_that_is_asked_to_stop_says_how_to_go_on(call, start, trained, tmp_path, how, moment):
    whole, _ = trained
    cache = [f"--config.data.cache_dir={tmp_path / 'cache'}"] if moment == "reading scans" else []
    flags = ["--config=configs/quickstart.py:smoke", f"--workdir={tmp_path / 'run'}", *cache]
    process = start("train", *flags)
    if moment == "compiling":
        while not (tmp_path / "run/config.json").exists():
            time.sleep(0.05)
    else:
        beginning = {"reading scans": "Reading scans", "training": "round 1/"}[moment]
        next(line for line in process.stdout if line.startswith(beginning))
    process.send_signal(how)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "Stopped. Finished rounds are safe, and the same command goes on from there."
    assert "Traceback" not in said
    assert call("train", *flags).returncode == 0
    assert (tmp_path / "run/predictions.tsv").read_text() == (whole / "predictions.tsv").read_text()


@pytest.mark.slow
def test_planned_memory_is_printed_for_every_way(call):
    flags = ["--config=configs/quickstart.py:smoke", "--config.execution.steps_per_chunk=1"]
    done = call("plan_memory", *flags)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ")[:2] for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    ways = ("| one after another", "| two at a time", "| all at once")
    assert rows == [[way, precision] for way in ways for precision in ("float32", "bfloat16")]

"""The scripts as a user runs them: exit codes, sentences, and a run that is killed."""

import json
import os
import platform
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

SCRIPTS = "train", "evaluate", "prepare", "report", "compare", "attack", "shadows", "audit"


@pytest.fixture(scope="module")
def call(repository, tmp_path_factory):
    """Runs a script in the repository with a cache of its own; returns the finished process."""
    cache = tmp_path_factory.mktemp("scripts")
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "HOME": str(cache)}

    def run(script, *flags, start=False):
        command = [sys.executable, f"scripts/{script}.py", *flags]
        options = dict(cwd=repository, env=environment, text=True)
        if start:
            return subprocess.Popen(command, stdout=subprocess.PIPE, **options)
        return subprocess.run(command, capture_output=True, timeout=300, **options)

    return run


@pytest.fixture(scope="module")
def trained(call, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "smoke"
    done = call("train", "--config=configs/quickstart.py:smoke", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_train_shows_a_line_a_round_and_writes_the_report(trained):
    workdir, shown = trained
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("round")] == [
        "1/3",
        "2/3",
        "3/3",
    ]
    for name in (
        "config.json",
        "environment.json",
        "federation.json",
        "metrics.jsonl",
        "predictions.tsv",
        "report.html",
    ):
        assert (workdir / name).exists()
    environment = json.loads((workdir / "environment.json").read_text())
    assert environment["seed"] == 1990 and "jax" in environment["versions"]


def test_a_finished_run_is_not_trained_again(call, trained):
    workdir, _ = trained
    before = (workdir / "metrics.jsonl").read_text()
    again = call("train", "--config=configs/quickstart.py:smoke", f"--workdir={workdir}")
    assert again.returncode == 0 and "round 1/" not in again.stdout
    assert (workdir / "metrics.jsonl").read_text() == before


def test_evaluate_on_real_brains(call, trained, repository, tmp_path):
    workdir, _ = trained
    table = tmp_path / "predictions.tsv"
    done = call("evaluate", f"--workdir={workdir}", "--root=tests/data/ds002748_small", f"--output={table}")
    assert done.returncode == 0, done.stderr
    assert "knows nothing about real brains" in done.stdout
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert rows[0][:1] == ["participant_id"] and len(rows) == 7
    assert np.isfinite([float(row[4]) for row in rows[1:]]).all()


def test_prepare_real_brains(call, tmp_path):
    done = call(
        "prepare",
        "--config=configs/real.py",
        "--config.data.root=tests/data/ds002748_small",
        f"--output={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    assert "accepted  6 scans of 6 people" in done.stdout
    assert (tmp_path / "contact_sheet.png").stat().st_size > 10_000
    assert len((tmp_path / "accepted.tsv").read_text().splitlines()) == 7


def test_prepare_refuses_images(call, tmp_path):
    done = call("prepare", "--config=configs/fedavg.py:digits", f"--output={tmp_path}")
    assert done.returncode == 2 and "data.source is 'digits': it must be one of phantom" in done.stderr


def test_real_brains_through_the_whole_path(call, tmp_path):
    flags = ["--config.data.root=tests/data/ds002748_small", "--config.data.shape=(16,18,16)", "--config.rounds=4",
             "--config.partition.num_clients=2",
        "--config.pruning.schedule.begin=1",
        "--config.pruning.schedule.end=3", "--config.data.align=affine"]  # fmt: skip
    done = call("train", "--config=configs/real.py", f"--workdir={tmp_path / 'run'}", *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/report.html").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.rouns=3"], "no key 'rouns'; did you mean 'rounds'?"),
        (["--config.zzz=3"], "no key"),
        (["--config.rounds=many"], "many"),
        (["--bogus=1"], "bogus"),
        (["extra"], "'extra' is not a flag"),
        (["--config=configs/nope.py"], "no config file configs/nope.py"),
        (
            ["--config=configs/quickstart.py:tiny"],
            "no form 'tiny'; behind the file name may stand: smoke, dense",
        ),
        (["--config.data.shape=(3,9,9)"], "does not survive 2 poolings"),
        (["--config.partition.num_clients=99"], "only 25 people are left"),
    ],
)
def test_bad_flags_are_one_sentence_and_exit_code_2(call, tmp_path, flags, message):
    done = call("train", "--config=configs/quickstart.py:smoke", f"--workdir={tmp_path / 'run'}", *flags)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_the_command_and_the_flags(call, script):
    shown = call(script, "--help").stdout
    assert f"python scripts/{script}.py" in shown and "--" in shown


def test_other_scripts_refuse_in_one_sentence(call, tmp_path):
    for script, flags in {"evaluate": ["--root=x"], "report": [], "attack": []}.items():
        done = call(script, f"--workdir={tmp_path}", *flags)
        assert done.returncode == 2 and str(tmp_path) in done.stderr and "Traceback" not in done.stderr


def test_attack_shows_a_table_and_adds_to_the_report(call, trained):
    workdir, _ = trained
    flags = ["--attacks=error_threshold,rmia", "--draws=20"]
    done = call("attack", f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    assert "| error_threshold | 0." in done.stdout and "Train MAE" in done.stdout
    assert "rmia needs shadow models" in done.stdout and "untrained" in done.stdout
    assert (workdir / "attack.json").exists() and "<h2>Privacy</h2>" in (workdir / "report.html").read_text()
    refused = call("attack", f"--workdir={workdir}", "--attacks=magic")
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on(call, trained, tmp_path, how):
    whole, _ = trained
    flags = ["--config=configs/quickstart.py:smoke", f"--workdir={tmp_path / 'run'}"]
    process = call("train", *flags, start=True)
    for line in process.stdout:
        if line.startswith("round 1/"):
            break
    process.send_signal(how)
    process.wait()
    assert process.returncode == (130 if how == signal.SIGTERM else -9)
    time.sleep(0.1)
    assert call("train", *flags).returncode == 0
    assert (tmp_path / "run/predictions.tsv").read_text() == (whole / "predictions.tsv").read_text()


def test_freed_memory_is_kept_where_there_is_glibc():
    told = subprocess.run(
        [sys.executable, "-c", "from fedsparse_jax import cli; print(cli.keep_freed_memory())"],
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == str(platform.libc_ver()[0] == "glibc")

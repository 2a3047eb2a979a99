"""Runs that are killed: where a kill fell, what is compared, and that a difference is found."""

import subprocess
import sys
import time

import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.runs import run_experiment
from fedsparse_jax.studies import soak as study
from fedsparse_jax.studies.soak import Chain, Kill, differences, phase, run_contents, soak, soak_table
from tests.helpers.interrupted import QUIET

STEPS = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1]) / "run"
folder.mkdir(exist_ok=True)
done = folder / "done"
if not done.exists():
    done.write_text("")
count = len(done.read_text())
{spoils}
for step in range(count, 6):
    time.sleep(0.1)
    with open(done, "a") as file:
        file.write("x")
    print(f"round {{step + 1}}/6", flush=True)
"""
SOUND, FORGETFUL = STEPS.format(spoils=""), STEPS.format(spoils="(folder / 'begun').write_text(str(count))")


def play(program, tmp_path, **options):
    command = lambda folder: [sys.executable, "-c", program, str(folder)]
    contents = lambda workdir: {path.name: path.read_bytes() for path in workdir.iterdir()}
    return soak({"toy": command}, tmp_path, contents=contents, print_fn=QUIET, **options)


def test_a_program_that_goes_on_is_the_same_after_every_kill(tmp_path):
    chains = play(SOUND, tmp_path, kills=5)
    kills = [kill for chain in chains for kill in chain.kills]
    assert len(kills) == 5 and not any(chain.differences for chain in chains)
    assert all(0 < len(chain.kills) <= study.IN_A_ROW for chain in chains if chain.kills)
    assert len({kill.seconds for kill in kills}) == 5


def test_a_program_that_remembers_where_it_was_stopped_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(study.np.random, "default_rng", lambda seed: Late())
    (chain,) = play(FORGETFUL, tmp_path, kills=1)
    assert chain.differences == ("begun",)


class Late:
    """Draws moments at which the toy has done a step and not all of them."""

    def uniform(self, low, high, count):
        return np.full(count, (high - 0.6) + 0.3)


def test_a_program_that_fails_is_said_to(tmp_path):
    with pytest.raises(UsageError, match=r"exit code 3 when it was not interrupted; see .*said.txt"):
        play("raise SystemExit(3)", tmp_path)


def test_a_program_that_is_never_the_same_is_said_to_be(tmp_path):
    with pytest.raises(UsageError, match="toy gives two results when it is not interrupted: done"):
        play(SOUND + "done.write_text(str(time.time()))", tmp_path)


@pytest.mark.parametrize(
    ("said", "there", "expected"),
    [
        ("", "", "starting"),
        ("writing phantom scans: 4/40\n", "", "reading scans, building the cache"),
        ("Reading scans: 20/40\n", "", "reading scans, building the cache"),
        ("Reading scans: 40/40\n", "", "preparing and compiling"),
        ("Reading scans: 40/40\n", "cache/.scans-1.npy.00.partial", "reading scans, building the cache"),
        ("", "run/config.json", "preparing and compiling"),
        ("round 3/8  sparsity\n", "run/checkpoints/3/commit_success.txt", "training"),
        ("round 3/8  sparsity\n", "run/checkpoints/4.orbax-checkpoint-tmp/x", "saving"),
        ("round 3/8  sparsity\n", "run/checkpoints/1/state", "cleaning up old checkpoints"),
        ("round 8/8  sparsity\n", "run/checkpoints/8/commit_success.txt", "predicting, writing the report"),
        ("round 8/8  sparsity\nReport: report.html\n", "", "leaving"),
    ],
)
def test_where_a_kill_fell(tmp_path, said, there, expected):
    (tmp_path / "said.txt").write_text(said)
    if there:
        (tmp_path / there).parent.mkdir(parents=True)
        (tmp_path / there).touch()
    assert phase(tmp_path) == expected and expected in study.MOMENTS


def test_what_an_earlier_start_left_says_nothing_of_where_a_kill_fell(tmp_path):
    (tmp_path / "said.txt").touch()
    (tmp_path / "run/checkpoints/4.orbax-checkpoint-tmp").mkdir(parents=True)
    (tmp_path / "run/config.json").touch()
    assert phase(tmp_path) == "saving" and phase(tmp_path, since=time.time() + 60) == "starting"


def test_the_table_counts_kills_by_phase_and_case():
    chains = [
        Chain("a", (Kill("a", 1.0, "starting"), Kill("a", 2.0, "saving")), ()),
        Chain("b", (Kill("b", 3.0, "saving"),), ("predictions.tsv",)),
    ]
    rows = soak_table(chains).splitlines()
    assert rows[0] == "|  | a | b | all |"
    assert "| killed while saving | 1 | 1 | 2 |" in rows and "| killed while starting | 1 | 0 | 1 |" in rows
    assert "| kills | 2 | 1 | 3 |" in rows and "| the same run in the end | 1 of 1 | 0 of 1 | 1 of 2 |" in rows


def test_everything_that_a_run_leaves_is_compared(tmp_path):
    config = load_config("configs/methods/fedadam.py:digits+smoke")
    config.rounds = 2
    workdir = tmp_path / "runs/run"
    run_experiment(experiment_from_config(config), workdir, print_fn=QUIET)
    whole = run_contents(workdir)
    names = "".join(whole)
    for part in ("state.params", "state.masks", "state.opt_state", "state.key", "client_records/masks", "round 2"):
        assert part in names
    assert differences(whole, run_contents(workdir)) == []
    for name in ("predictions.tsv", "metrics.jsonl"):
        file = workdir / name
        before = file.read_text()
        file.write_text(before.replace("1", "2", 1) if name == "predictions.tsv" else before.replace("0.", "1.", 1))
        assert any(name in one for one in differences(whole, run_contents(workdir))), name
        file.write_text(before)
    lines = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text(lines.replace('"seconds": ', '"seconds": 1'))
    assert differences(whole, run_contents(workdir)) == []  # times may differ
    (workdir / ".report.html.0a1b2c3d.partial").touch()
    assert differences(whole, run_contents(workdir)) == ["left behind: run/.report.html.0a1b2c3d.partial"]


@pytest.mark.slow
def test_runs_that_are_killed_end_as_if_they_had_not_been(repository, tmp_path):
    command = [sys.executable, "scripts/soak.py", f"--workdir={tmp_path}", "--kills=5", "--cases=int8,lotteryfl"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-2:]
    assert last[0].startswith("| kills |") and last[0].endswith("| 5 |")
    assert last[1].startswith("| the same run in the end |")

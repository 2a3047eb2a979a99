"""The commands of the page about choosing a model, as typed, and what is refused."""

import re
import shlex
from pathlib import Path

import pytest

from fedsparse_jax.runs import read_records

pytestmark = pytest.mark.slow  # runs of seconds, and many of them

PAGE = Path(__file__).parents[2] / "docs/how-to/choose_a_model.md"
SCANS = "tests/files/ds002748_small"  # six real people


@pytest.fixture(scope="module")
def typed(call, tmp_path_factory):
    """What each command of the page printed, by its script, and the run's folder."""
    folder, printed = tmp_path_factory.mktemp("chosen"), {}
    for command in re.findall(r"^ +python (.+)$", PAGE.read_text().replace("\\\n", ""), re.MULTILINE):
        small = command.replace("quickstart.py", "quickstart.py:smoke+dense").replace("NEW_SCANS", SCANS)
        script, *flags = shlex.split(small.replace("runs/", f"{folder}/"))
        quick = ["--attacks=error_threshold", "--draws=20"] if "audit" in script else []
        done = call(Path(script).stem, *flags, *quick)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed[Path(script).stem] = done.stdout
    return printed, folder / "chosen"


def test_the_commands_of_the_page_run_one_after_the_other(typed):
    printed, workdir = typed
    assert list(printed) == ["train", "evaluate", "predict", "audit_run"]
    assert "validation MAE" in printed["train"] and "Best on validation: round" in printed["train"]
    assert len(read_records(workdir)) == 3 and (workdir / "predicted.tsv").exists()
    assert "-validation" in (workdir / "people.tsv").read_text()


def test_the_best_and_the_last_are_other_models(call, typed, tmp_path):
    _, workdir = typed
    tables = {}
    for which in ("1", "3", "last", "best"):
        flags = [f"--workdir={workdir}", f"--root={SCANS}", f"--which={which}", f"--output={tmp_path / which}.tsv"]
        assert call("evaluate", *flags).returncode == 0
        tables[which] = (tmp_path / f"{which}.tsv").read_text()
    records = read_records(workdir)
    best = min(records, key=lambda record: record.validation["mae"]).round
    assert tables["last"] == tables["3"] != tables["1"]
    assert best not in (1, 3) or tables["best"] == tables[str(best)]


@pytest.mark.parametrize(
    ("script", "which", "message"),
    [
        ("evaluate", "first", r"--which is 'first': it must be best, last, or the number of a round\."),
        ("predict", "99", r"holds no checkpoint of round 99; it holds: 1, 2, 3"),
        ("audit_run", "99", r"holds no checkpoint of round 99; it holds: 1, 2, 3"),
    ],
)
def test_a_model_that_is_not_there_is_refused(call, typed, script, which, message):
    places = {"evaluate": [f"--root={SCANS}"], "predict": [SCANS], "audit_run": []}[script]
    done = call(script, f"--workdir={typed[1]}", f"--which={which}", *places)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(message, done.stderr)


def test_without_validation_there_is_no_best(call, tmp_path):
    train = ["--config=configs/quickstart.py:smoke", "--config.rounds=1", "--config.pruning.placement=none"]
    plain = ["--config.log.report=False", "--config.log.tensorboard=False"]
    assert call("train", *train, *plain, f"--workdir={tmp_path / 'run'}").returncode == 0
    done = call("evaluate", f"--workdir={tmp_path / 'run'}", f"--root={SCANS}", "--which=best")
    assert done.returncode == 2 and "has no validation that could tell which round is the best" in done.stderr
    last, validation = re.search(r"give (--which=last), or train anew with (--config\.\S+)\.\n", done.stderr).groups()
    assert call("evaluate", f"--workdir={tmp_path / 'run'}", f"--root={SCANS}", last).returncode == 0
    assert call("train", *train, *plain, validation, f"--workdir={tmp_path / 'new'}").returncode == 0
    done = call("evaluate", f"--workdir={tmp_path / 'new'}", f"--root={SCANS}", "--which=best")
    assert done.returncode == 0, done.stderr

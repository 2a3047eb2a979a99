"""The commands of the page about judging a model, as typed, and what is refused."""

import json
import re
import shlex
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a run for each fold

PAGE = Path(__file__).parents[2] / "docs/how-to/judge_a_model.md"
SCANS = "tests/files/ds002748_small"  # six real people
SMALL = ["--config.rounds=1", "--config.log.report=False", "--config.log.tensorboard=False"]


def test_the_commands_of_the_page_run_one_after_the_other(call, tmp_path):
    printed = []
    for command in re.findall(r"^ +python (.+)$", PAGE.read_text(), re.MULTILINE):
        small = command.replace("quickstart.py", "quickstart.py:smoke+dense").replace("NEW_SCANS", SCANS)
        script, *flags = shlex.split(small.replace("runs/", f"{tmp_path}/"))
        few = ["--config.data.options.sites=3"] if "--over=sites" in flags else []
        few += ["--config.data.validation_share=0.4"] if "train" in script else []  # some of nineteen people
        done = call(Path(script).stem, *flags, *([] if "evaluate" in script else SMALL), *few)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed.append(done.stdout)
    _, evaluated, by_people, by_site = printed
    assert re.search(r"MAE \d+\.\d\d y \(\d+\.\d\d to \d+\.\d\d\)", evaluated)
    assert "Corrected for the age bias, learned on " in evaluated
    assert "corrected_error" in (tmp_path / "judged/predictions.tsv").read_text()
    assert re.findall(r"^\| (fold-\d)", by_people, re.MULTILINE) == [f"fold-{i}" for i in range(1, 6)]
    assert sorted(re.findall(r"^\| fold-\d \((\w+)\)", by_site, re.MULTILINE)) == ["site01", "site02", "site03"]
    for folder in ("folds", "sites"):
        people = [line.split("\t")[0] for line in (tmp_path / folder / "out_of_fold.tsv").read_text().splitlines()[1:]]
        assert len(people) == len(set(people)) == 40
        assert "all together" in (tmp_path / folder / "cross_validation.md").read_text()
    tested = {line.split("\t")[2] for line in (tmp_path / "sites/fold-1/predictions.tsv").read_text().splitlines()[1:]}
    assert len(tested) == 1
    line = json.loads((tmp_path / "judged/metrics.jsonl").read_text())
    assert set(line["clients"]) == {f"L{i}" for i in range(1, 9)} and line["sites"]["test"]["worst"].startswith("site")


def test_without_validation_evaluate_says_that_nothing_is_corrected(call, tmp_path):
    train = ["--config=configs/quickstart.py:smoke+dense", f"--workdir={tmp_path / 'run'}", *SMALL]
    assert call("train", *train).returncode == 0
    done = call("evaluate", f"--workdir={tmp_path / 'run'}", f"--root={SCANS}", f"--output={tmp_path / 't.tsv'}")
    assert "Not corrected for the age bias, as the run has no validation to learn it from; train" in done.stdout
    assert "corrected" not in (tmp_path / "t.tsv").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folds=some"], "--folds is 'some': it must be a number, or auto."),
        (["--folds=41"], "--folds is 41: it must be at least 2, and at most 40, as there are 40 people."),
        (["--over=scanners"], "over"),
    ],
)
def test_folds_that_cannot_be_are_one_sentence(call, tmp_path, flags, message):
    done = call("cross_validate", "--config=configs/quickstart.py:smoke", f"--workdir={tmp_path / 'folds'}", *flags)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1

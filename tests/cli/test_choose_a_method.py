"""The studies of the page about choosing a method, as typed, in their smallest form; `tests.test_configs` has its runs."""

import re
import shlex
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # ten runs of seconds

PAGE = (Path(__file__).parents[2] / "docs/how-to/choose_a_method.md").read_text()


def test_the_studies_of_the_page_train_every_cell(call, tmp_path):
    tables = []
    for command in re.findall(r"^python scripts/study.py (.+)$", PAGE.replace("\\\n", ""), re.MULTILINE):
        small = command.replace(":digits", ":smoke+digits").replace("runs/", f"{tmp_path}/")
        done = call("study", *shlex.split(small))
        assert done.returncode == 0, done.stderr
        tables.append(done.stdout)
    methods, rates, more = tables
    assert len(re.findall("^Run ", methods, re.MULTILINE)) == 6
    assert len(re.findall("^Run ", more, re.MULTILINE)) == 4  # of two more seeds
    assert "fedavg" in methods and "feddst" in methods
    cells = (tmp_path / "rates/runs.csv").read_text().splitlines()[1:]
    assert sorted(cell.split(",")[1] for cell in cells) == ["0.05", "0.05", "0.1", "0.1"]
    assert "learning_rate" in rates

"""The command of the page about what sparsity costs: the kept runs are the study's, and give the tables of the page."""

import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/results/headline.md").read_text()
(COMMAND,) = re.findall(r"^python scripts/study.py (.+)$", PAGE.replace("\\\n", ""), re.MULTILINE)


def rows_of(text):
    return [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]


@pytest.mark.slow
def test_its_tables_are_what_its_command_writes(call, tmp_path):
    done = call("study", *shlex.split(COMMAND.replace("runs/", f"{tmp_path}/")))
    assert done.returncode == 0 and not re.search("^Run ", done.stdout, re.MULTILINE), done.stderr
    written = (tmp_path / "headline/study.md").read_text()
    assert rows_of(PAGE) == rows_of(written) and set(rows_of(done.stdout)) <= set(rows_of(PAGE))

"""The commands of the pages about what sparsity costs: the kept runs are the study's, and give the tables of the page."""

import re
import shlex
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "docs/results"


def rows_of(text):
    return [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["headline", "scores", "methods_at_95"])
def test_the_tables_are_what_the_command_writes(name, call, tmp_path):
    page = (RESULTS / f"{name}.md").read_text()
    (command,) = re.findall(r"^python scripts/study.py (.+)$", page.replace("\\\n", ""), re.MULTILINE)
    done = call("study", *shlex.split(command.replace("runs/", f"{tmp_path}/")))
    assert done.returncode == 0 and not re.search("^Run ", done.stdout, re.MULTILINE), done.stderr
    written = rows_of((tmp_path / f"{name}/study.md").read_text())
    assert set(rows_of(done.stdout)) <= set(rows_of(page))
    if name == "headline":
        assert rows_of(page) == written
    else:  # some of the tables, in their order
        left = iter(written)
        assert all(row in left for row in rows_of(page))

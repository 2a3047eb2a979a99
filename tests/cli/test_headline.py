"""The commands of the page about what sparsity costs: the kept runs are still the study's, and print its tables."""

import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/results/headline.md").read_text()
COMMANDS = re.findall(r"^python scripts/study.py (.+)$", PAGE.replace("\\\n", ""), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_its_tables_are_what_its_commands_print(call, tmp_path, command):
    whole = "--seeds" not in command  # trains what is missing
    done = call("study", *shlex.split(command.replace("runs/", f"{tmp_path}/")), *(["--seeds=1"] if whole else []))
    assert done.returncode == 0 and not re.search("^Run ", done.stdout, re.MULTILINE), done.stderr
    rows = re.findall(r"^\| .*(?:dense|paced).*$", done.stdout, re.MULTILINE)
    assert len(rows) == (10 if "1,2,3,4" not in command else 4)
    assert whole or all(row in PAGE for row in rows)


def test_there_are_three_commands():
    assert len(COMMANDS) == 3

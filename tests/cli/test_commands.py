"""Every command that the documentation or a docstring tells the user to type: its flags are there, and it runs."""

import ast
import json
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = sorted(
    [*(ROOT / "configs").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "fedsparse_jax").rglob("*.py")]
)
COMMAND = re.compile(r"^\s*(?:\$ )?(?:\.venv/bin/)?python (scripts/\w+\.py .*)$", re.MULTILINE)

# What makes a run of the README small: the form behind the config's name, or flags.
SMALL = {
    "configs/quickstart.py": ":smoke",
    "configs/methods/feddst.py:digits+90": "+smoke",
    "configs/real_scans.py": " --config.data.shape=(16,18,16) --config.data.align=affine --config.rounds=4"
    " --config.partition.num_clients=2 --config.pruning.schedule.begin=1 --config.pruning.schedule.end=3",
}


def commands(text):
    """The command lines of scripts, with lines that end in a backslash joined."""
    return COMMAND.findall(re.sub(r"\\\n\s*", "", text))


def documented():
    """Commands by script, from all pages and docstrings."""
    texts = [page.read_text() for page in PAGES]
    texts += [ast.get_docstring(ast.parse(file.read_text())) or "" for file in FILES]
    found = defaultdict(list)
    for command in (command for text in texts for command in commands(text)):
        words = shlex.split(command)
        found[words[0]].append(words)
    return found


DOCUMENTED = documented()
PARSES = """
import json, runpy, sys
from absl import flags
script = sys.argv.pop(1)
runpy.run_path(script)
from fedsparse_jax.cli.flags import parse_flags
for words in json.load(sys.stdin):
    if script == "scripts/benchmark.py":
        words.pop(1)  # what is measured
    sys.argv = words
    flags.FLAGS.unparse_flags()
    try:
        parse_flags(words)
    except Exception as error:
        sys.exit(f"{' '.join(words)}: {error}")
"""


def test_there_is_a_command_for_every_script():
    scripts = {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")}
    assert DOCUMENTED.keys() == scripts


@pytest.mark.parametrize("script", sorted(DOCUMENTED))
def test_the_flags_of_documented_commands_are_there(script):
    options = dict(cwd=ROOT, input=json.dumps(DOCUMENTED[script]), capture_output=True, text=True)
    done = subprocess.run([sys.executable, "-c", PARSES, script], **options)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_commands_of_the_readme_run_one_after_the_other(start, tmp_path):
    text = (ROOT / "README.md").read_text()
    for command in commands(text):
        for config, small in SMALL.items():
            command = command.replace(f"{config} ", f"{config}{small} ")
        command = command.replace("runs/", f"{tmp_path}/runs/").replace("=prepared", f"={tmp_path}/prepared")
        script, *flags = shlex.split(command.replace("BIDS_FOLDER", "tests/files/ds002748_small"))
        process = start(Path(script).stem, *flags)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, f"{command}\n{said}"
    for file in (
        "prepared/accepted.tsv",
        "runs/quickstart/report.html",
        "runs/real/report.html",
        "runs/quickstart/attack.json",
    ):
        assert (tmp_path / file).exists()

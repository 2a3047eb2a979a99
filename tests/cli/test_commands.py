"""Every command that the documentation or a docstring tells the user to type: its flags are there, and it runs."""

import ast
import functools
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
    "configs/methods/fedsparsify_global.py": " --config.data.shape=(16,18,16) --config.model.name=flat_cnn"
    " --config.rounds=2 --config.partition.num_clients=2",
}
SCANS = "tests/files/ds002748_small"  # six real people
WRITTEN = {
    "own_criterion.py:": "configs/methods/fedsparsify_global.py:"
}  # a config that a page tells to write; its own test runs it


def commands(text):
    """The command lines of scripts, with lines that end in a backslash joined."""
    return COMMAND.findall(re.sub(r"\\\n\s*", "", text))


def documented():
    """Commands by script, from all pages and docstrings."""
    texts = [page.read_text() for page in PAGES]
    texts += [ast.get_docstring(ast.parse(file.read_text())) or "" for file in FILES]
    found = defaultdict(list)
    for command in (command for text in texts for command in commands(text)):
        words = shlex.split(functools.reduce(lambda text, pair: text.replace(*pair), WRITTEN.items(), command))
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
        script, *flags = shlex.split(re.sub("BIDS_FOLDER|NEW_SCANS", SCANS, command))
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


def own_tables(folder):
    """The tables that the page about own scans speaks of, of six real people."""
    files = sorted((ROOT / SCANS).glob("sub-*/anat/*.nii.gz"))
    people = [(file.parts[-3], 30 + i, file, "AB"[i % 2], ("train", "test")[i > 3]) for i, file in enumerate(files)]
    scores = [(*row[:3], 20 + i) for i, row in enumerate(people)]
    tables = {
        "SCANS.csv": ("id,age,scan,score", scores),
        "NEW_SCANS.csv": ("id,age,scan", [(f"new-{row[0]}", *row[1:3]) for row in people]),
        "AGES.csv": ("id,age", [row[:2] for row in people]),
        "SITES.csv": ("id,age,path,site,split", people),
    }
    for name, (head, rows) in tables.items():
        lines = [",".join(map(str, row)) for row in rows]
        (folder / name).write_text("\n".join([head, *lines]) + "\n")
    return {"BIDS_FOLDER": SCANS, "NEW_SCANS": SCANS, **{name: str(folder / name) for name in tables}}


@pytest.mark.slow
def test_the_commands_of_the_page_about_own_scans_run_one_after_the_other(call, tmp_path):
    page, places = ROOT / "docs/how-to/own_scans.md", own_tables(tmp_path)
    names = re.compile("|".join(sorted(map(re.escape, places), key=len, reverse=True)))
    told = commands(page.read_text())
    assert len(told) == 13
    for command in told:
        command = names.sub(lambda match: places[match[0]], command)
        for config, small in SMALL.items():
            command = command.replace(f"{config} ", f"{config}{small} ")
        script, *flags = shlex.split(command.replace("runs/", f"{tmp_path}/runs/").replace("=p", f"={tmp_path}/p"))
        quick = ["epochs=1", "batch_size=4"] if "train" in script else []
        plain = ["--config.log.report=false", "--config.log.tensorboard=false"] if quick else []
        done = call(Path(script).stem, *flags, *(f"--config.client.{text}" for text in quick), *plain)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert json.loads((tmp_path / "runs/sites/config.json").read_text())["config"]["partition"]["num_clients"] == 2
    assert (tmp_path / "runs/real/predictions-NEW_SCANS.csv.tsv").exists()
    assert (tmp_path / "runs/real/predicted.tsv").exists() and (tmp_path / "predicted_by_path.tsv").exists()
    for label, measure in {"sex": "test_accuracy", "score": "test_mae"}.items():
        assert measure in (tmp_path / f"runs/{label}/metrics.jsonl").read_text()
    assert (tmp_path / "runs/real/predictions-NEW_SCANS.csv-dropped.tsv").exists()


@pytest.mark.slow
def test_the_commands_of_the_page_about_local_training_run_and_go_on(call, tmp_path):
    told = commands((ROOT / "docs/how-to/tune_the_training.md").read_text())
    assert len(told) == 4
    for command in told:
        command = re.sub(r"(configs/methods/\S+)", r"\1+smoke", command.replace("quickstart.py", "quickstart.py:smoke"))
        command = command.replace("warmup_steps=3", "warmup_steps=1").replace("{10:", "{2:")  # of three rounds
        script, *flags = shlex.split(command.replace("runs/", f"{tmp_path}/runs/"))
        for _ in range(2):  # the second time the run is found as it was
            done = call(Path(script).stem, *flags, "--config.log.report=false", "--config.log.tensorboard=false")
            assert done.returncode == 0, f"{command}\n{done.stderr}"
    factors = {
        name: [json.loads(line)["client_rate_factor"] for line in (tmp_path / f"runs/{name}/metrics.jsonl").open()]
        for name in ("cosine", "stepwise")
    }
    assert factors["cosine"] == pytest.approx([0.5, 1.0, 0.5]) and factors["stepwise"] == pytest.approx([1.0, 1.0, 0.1])
    assert "rate_factor" not in (tmp_path / "runs/decay/metrics.jsonl").read_text()

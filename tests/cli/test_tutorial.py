"""The tutorial, as written: its commands and its Python, one after the other, in a folder like the repository."""

import os
import re
import shlex
from pathlib import Path

import pytest

from fedsparse_jax.runs import read_records

pytestmark = pytest.mark.slow  # a minute of commands

PAGE = (Path(__file__).parents[2] / "docs/tutorial.md").read_text()
NAMED = re.compile(r"`(\w+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def played(scripts, surroundings, tmp_path_factory):
    """The folder after the last command, and what each command printed, by its script's name."""
    folder, printed = tmp_path_factory.mktemp("tutorial"), {}
    for name in ("configs", "docs", "scripts", "tests"):
        (folder / name).symlink_to(surroundings["cwd"] / name)
    for name, content in NAMED.findall(PAGE):
        (folder / name).write_text(content)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(surroundings["cwd"])]))
    there = {**surroundings, "cwd": folder, "env": {**surroundings["env"], "PYTHONPATH": path}}
    commands = re.findall(r"^ {4}python (\S+\.py.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)
    with scripts(there) as call:
        for command in commands:
            file, *flags = shlex.split(command)
            done = call(os.path.relpath(file, "scripts").removesuffix(".py"), *flags)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            printed.setdefault(Path(file).stem, []).append(done.stdout)
    return folder, printed


def test_the_numbers_that_it_tells(played):
    folder, printed = played
    last = read_records(folder / "runs/first")[-1]
    assert round(last.sparsity, 3) == 0.95 and last.test["accuracy"] == pytest.approx(0.94, abs=0.02)
    told = re.search(r"test accuracy (\S+) \(commonest (\S+)\)", PAGE)
    assert float(told[1]) == pytest.approx(last.test["accuracy"], abs=0.02)
    assert float(told[2]) == round(last.baseline, 3)
    assert "sparsity 0.950, test accuracy 0.9" in printed["fedsparsify_by_hand"][0].splitlines()[-1]


def test_every_section_leaves_what_it_says(played):
    folder, printed = played
    for file in ("first/report.html", "compared/study.html", "prepared/cohort.html", "first.sparse.md"):
        assert (folder / "runs" / file).stat().st_size > 1000
    assert (folder / "runs/first.sparse").stat().st_size < 10_000  # a few kilobytes
    for name in ("own-criterion", "scans", "again"):
        assert read_records(folder / "runs" / name)[-1].finite
    assert read_records(folder / "runs/again")[-1].sparsity == pytest.approx(0.95, abs=1e-3)
    assert "error_threshold" in printed["audit_run"][0] and "untrained" in printed["audit_run"][0]


def test_the_python_reads_the_run(played, monkeypatch, capsys):
    folder, _ = played
    monkeypatch.chdir(folder)
    reading, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(reading, {})
    accuracy, sent = capsys.readouterr().out.splitlines()
    assert accuracy.endswith("at a sparsity of 0.950")
    first, last = (int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:bytes|in)", sent))
    assert last < first / 5

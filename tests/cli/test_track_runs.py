"""The commands of the page about trackers, as typed, on small runs, with stand-ins for the services."""

import os
import re
import shlex
from pathlib import Path

import pytest

from fedsparse_jax.runs import read_records
from tests.helpers import tracking_services

pytestmark = pytest.mark.slow  # three runs of seconds

PAGE = (Path(__file__).parents[2] / "docs/how-to/track_runs.md").read_text()


def test_the_commands_of_the_page_tell_of_every_round(scripts, surroundings, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKED_BY_STAND_INS", str(tmp_path / "told.json"))
    for name in ("wandb", "mlflow"):
        made = f"import sys\nfrom tests.helpers import tracking_services\nsys.modules[{name!r}] = "
        (tmp_path / f"{name}.py").write_text(f"{made}tracking_services.{name}()\n")
    own, in_python = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mine.py").write_text(own)
    assert len(own.splitlines()) <= 12 and in_python.count("\n") == 1
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", ""), str(surroundings["cwd"])]))
    environment = {**surroundings["env"], "PYTHONPATH": path, "TRACKED_BY_STAND_INS": str(tmp_path / "told.json")}
    commands = re.findall(r"^ +python (scripts/.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    with scripts({**surroundings, "env": environment}) as call:
        for command in commands:
            small = command.replace("quickstart.py", "quickstart.py:smoke").replace("mine.py:", f"{tmp_path}/mine.py:")
            script, *flags = shlex.split(small.replace("runs/", f"{tmp_path}/"))
            done = call(Path(script).stem, *flags, "--config.log.tensorboard=False", "--config.log.report=False")
            assert done.returncode == 0, f"{command}\n{done.stderr}"
    for service, runs in tracking_services.load().items():
        ((_, told),) = runs.items()
        records = read_records(tmp_path / f"in-{service}")
        assert told["steps"] == [record.round for record in records] == [1, 2, 3] and told["ends"] == 1
        assert [numbers["test_mae"] for numbers in told["numbers"]] == [record.test["mae"] for record in records]
    rows = (tmp_path / "in-mine/mine.csv").read_text().splitlines()
    expected = [f"{one.round},{one.sparsity},{one.test['mae']}" for one in read_records(tmp_path / "in-mine")]
    assert rows == expected

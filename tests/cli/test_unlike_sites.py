"""The commands of the page about unlike sites, as typed, on small runs."""

import re
import shlex
from pathlib import Path

import pytest

from fedsparse_jax.runs import read_records

pytestmark = pytest.mark.slow  # runs of seconds, and many of them

PAGE = Path(__file__).parents[2] / "docs/how-to/unlike_sites.md"
SCANS = "tests/files/ds002748_small"  # six real people


def test_the_commands_of_the_page_run_and_say_what_the_page_says(call, tmp_path):
    printed = []
    for command in re.findall(r"^ +python (.+)$", PAGE.read_text().replace("\\\n", ""), re.MULTILINE):
        small = re.sub(r"(--config=\S+\.py)(:?)", r"\1:smoke+", command).replace("+ ", " ").replace("=60", "=6")
        script, *flags = shlex.split(small.replace("runs/", f"{tmp_path}/").replace("NEW_SCANS", SCANS))
        quick = ["--config.log.tensorboard=False", "--config.log.report=False"] if "train" in script else []
        done = call(Path(script).stem, *flags, *quick)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed.append(done.stdout)
    assert len(printed) == 4 and "own sites" in printed[0]
    heads, scaffold, travelling = (read_records(tmp_path / name) for name in ("own-heads", "scaffold", "travelling"))
    assert heads[-1].own["mae"] > 0 and heads[-1].density["head/kernel"] == 1 and heads[-1].sparsity > 0.5
    assert (
        scaffold[-1].bytes_down[0] > 1.6 * scaffold[0].bytes_down[0]
    )  # control variates begin at zero, and are not sent
    assert travelling[-1].cohort == list(range(6))
    audit = call("audit_run", f"--workdir={tmp_path / 'own-heads'}")
    assert audit.returncode == 2 and "no whole model is sent that could be audited" in audit.stderr

"""The commands of the page about warm starts, as typed, on small runs and a stand-in for the published file."""

import json
import re
import shlex
from pathlib import Path

import pytest

from fedsparse_jax.runs import read_records
from tests.helpers import torch_writer

pytestmark = pytest.mark.slow  # runs of seconds, and many of them

PAGE = Path(__file__).parents[2] / "docs/how-to/start_warm.md"
PUBLISHED = "run_20190719_00_epoch_best_mae.p"
NARROW = ["--config.model.name=brain_age_cnn", "--config.model.widths=(2, 3, 2)"]  # what a small grid can bear


@pytest.fixture(scope="module")
def typed(call, tmp_path_factory):
    """What each command of the page printed, in their order, and the folder of the runs."""
    folder, printed = tmp_path_factory.mktemp("warm"), []
    state = torch_writer.sfcn_state((2, 3, 2))
    (folder / PUBLISHED).write_bytes(torch_writer.stream(*torch_writer.state_of(state, "module.")))
    for command in re.findall(r"^ +python (.+)$", PAGE.read_text().replace("\\\n", ""), re.MULTILINE):
        small = re.sub(r"(--config=\S+\.py)(:?)", r"\1:smoke+", command).replace("+ ", " ")
        script, *flags = shlex.split(small.replace("runs/", f"{folder}/").replace(PUBLISHED, f"{folder / PUBLISHED}"))
        more = ["--config.log.tensorboard=False", "--config.log.report=False"] if "train" in script else []
        more += NARROW if PUBLISHED in command else []
        done = call(Path(script).stem, *flags, *more)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed.append(done.stdout)
    return printed, folder


def test_a_run_is_pruned_and_tuned_from_the_weights_of_another(typed):
    (_, pruned, tuned, _, sent, _), folder = typed
    assert f"Weights from {folder / 'dense'}: 6 of 6 leaves" in pruned
    assert f"Weights from {folder / 'pruned'}: 6 of 6 leaves" in tuned
    assert f"Weights from {folder / 'pruned.sparse'}: 6 of 6 leaves" in sent and "pruned.sparse: CC BY 4.0.\n" in sent
    assert [round(record.sparsity, 2) for record in read_records(folder / "pruned")][-4:] == [0.95] * 4
    for name in ("tuned", "sent"):
        assert [round(record.sparsity, 2) for record in read_records(folder / name)] == [0.95] * 4


def test_the_published_file_is_taken_with_its_licence(typed):
    printed, folder = typed
    assert f"Weights from {folder / PUBLISHED}: 6 of 8 leaves" in printed[-1]
    assert "head/kernel (2, 1), there (2, 40)" in printed[-1] and "MIT licence" in printed[-1]
    config = json.loads((folder / "from-sfcn" / "config.json").read_text())["config"]
    assert len(config["model"]["init_sha256"]) == 64 and config["data"]["normalise"] == "mean"

"""The commands and the Python of the page about exports, as typed."""

import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

from fedsparse_jax.config import load_run
from fedsparse_jax.core import tree

pytestmark = pytest.mark.slow  # a run and its exports

PAGE = (Path(__file__).parents[2] / "docs/how-to/export.md").read_text()


@pytest.fixture(scope="module")
def workdir(call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "run"
    flags = [
        "--config=configs/quickstart.py:smoke+dense",
        "--config.log.report=false",
        "--config.log.tensorboard=false",
    ]
    done = call("train", *flags, f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_commands_and_the_python_of_the_page_run(call, workdir, tmp_path, monkeypatch):
    for package in ("flatbuffers", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    told = re.findall(r"^ +python (scripts/export.py .+)$", PAGE, re.MULTILINE)
    assert len(told) == 3
    for command in told:
        _, *flags = shlex.split(
            command.replace("runs/quickstart", str(workdir)).replace("=model", f"={tmp_path}/model")
        )
        done = call("export", *flags)
        assert done.returncode == 0 and "knows nothing about real brains" in done.stdout, done.stderr
    sparse, stablehlo, onnx = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(re.findall(r"\S.*\n", sparse)) - 2 <= 10  # beside the imports
    monkeypatch.chdir(tmp_path)
    exec(sparse, read := {})
    config, network, server = load_run(workdir)
    for name, weights, mask in zip(tree.leaf_names(server.params), *map(jax.tree.leaves, server[1:3]), strict=True):
        assert np.array_equal(read["params"][name], np.where(mask, weights, 0))
    assert read["header"]["card"]["round"] == 3 and read["mask"].sum() == read["header"]["kept"]
    exec(stablehlo, read)
    expected = network.apply(server.params, np.zeros((3, *config.data.shape, 1), np.float32))
    np.testing.assert_allclose(read["ages"], expected, atol=1e-4)
    exec(onnx, read)
    np.testing.assert_allclose(read["ages"], expected, atol=1e-4)
    for name in ("sparse", "stablehlo", "onnx"):
        card = (tmp_path / f"model.{name}.md").read_text()
        assert card.startswith("# Model card: age (years) by ") and str(tmp_path.parent) not in card
        assert "sub-" not in card and "On the test set, by age:" in card


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--format=torch", r"--format is 'torch': it must be one of sparse, stablehlo, onnx\."),
        ("--which=9", r"holds no checkpoint of round 9"),
        ("--which=best", r"has no validation that could tell"),
    ],
)
def test_refusals(call, workdir, flag, message):
    done = call("export", f"--workdir={workdir}", flag)
    assert done.returncode == 2 and re.search(message, done.stderr) and "Traceback" not in done.stderr


def test_an_earlier_round_is_exported_without_errors_by_age(call, workdir):
    done = call("export", f"--workdir={workdir}", "--which=2", "--licence=CC BY 4.0")
    assert done.returncode == 0 and f"Model of round 2: {workdir / 'model.sparse'} (" in done.stdout
    card = (workdir / "model.sparse.md").read_text()
    assert "Of the model: CC BY 4.0." in card and "By age and site they are not known" in card

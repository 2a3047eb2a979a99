"""The benchmarks run and count; nothing is asserted about speed."""

import json
import re
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from benchmarks import BENCHMARKS, exports, message_speed, peers, run_benchmark, runs, timing, workloads

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.export import sparse_bytes
from fedsparse_jax.models import MODELS


def test_alternatives_are_timed_in_turn():
    order = []
    works = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    rows = timing.compare(works, repeats=3)
    assert order == ["a", "b"] * 4
    assert [row["name"] for row in rows] == ["a", "b"] and rows[0]["ratio"] == 1.0
    assert all(row["low"] <= row["seconds"] <= row["high"] for row in rows)


def test_ratios_by_hand(monkeypatch):
    times = iter([9.0, 9.0, 4.0, 2.0, 5.0, 1.0, 6.0, 3.0])
    monkeypatch.setattr(timing, "_timed", lambda work: timing.Timing(next(times), {}))
    rows = timing.compare({"slow": None, "fast": None}, repeats=3)
    assert [row["seconds"] for row in rows] == [5.0, 2.0] and rows[1]["ratio"] == 2.5
    low, high = rows[1]["between"]  # of ratios 4 / 2, 5 / 1 and 6 / 3, by Student's t of two degrees of freedom, 4.303
    logs = np.log([2.0, 5.0, 2.0])
    half = 4.3027 * logs.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([low, high], np.exp([logs.mean() - half, logs.mean() + half]), rtol=1e-4)
    assert f"| fast | 2 | 1 to 3 | 9 | 2.50 | {low:.2f} to {high:.2f} |" in timing.timings_table(rows)
    assert "| slow | 5 | 4 to 6 | 9 | 1.00 | 1.00 to 1.00 |" in timing.timings_table(rows)


SMALL_RUN = "configs/methods/fedavg.py:digits+smoke"
WORK = {
    "select": "1000",
    "messages": "0.05",
    "large": "0",
    "cohort": "1000",
    "held": "200",
    "hosts": SMALL_RUN,
    "study": SMALL_RUN,
}
OWN_TESTS = ("peers", "export", "start", "encryption")


@pytest.mark.slow
@pytest.mark.parametrize("what", [what for what in BENCHMARKS if what not in OWN_TESTS])
def test_every_benchmark_runs(what, monkeypatch):
    monkeypatch.setattr(runs, "PROCESSES", (1, 2))
    monkeypatch.setattr(runs, "SEEDS", (1, 2))
    monkeypatch.setattr(runs, "ROUNDS", 4)
    result = run_benchmark(what, WORK.get(what, "tiny"), repeats=1)
    assert len(result["rows"]) >= (1 if what == "large" else 2)
    assert all(row["seconds"] > 0 for row in result["rows"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("speed", "W", 1), "no benchmark 'speed'"),
        (("round", "W9", 1), "--work is 'W9'"),
        (("select", "many", 1), "is a whole number"),
        (("messages", "dense", 1), "between 0 and 1"),
        (("round", "tiny", 0), "--repeats is 0"),
        (("encryption", "tiny,W9", 1), "--work is 'tiny,W9': it must be some of paper, quickstart, tiny"),
    ],
)
def test_refusals(args, message):
    with pytest.raises(UsageError, match=message):
        run_benchmark(*args)


def test_an_alternative_may_measure_itself():
    rows = timing.compare({"a": lambda: timing.Timing(2.0, {"peak MB": 7.0})}, repeats=2)
    table = timing.timings_table(rows)
    assert rows[0]["seconds"] == 2.0 and "| peak MB |" in table and "| 7 |" in table


def test_a_measured_alternative_does_not_time_what_goes_before():
    slow, work = lambda: (time.sleep(0.2),), lambda nothing: nothing
    play = timing.measured(work, {"twice": lambda seconds: 2 * seconds}, before=slow)
    (row,) = timing.compare({"a": play}, repeats=3)
    assert row["seconds"] < 0.1 and row["twice"] == 2 * row["seconds"]


def test_messages_hold_the_share_of_the_weights_that_is_said():
    update, known = message_speed.pruned(0.05)
    for masks, share in ((update.masks, 0.05), (known, 0.06)):
        remaining = sum(leaf.sum() for leaf in jax.tree.leaves(masks))
        assert remaining == pytest.approx(share * 2_948_801, rel=1e-4)


@pytest.mark.slow
def test_exported_models_predict_the_same_in_every_format(tmp_path):
    for package in ("flatbuffers", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    card = {"network": "mlp", "shape": [4, 4], "options": {"hidden": [6]}}
    params = jax.tree.map(np.array, MODELS["mlp"]((4, 4), hidden=(6,)).init(jax.random.key(0)))
    for name, layer in zip(("00", "95"), params.values(), strict=True):
        (tmp_path / f"{name}.sparse").write_bytes(sparse_bytes(params, jax.tree.map(lambda w: w != 0, params), card))
        layer["kernel"][..., :2] = 0  # two of the six channels of the second file
    rows = {row["name"]: row for row in run_benchmark("export", str(tmp_path), 1)["rows"]}
    assert list(rows) == [f"{model} {how}" for model in ("00", "95") for how in ("sparse", "stablehlo", "onnx")]
    for model, dropped in (("00", 0), ("95", 2)):
        predictions = [rows[f"{model} {how}"]["prediction"] for how in ("sparse", "stablehlo", "onnx")]
        assert predictions == pytest.approx([predictions[0]] * 3, abs=2e-4)
        assert rows[f"{model} onnx"]["channels left out"] == dropped
    assert rows["95 sparse"]["bytes"] < rows["00 sparse"]["bytes"]


def test_a_model_is_thinned_to_its_largest_weights():
    params, masks = (
        {"w": np.float32([[4, -5, 1], [0, 2, 3]])},
        {"w": np.array([[True, True, True], [False, True, True]])},
    )
    thinned, kept = exports._thinned(params, masks, 0.4)
    assert thinned["w"].tolist() == [[4, -5, 0], [0, 0, 0]] and kept["w"].sum() == 2


@pytest.mark.slow
def test_peers_play_the_same_rounds(monkeypatch):
    # Ours twice, as two processes: the same weights, batches and losses, and another loss a round later.
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda package: package in ("jax", "torch"))
    ours = {name: what for name, what in peers.PEERS.items() if what[0] == "jax"}
    monkeypatch.setattr(peers, "PEERS", {**ours, "again": ours["ours, FedAvg"]})
    players = peers.peers(workloads.WORKLOADS["tiny"])
    first, second = ({name: play().columns["loss"] for name, play in players.items()} for _ in range(2))
    assert first["ours, FedAvg"] == first["again"] and second["again"] == second["ours, FedAvg"]
    assert second["again"] < first["again"]


def test_a_process_that_fails_says_why():
    with pytest.raises(UsageError, match=r"A process failed: .*configs/none.py"):
        run_benchmark("hosts", "configs/none.py", 1)


def test_a_start_that_fails_says_why():
    with pytest.raises(UsageError, match=r"did not reach round 1: .*configs/none.py"):
        run_benchmark("start", "configs/none.py", 1)


def test_peers_without_pytorch_say_what_to_install(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UsageError, match=r"pip install 'fedsparse_jax\[peers\]'"):
        run_benchmark("peers", "tiny", 1)


def test_the_script(repository, tmp_path):
    command = [sys.executable, "scripts/benchmark.py"]
    options = dict(capture_output=True, text=True, cwd=repository)
    flags = ["select", "--work=2000", "--repeats=1", f"--output={tmp_path}/x.json"]
    done = subprocess.run([*command, *flags], **options)
    assert done.returncode == 0 and "radix select (ours)" in done.stdout
    assert json.loads((tmp_path / "x.json").read_text())["machine"]["devices"]
    bad = subprocess.run(command, **options)
    assert bad.returncode == 2 and "There is no benchmark ''" in bad.stderr


def test_the_command_of_the_page_about_encryption_runs(repository):
    pytest.importorskip("tenseal")
    page = (repository / "docs/results/encryption.md").read_text()
    (command,) = re.findall(r"^python (scripts/benchmark\.py encryption)$", page, re.MULTILINE)
    small = [sys.executable, *command.split(), "--work=tiny", "--repeats=1"]
    done = subprocess.run(small, capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    heads = [head for head in lines[0] if head != "ratio between"]  # the page's table is older
    assert heads == re.findall(r"^\| (alternative \| seconds .*) \|$", page, re.MULTILINE)[0].split(" | ")
    rows = {line[0]: dict(zip(lines[0], line)) for line in lines[2:]}
    weights, votes = rows["tiny 95 %: encrypt"], rows["tiny 95 %, votes: encrypt"]
    assert len(rows) == 3 * (4 + 3) and (weights["numbers"], votes["numbers"]) == ("12", "14")  # of 226, 1.2 times
    assert int(weights["bytes encrypted"]) > 100 * int(weights["bytes plain"])  # a ciphertext, however few numbers
    assert 0 < float(rows["tiny 95 %: decrypt"]["largest error"]) < 1e-6
    assert rows["tiny 95 %, votes: decrypt"]["largest error"] == "0"


def test_the_page_for_a_gpu_prints_every_figure_of_the_performance_page(repository):
    typed = {}
    for page in ("results/performance", "gpu"):
        text = (repository / f"docs/{page}.md").read_text(encoding="utf-8")
        lines = re.findall(r"^python scripts/benchmark.py (\w+)(?: --work=(\w+))? --repeats=\d+$", text, re.MULTILINE)
        typed[page] = {(what, work or BENCHMARKS[what][1]) for what, work in lines}
    assert len(typed["gpu"]) > 10 and typed["results/performance"] <= typed["gpu"]
    assert all(work.isdigit() or work.startswith("configs/") or work in workloads.WORKLOADS for _, work in typed["gpu"])


def test_the_script_lists_every_benchmark(repository):
    command = [sys.executable, "scripts/benchmark.py", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=repository).stdout
    words = set(shown.replace(",", " ").split())
    assert set(BENCHMARKS) <= words and "python scripts/benchmark.py round" in shown

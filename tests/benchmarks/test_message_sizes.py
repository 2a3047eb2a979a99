"""The measurements behind docs/results/messages.md: counts by hand, and that they run."""

import subprocess
import sys
from math import comb, log2

import numpy as np
import pytest
from benchmarks import message_sizes

from fedsparse_jax.config import shrink_for_smoke_test
from fedsparse_jax.reporting import markdown_table
from fedsparse_jax.sparsity import SCHEDULES


def test_entropy_by_hand():
    masks = {"a": np.arange(10) < 3, "b": np.ones(4, bool)}
    before = {"a": np.arange(10) < 5, "b": np.ones(4, bool)}
    assert message_sizes.entropy(masks) == pytest.approx(log2(comb(10, 3)))
    assert message_sizes.entropy(masks, before) == pytest.approx(log2(10))  # 3 of 5
    assert message_sizes.entropy(masks, masks) == 0


def nested_models():
    """A model after each round, of a leaf whose smallest weights go first."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.1, 20_000).astype(np.float32)
    order = np.abs(weights).argsort()[::-1].argsort()
    models = []
    for round_, density in enumerate(message_sizes.DENSITIES, 1):
        mask = order < density * weights.size
        params = {"w": np.where(mask, weights, np.float32(0))}
        models.append(message_sizes.RoundSnapshot(round_, params, {"w": mask}))
    return models


def test_rows_of_sizes():
    rows = message_sizes.sizes(nested_models())
    assert [row["density"] for row in rows[::3]] == list(message_sizes.SHOWN) and len(rows) == 18
    by_hand = next(row for row in rows if row["density"] == 0.1 and row["receiver holds"] == "this mask")
    assert by_hand["bound"] == 8000 and by_hand["COO int32"] == 16000 and by_hand["dense float32"] == 80_000
    assert by_hand["values + bit mask"] == 8000 + 2500 and by_hand["mask, ours"] == 0
    for nothing, before, same in zip(rows[::3], rows[1::3], rows[2::3]):
        assert same["ours"] <= before["ours"] <= nothing["ours"] < nothing["values + bit mask"]
        assert nothing["mask, bound"] <= nothing["mask, ours"] <= 1.03 * nothing["mask, bound"] + 12
    assert "| density | receiver holds |" in markdown_table(rows[0], [row.values() for row in rows])


def test_rows_of_codings_and_values():
    models = nested_models()
    for row in message_sizes.mask_codings(models):
        assert row["entropy"] <= row["ours"] <= row["bit mask"] + 10
    exact, *others = message_sizes.lossy(models[7])
    assert exact["error of the worst leaf"] == "0.0e+00"
    assert all(row["bytes"] < exact["bytes"] for row in others)


def test_the_schedule_of_the_training():
    schedule = dict(message_sizes.training().pruning.schedule)
    planned = SCHEDULES[schedule.pop("name")](final=schedule["levels"][-1], **schedule)
    densities = [1 - float(planned(t)) for t in range(1, len(message_sizes.DENSITIES) + 1)]
    np.testing.assert_allclose(densities, message_sizes.DENSITIES, atol=1e-6)


@pytest.mark.slow
def test_a_short_training(tmp_path):
    config = shrink_for_smoke_test(message_sizes.training())
    with config.unlocked():
        config.data.cache_dir = str(tmp_path)
    lines = []
    models = message_sizes.train(config, lines.append)
    assert [model.round for model in models] == [1, 2, 3] and "test MAE" in lines[0]


def test_the_script_needs_nothing_beside_it(repository, tmp_path):
    program = f"import runpy; print(*runpy.run_path('{repository}/scripts/benchmarks/message_sizes.py')['SHOWN'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "1.0 0.5 0.2 0.1 0.05 0.01\n", done.stderr

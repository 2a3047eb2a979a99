"""The study of clients who lie: its cells, what it measures by hand, and that it goes on where it stopped."""

import numpy as np
import pytest

from fedsparse_jax.studies import poisoned_training as study
from fedsparse_jax.studies.poisoned_training import Cell, Measured

pytest.importorskip("sklearn")


def measured(accuracy, *kept):
    return Measured(accuracy, 0.25, np.array(kept, bool))


def test_every_lie_has_its_honest_twin():
    cells = study.all_cells([0, 95], [1, 2, 3], [1, 2, 3], study.RULES)
    dense_rules, rules = 6, 8
    assert len(cells) == len(set(cells)) == (dense_rules + rules) * 3 * (1 + 6 * 3)
    assert all(cell._replace(poison="none", liars=0) in cells for cell in cells)


def test_overlap_and_cost_by_hand():
    clean, lied = Cell("mean", "none", 0, 95, 1), Cell("mean", "scaling", 1, 95, 1)
    results = {clean: measured(0.9, 1, 1, 0, 0), lied: measured(0.6, 1, 0, 1, 0)}
    assert study.overlap(results, lied) == pytest.approx(1 / 3)
    results = {}
    for percent, lost in ((0, 0.2), (95, 0.5)):
        for cell in study.all_cells([percent], [1], [1, 2], ["mean"]):
            results[cell] = measured(0.9 if cell.poison == "none" else 0.9 - lost, 1, 1)
    text = study._sparsity_table(results)
    assert "| mean | 1 | 20.0 ± 0.0 | 50.0 ± 0.0 | +30.0 ± 0.0 |" in text


def test_a_study_that_was_stopped_runs_no_cell_twice(tmp_path, monkeypatch):
    cells = [
        *(Cell("mean", "none", 0, 95, 1), Cell("mean", "scaling", 3, 95, 1)),
        *(Cell("multi-Krum", "none", 0, 95, 1), Cell("multi-Krum", "scaling", 3, 95, 1)),
    ]
    first = study.run_cells(cells[:2], tmp_path, "smoke")
    assert all(value.mask.mean() == pytest.approx(0.05, abs=0.001) for value in first.values())
    with open(tmp_path / study.CELLS, "a") as file:
        file.write('{"rule": "mul')  # killed while it wrote
    again = study.run_cells(cells, tmp_path, "smoke")
    monkeypatch.setattr(study, "run_cell", None)
    same = study.run_cells(cells, tmp_path, "smoke")
    for cell in cells:
        assert same[cell].accuracy == again[cell].accuracy and (same[cell].mask == again[cell].mask).all()
    text = study.write_poison_tables(same, tmp_path)
    assert "| multi-Krum |" in text and text == (tmp_path / "study.md").read_text()

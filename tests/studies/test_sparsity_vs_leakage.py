"""The study of sparsity and leaks: its arithmetic by hand, and a smoke form that goes on where it stopped."""

import numpy as np
import pytest

from fedsparse_jax.core.types import UsageError
from fedsparse_jax.studies import sparsity_vs_leakage


def record(round_, test_mae, **aucs):
    attacks = {name: dict(auc=auc, tpr=auc / 2, age_matched_auc=auc) for name, auc in aucs.items()}
    return dict(round=round_, train_mae=1.0, test_mae=test_mae, attacks=attacks)


RECORDS = [
    record(9, 4.0, a=0.9, b=0.6, age_alone=0.99),
    record(9, 5.0, a=0.5, b=0.8, age_alone=0.99),
    record(9, 6.0, a=0.7, b=0.7, age_alone=0.99),
]


def test_the_best_attack_is_chosen_on_the_other_targets():
    # Without target 0: a .6, b .75. Without 1: a .8, b .65. Without 2: a .7, b .7, the first of equals.
    assert [sparsity_vs_leakage.best(RECORDS, t) for t in range(3)] == ["b", "a", "a"]


def test_a_level_by_hand():
    matched = [record(r, mae, a=auc) for r, mae, auc in ((3, 4.1, 0.7), (4, 5.1, 0.6), (3, 5.8, 0.8))]
    one = sparsity_vs_leakage.level("sparsity 90 %", RECORDS, matched)
    assert one["auc"]["mean"] == pytest.approx((0.6 + 0.5 + 0.7) / 3)
    assert one["gap"]["mean"] == pytest.approx(4.0) and one["test_mae"]["half"] == pytest.approx(
        2.484, abs=1e-3
    )
    assert one["matched_rounds"] == [3, 4, 3] and one["matched_auc"]["mean"] == pytest.approx(0.7)
    assert one["difference"] == pytest.approx({"mean": -0.1, "half": 0.0}, abs=1e-9)
    shown = sparsity_vs_leakage.tables([one], [])
    assert "| sparsity 90 % | a, b | 0.600 ± 0.248 | 0.600 ± 0.248 | 0.300 ± 0.124 | 5.00 ± 2.48 |" in shown


def test_what_is_refused_stays_empty():
    refused = [dict(one, attacks={**one["attacks"], "c": {"refused": "why"}}) for one in RECORDS]
    one = sparsity_vs_leakage.level("sparsity 0 %", refused, None)
    assert (
        one["attacks"]["c"] is None
        and "c" not in one["best"]
        and "–" in sparsity_vs_leakage.tables([one], [])
    )


def test_the_nearest_round_and_that_of_the_least_error():
    errors = np.array([[3.0], [2.0], [1.0]]) * np.ones((1, 4))
    found = dict(
        predictions=errors, targets=np.zeros(4), inside=np.array([True, True, False, False]), rounds=[1, 2, 3]
    )
    dense = sparsity_vs_leakage.Family(None, [found])
    assert [sparsity_vs_leakage.nearest(dense, 0, mae) for mae in (9.0, 2.2, 2.5, 0.1)] == [0, 1, 0, 2]
    assert sparsity_vs_leakage.least(dense, 0) == 2 and dense.ends == [2]


def test_smoke_and_resume(tmp_path):
    pytest.importorskip("dp_accounting")
    options = dict(percents=("0", "95"), noises=("0.1",), targets=2, form="smoke", draws=10)
    found = sparsity_vs_leakage.run(tmp_path, say=lambda _: None, **options)
    assert [one["sparsity"] for one in found["levels"]] == [0.0, 0.95]
    dense, sparse = found["levels"]
    assert sparse["matched_auc"] and not dense.get("matched_auc") and dense["tpr"] is None
    assert dense["attacks"]["lira_online"] is None and 0 <= sparse["auc"]["mean"] <= 1
    early, private = found["defences"]
    assert early["test_mae"]["mean"] <= dense["test_mae"]["mean"] and private["epsilon"] > 0
    assert private["matched_auc"] and "private, noise 0.1 (epsilon" in (tmp_path / "study.md").read_text()
    for name in ("study.json", "study.md", "study.png"):
        assert (tmp_path / name).stat().st_size > 100
    said = []
    again = sparsity_vs_leakage.run(tmp_path, say=said.append, **options)
    assert again == found and not any("round 1/" in line or line.startswith("attack") for line in said)


def test_a_study_begins_dense(tmp_path):
    with pytest.raises(UsageError, match="begin with 0"):
        sparsity_vs_leakage.run(tmp_path, percents=("95",))

"""The study of sparsity and leaks: its arithmetic by hand, and a smoke form that goes on where it stopped."""

from pathlib import Path

import numpy as np
import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.studies import study_leakage
from fedsparse_jax.studies.sparsity_vs_leakage import (
    ModelGroup,
    best_attack,
    best_round,
    nearest_round,
    study_tables,
    summarize_group,
)
from tests.helpers.interrupted import QUIET

SPEC = str(Path(__file__).parents[2] / "configs/leakage_study.py")


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
    assert [best_attack(RECORDS, target) for target in range(3)] == ["b", "a", "a"]


def test_a_group_by_hand():
    matched = [record(r, mae, a=auc) for r, mae, auc in ((3, 4.1, 0.7), (4, 5.1, 0.6), (3, 5.8, 0.8))]
    group = summarize_group("sparsity 90 %", RECORDS, matched)
    assert group["auc"]["mean"] == pytest.approx((0.6 + 0.5 + 0.7) / 3)
    assert group["gap"]["mean"] == pytest.approx(4.0)
    assert group["test_mae"]["half"] == pytest.approx(2.484, abs=1e-3)
    assert group["matched_rounds"] == [3, 4, 3] and group["matched_auc"]["mean"] == pytest.approx(0.7)
    assert group["difference"] == pytest.approx({"mean": -0.1, "half": 0.0}, abs=1e-9)
    row = "| sparsity 90 % | a, b | 0.600 ± 0.248 | 0.600 ± 0.248 | 0.300 ± 0.124 | 5.00 ± 2.48 |"
    assert row in study_tables([group], [])


def test_what_is_refused_stays_empty():
    refused = [{**entry, "attacks": {**entry["attacks"], "c": {"refused": "why"}}} for entry in RECORDS]
    group = summarize_group("sparsity 0 %", refused, None)
    assert group["attacks"]["c"] is None and "c" not in group["best"]
    assert "–" in study_tables([group], [])


def test_without_an_attack_that_ran_everywhere_nothing_is_best():
    refused = [{**entry, "attacks": {"c": {"refused": "why"}}} for entry in RECORDS]
    with pytest.raises(UsageError, match="No attack ran on all targets"):
        best_attack(refused, 0)


def test_the_nearest_round_and_that_of_the_least_error():
    errors = np.array([[3.0], [2.0], [1.0]]) * np.ones((1, 4))
    inside = np.array([True, True, False, False])
    model = dict(predictions=errors, targets=np.zeros(4), inside=inside, rounds=[1, 2, 3])
    dense = ModelGroup(None, [model])
    assert [nearest_round(dense, 0, mae) for mae in (9.0, 2.2, 2.5, 0.1)] == [0, 1, 0, 2]
    assert best_round(dense, 0) == 2 and dense.ends == [2]


@pytest.mark.slow
def test_smoke_and_resume(tmp_path):
    pytest.importorskip("dp_accounting")
    options = dict(percents=("0", "95"), noises=("0.1",), targets=4, form="smoke", draws=10)
    study = study_leakage(tmp_path, SPEC, print_fn=QUIET, **options)
    assert [level["sparsity"] for level in study["levels"]] == [0.0, 0.95]
    dense, sparse = study["levels"]
    assert sparse["matched_auc"] and not dense.get("matched_auc") and dense["tpr"] is None
    assert dense["attacks"]["lira_online"] is None and 0 <= sparse["auc"]["mean"] <= 1
    early, private = study["defences"]
    assert early["test_mae"]["mean"] <= dense["test_mae"]["mean"] and private["epsilon"] > 0
    assert private["matched_auc"] and "private, noise 0.1 (epsilon" in (tmp_path / "study.md").read_text()
    for name in ("study.json", "study.md", "study.png"):
        assert (tmp_path / name).stat().st_size > 100
    lines = []
    assert study_leakage(tmp_path, SPEC, print_fn=lines.append, **options) == study
    assert not any("round 1/" in line or line.startswith("attack") for line in lines)
    # Another study in the same folder takes neither the models nor the audits of this one.
    dense_alone = {**options, "percents": ("0",), "noises": (), "draws": 11}
    assert study_leakage(tmp_path, SPEC, print_fn=lines.append, **dense_alone)
    assert sum(line.startswith("attack") for line in lines) >= 4
    with pytest.raises(UsageError, match="shadow-0 holds another experiment"):
        study_leakage(tmp_path, SPEC, print_fn=QUIET, **{**options, "form": ""})


def test_a_study_begins_dense(tmp_path):
    with pytest.raises(UsageError, match="begin with 0"):
        study_leakage(tmp_path, SPEC, percents=("95",))

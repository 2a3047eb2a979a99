"""The model card of a made-up run whose numbers are known."""

import json

import numpy as np
import pytest

from fedsparse_jax.core.tasks import REGRESSION, task_for
from fedsparse_jax.reporting import read_run_files
from fedsparse_jax.reporting.model_card import _bands, card_text, model_card

KEPT = {"conv1/kernel": (5, 100), "head/kernel": (0, 20)}


def put(folder, **changes):
    """A run of two rounds: five people of 41 to 49 years at site a and one of 63 at b, each 2 years too old."""
    config = {"task": "regression", "rounds": 2, "seed": 7, "partition": {"name": "site"}, "model": {
        "name": "flat_cnn", "output_scale": 9.5, "init_from": "/home/me/run"}, "data": {
        "source": "bids", "shape": [91, 109, 91], "channels": 1, "align": "affine", "normalise": "volume",
        "label": "age", "options": {"desc": "brain", "participants": "/home/me/people.tsv"}, "test_share": 0.2}}  # fmt: skip
    lines = [{"round": t, "test_mae": 5.0 - t, "validation_mae": 4.0, "predict_mean_mae": 6.0} for t in (1, 2)]
    people = [("sub-10", 50, "L1"), ("sub-11", 70, "L2"), ("sub-12", 40, "L1-validation")]
    tested = [(f"sub-{i}", age, "a" if age < 60 else "b") for i, age in enumerate((41, 43, 45, 47, 49, 63))]
    files = {
        "config.json": json.dumps({"config": config}),
        "metrics.jsonl": "\n".join(map(json.dumps, lines)),
        "federation.json": json.dumps({"clients": [{}, {}], "shape": [91, 109, 91], "dropped": {"age is missing": 2}}),
        "environment.json": json.dumps({"versions": {"jax": "1.2.3"}, "started": "2026-01-02"}),
        "people.tsv": "participant_id\tsession\ttarget\tset\n"
        + "".join(f"{who}\tn/a\t{age}\t{set_}\n" for who, age, set_ in [*people, *((*t[:2], "test") for t in tested)]),
        "predictions.tsv": "participant_id\tsession\tsite\tage\tpredicted_age\terror\n"
        + "".join(f"{who}\tn/a\t{site}\t{age}\t{age + 2}\t2\n" for who, age, site in tested),
        **changes,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return read_run_files(folder)


def test_the_numbers_by_hand(tmp_path):
    card = model_card(put(tmp_path), 2, KEPT, "CC0")
    assert card["sparsity"]["share_of_zeros"] == pytest.approx(1 - 5 / 120, abs=1e-6)
    assert card["data"]["trained_on"] == {"people": 2, "examples": 2, "lowest": 50, "mean": 60, "highest": 70}
    assert card["data"]["validation"]["people"] == 1 and card["data"]["test"]["people"] == 6
    errors = card["errors"]
    assert errors["test"] == {"mae": 3.0} and errors["validation"] == {"mae": 4.0} and errors["predict_mean_mae"] == 6
    assert errors["by_age"] == [
        {"group": "40 to 50", "n": 5, "mae": 2, "bias": 2},
        {"group": "60 to 70", "n": 1, "mae": None, "bias": None},
    ]
    assert [(row["group"], row["n"], row["mae"]) for row in errors["by_site"]] == [("a", 5, 2), ("b", 1, None)]
    assert card["preprocessing"]["voxel_mm"] == [2, 2, 2] and card["preprocessing"]["options"] == {"desc": "brain"}
    assert card["network"] == {"name": "flat_cnn", "output_scale": 9.5}
    assert card["licence"] == "CC0" and json.loads(json.dumps(card)) == card


def test_what_is_written_names_no_person_and_no_path(tmp_path):
    text = card_text(model_card(put(tmp_path), 2, KEPT))
    assert "sub-" not in text and "/home" not in text and str(tmp_path) not in text
    assert "5 of 120 weights are kept, a sparsity of 0.9583." in text and "| conv1/kernel | 5 | 100 |" in text
    assert "- output scale: 9.5" in text
    assert "| 60 to 70 | 1 | too few | too few |" in text and "- age is missing: 2" in text
    assert "Of the model: not stated." in text and "Training was not differentially private." in text


def test_errors_by_age_and_site_are_those_of_the_newest_model_alone(tmp_path):
    card = model_card(put(tmp_path), 1, KEPT)
    assert card["errors"]["test"] == {"mae": 4.0} and "by_age" not in card["errors"]
    assert "By age and site they are not known" in card_text(card)


def test_of_classes_there_is_the_accuracy_of_each(tmp_path):
    rows = [(i, "cat", "cat") for i in range(5)] + [(i, "dog", "dog" if i < 8 else "cat") for i in range(5, 10)]
    table = "participant_id\tlabel\tpredicted_label\tprobability\n"
    table += "".join(f"{i}\t{label}\t{predicted}\t.9\n" for i, label, predicted in rows)
    files = put(tmp_path, **{"predictions.tsv": table})
    files.config["task"], files.federation["classes"] = "classification", 2
    card = model_card(files, 2, KEPT)
    assert card["predicts"] == {"classes": ["0", "1"]}
    files.federation["class_names"] = ["cat", "dog"]
    assert model_card(files, 2, KEPT)["predicts"] == {"label": "age", "classes": ["cat", "dog"]}
    assert card["errors"]["by_label"] == [
        {"group": "cat", "n": 5, "accuracy": 1.0},
        {"group": "dog", "n": 5, "accuracy": 0.6},
    ]


def test_bands():
    assert _bands(np.array([39.9, 40.0, 62.5]), REGRESSION) == ["30 to 40", "40 to 50", "60 to 70"]
    scores = task_for("regression", "memory")
    assert _bands(np.array([10.0, 19.9, 20.0]), scores) == ["10 to 12", "18 to 20", "18 to 20"]

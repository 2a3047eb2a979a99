"""Measures of finished runs, against numbers by hand and against what the phantom knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config
from fedsparse_jax.config.scans import list_scans
from fedsparse_jax.core.files import read_tsv
from fedsparse_jax.core.types import Model
from fedsparse_jax.data.phantom.age_signal import age_signal
from fedsparse_jax.runs.evaluation import predict_test
from fedsparse_jax.runs.round import make_runner
from fedsparse_jax.studies import run_measures
from fedsparse_jax.studies.run_measures import FinishedRun


@pytest.fixture(scope="module")
def untrained(repository, tmp_path_factory):
    """The quickstart's network before any training: its head is zero, so that it predicts the mean age of all."""
    config = load_config(f"{repository}/configs/quickstart.py:smoke")
    config.model.zero_head = True
    config.data.cache_dir = str(tmp_path_factory.mktemp("cache"))
    experiment = experiment_from_config(config)
    server = experiment.algorithm.init(jax.random.key(0))
    predictions = predict_test(make_runner(experiment), server.params)
    return FinishedRun(config, experiment, server, predictions)


def tables_of(run):
    (root,) = {
        scan.path.parents[2] for scan in list_scans(run.config, run_measures.Path(run.config.data.cache_dir)).scans
    }
    return [
        {row["participant_id"]: row for row in read_tsv(root / name)}
        for name in ("participants.tsv", "phenotype/latents.tsv")
    ]


def test_errors_by_decade_and_sex(untrained):
    data, (participants, _) = untrained.experiment.federation, tables_of(untrained)
    mean = data.train_targets.mean()
    tested = [participants[data.people[row]["participant_id"]] for row in data.test]
    found = run_measures.errors_by_group(untrained)
    for kind, name_of in (
        ("sex", lambda row: row["sex"]),
        ("decade", lambda row: f"{row['age'][0]}0 to {row['age'][0]}9"),
    ):
        by_hand = {}
        for row in tested:
            by_hand.setdefault(name_of(row), []).append(mean - float(row["age"]))
        assert found[kind].keys() == by_hand.keys()
        for name, errors in by_hand.items():
            assert found[kind][name]["n"] == len(errors)
            assert found[kind][name]["mae"] == pytest.approx(np.mean(np.abs(errors)), abs=1e-3)
            assert found[kind][name]["bias"] == pytest.approx(np.mean(errors), abs=1e-3)


def test_a_gap_that_is_the_true_one_correlates_fully_whatever_its_slope_over_age(untrained, monkeypatch):
    data, (_, latents) = untrained.experiment.federation, tables_of(untrained)
    true = np.array([float(latents[data.people[row]["participant_id"]]["true_gap"]) for row in data.test])
    ages = data.targets[data.test]
    monkeypatch.setattr(
        run_measures, "_errors", lambda run: 0.5 * (true - np.polyval(np.polyfit(ages, true, 1), ages)) - 0.3 * ages
    )
    residual = true - np.polyval(np.polyfit(ages, true, 1), ages)
    by_hand = np.corrcoef(residual, true)[0, 1]
    assert run_measures.gap_correlation(untrained)["r"] == pytest.approx(by_hand, abs=1e-6)
    monkeypatch.setattr(run_measures, "_errors", lambda run: 2.0 - 0.3 * ages)
    assert run_measures.gap_correlation(untrained) == {}  # a model of no gap at all


def test_saliency_of_a_linear_model_is_its_weights():
    weights = jnp.array([[1.0, -2.0], [0.0, 3.0]])[:, :, None, None] * jnp.array(
        [[[[1.0, -1.0]]]]
    )  # [2, 2, 1, 2 channels]
    model = Model(lambda key: weights, lambda params, inputs: (inputs * params[None]).sum((1, 2, 3, 4)))
    seen = run_measures.saliency(model, weights, np.ones((3, 2, 2, 1, 2), np.float32), np.arange(3), batch_size=2)
    np.testing.assert_allclose(seen[..., 0], [[2, 4], [0, 6]])


def test_saliency_is_compared_where_there_is_a_brain(untrained, monkeypatch):
    signal, brain = age_signal(tuple(untrained.config.data.shape))
    monkeypatch.setattr(run_measures, "saliency", lambda *args: np.where(brain, signal**2, 1e9))
    assert run_measures.saliency_correlation(untrained)["spearman"] == pytest.approx(1)
    monkeypatch.undo()
    assert run_measures.saliency_correlation(untrained) == {}  # the head is zero: no voxel matters


def test_masks_as_text(untrained):
    masks = {"a": np.array([[True, False, True]]), "b": np.array([False] * 8 + [True])}
    bits = run_measures.mask_of_text(run_measures.text_of_mask(masks))
    assert bits.tolist() == [True, False, True] + [False] * 8 + [True] + [False] * 4
    assert run_measures.mask_of_text(run_measures.kept_weights(untrained)["bits"]).sum() == 1497


def test_age_shows_most_at_the_ventricles():
    shape = (24, 28, 24)  # of 8 mm; the lateral ventricles lie about the middle, 10 mm up
    signal, brain = age_signal(shape, people=4)
    assert signal.shape == brain.shape == shape and (signal >= 0).all() and 0.2 < brain.mean() < 0.6
    place = np.unravel_index(np.argmax(signal), shape)
    assert abs(place[0] - 11.5) <= 3 and signal.max() > 5 * np.median(signal[brain])
    assert signal[brain].mean() > 5 * signal[~brain].mean()


def test_simple_predictors_are_measured_as_the_model_is(untrained):
    data, (_, latents) = untrained.experiment.federation, tables_of(untrained)
    found = run_measures.simple_predictors(untrained)
    gaps = [abs(float(latents[data.people[row]["participant_id"]]["true_gap"])) for row in data.test]
    assert found["true brain age"]["mae"] == pytest.approx(np.mean(gaps), abs=1e-4)
    assert found["ridge"]["mae"] > found["true brain age"]["mae"]

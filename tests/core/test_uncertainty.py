"""Intervals of measures: over people, seeded, and as wide as theory has them."""

import math

import numpy as np
import pytest

from fedsparse_jax.core import tasks
from fedsparse_jax.core.uncertainty import bootstrap_measures


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    error = np.random.default_rng(0).normal(1, 3, 400)
    low, high = bootstrap_measures(tasks.regression_measures, 60 + error, np.full(400, 60.0))["bias"]
    half = 1.96 * error.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((error.mean() - half, error.mean() + half), abs=0.05)


def test_scans_of_one_person_are_drawn_together():
    error = np.repeat(np.random.default_rng(1).normal(0, 3, 50), 4)  # four scans of each, all alike
    measure = lambda p, y: {"bias": float((p - y).mean())}
    width = lambda people: float(np.ptp(bootstrap_measures(measure, error, np.zeros(200), people)["bias"]))
    people = np.repeat([f"sub-{i}" for i in range(50)], 4)
    shuffled = np.random.default_rng(2).permutation(200)
    assert width(people) == pytest.approx(2 * width(None), rel=0.1)  # a quarter of the evidence
    alike = bootstrap_measures(measure, error[shuffled], np.zeros(200), people[shuffled])["bias"]
    assert alike == pytest.approx(bootstrap_measures(measure, error, np.zeros(200), people)["bias"])


def test_a_seed_gives_the_same_interval_and_another_seed_another():
    p, y = np.random.default_rng(3).normal(size=(2, 30))
    first, again, other = (bootstrap_measures(tasks.regression_measures, p, y, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_classes_have_intervals_also_where_a_draw_lacks_one():
    logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.0, 1.0]])
    intervals = bootstrap_measures(tasks.classification_measures, logits, np.array([0, 0, 0, 1]))
    assert intervals["accuracy"] == intervals["auc"] == (1.0, 1.0)
    nobody = bootstrap_measures(tasks.classification_measures, logits, np.zeros(4, int))
    assert all(map(math.isnan, nobody["auc"])) and nobody["accuracy"] == (0.25, 1.0)  # 5.1 % of draws find one or none

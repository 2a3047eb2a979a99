"""How like the training's scans a scan is."""

import numpy as np
import pytest

from fedsparse_jax.runs.likeness import TrainingLook, likeness, measure_likeness, read_likeness, write_likeness
from tests.helpers import toy_federation


def test_against_numpy():
    data = toy_federation.federation()
    rows = np.concatenate(data.members)
    found = measure_likeness(data)
    mean = data.inputs[rows].mean(0)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    expected = [np.corrcoef(data.inputs[row].ravel(), mean.ravel())[0, 1] for row in rows]
    np.testing.assert_allclose(found.of_training, expected, atol=1e-5)
    assert found.least == pytest.approx(min(expected), abs=1e-5)


def test_of_many_scans_some_are_looked_at_evenly_and_none_of_the_test_set():
    data = toy_federation.federation()
    few = measure_likeness(data, most=3)
    rows = np.concatenate(data.members)[[0, 10, 21]]  # of 22
    np.testing.assert_allclose(few.mean, data.inputs[rows].mean(0), atol=1e-6)
    assert len(few.of_training) == 3


def test_the_limit_lies_as_far_below_the_least_as_that_does_below_the_median():
    assert TrainingLook(np.zeros(1), np.array([0.7, 0.8, 0.9])).limit == pytest.approx(0.6)
    assert TrainingLook(np.zeros(1), np.array([0.9, 0.9, 0.9])).limit == pytest.approx(0.88)


def test_a_constant_scan_is_like_none():
    assert likeness(np.ones((2, 2)), np.arange(4.0).reshape(2, 2)) == 0.0


def test_the_file(tmp_path):
    assert read_likeness(tmp_path) is None
    data = toy_federation.federation()
    write_likeness(data, tmp_path)
    kept, measured = read_likeness(tmp_path), measure_likeness(data)
    assert isinstance(kept, TrainingLook)
    for ours, theirs in zip(kept, measured, strict=True):
        np.testing.assert_array_equal(ours, theirs)

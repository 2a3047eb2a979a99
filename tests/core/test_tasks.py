"""Measures against scikit-learn, and what knowing nothing gives, by hand."""

import math

import numpy as np
import pytest
from sklearn import metrics

from fedsparse_jax.core import tasks


def test_regression_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    ages = rng.uniform(45, 80, 200)
    predictions = 0.7 * ages + 15 + rng.normal(0, 4, 200)
    measures = tasks.regression_measures(predictions, ages)
    assert measures["mae"] == pytest.approx(metrics.mean_absolute_error(ages, predictions))
    assert measures["rmse"] == pytest.approx(metrics.root_mean_squared_error(ages, predictions))
    assert measures["r2"] == pytest.approx(metrics.r2_score(ages, predictions))
    assert measures["r"] == pytest.approx(np.corrcoef(ages, predictions)[0, 1])


def test_regression_by_hand():
    # Errors 1, -1, 1, -1; the targets vary by 9 + 1 + 1 + 9 = 20, of which 4 is left.
    measures = tasks.regression_measures([51.0, 51.0, 55.0, 55.0], [50.0, 52.0, 54.0, 56.0])
    assert (measures["mae"], measures["rmse"], measures["r2"]) == (1.0, 1.0, pytest.approx(1 - 4 / 20))
    assert measures["bias"] == 0.0 and tasks.regression_measures([53.0, 50.0], [50.0, 52.0])["bias"] == 0.5
    assert measures["r"] == pytest.approx(16 / math.sqrt(16 * 20))


def test_a_constant_side_has_no_correlation():
    assert math.isnan(tasks.regression_measures([60.0, 60.0], [50.0, 70.0])["r"])
    measures = tasks.regression_measures([50.0, 70.0], [60.0, 60.0])
    assert math.isnan(measures["r"]) and math.isnan(measures["r2"]) and measures["mae"] == 10.0


def test_classification_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    labels[labels == 3] = 2  # a class that is predicted but does not occur
    measures, predicted = tasks.classification_measures(logits, labels), logits.argmax(-1)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert measures["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    recall = metrics.recall_score(labels, predicted, average=None, labels=[0, 1, 2])
    assert measures["balanced_accuracy"] == pytest.approx(recall.mean())
    f1 = metrics.f1_score(labels, predicted, average=None, labels=[0, 1, 2])
    assert measures["f1"] == pytest.approx(f1.mean())
    assert measures["nll"] == pytest.approx(metrics.log_loss(labels, shares, labels=range(4)))
    areas = [metrics.roc_auc_score(labels == k, shares[:, k]) for k in range(3)]
    assert measures["auc"] == pytest.approx(np.mean(areas))
    binary = tasks.classification_measures(logits[:, :2], labels > 0)
    assert binary["auc"] == pytest.approx(metrics.roc_auc_score(labels > 0, logits[:, 1] - logits[:, 0]))


def test_classification_by_hand():
    # Right, wrong and right: class 0 has recall 1/2 and F1 2/3, class 1 recall 1 and F1 2/3.
    logits = np.log([[0.8, 0.2], [0.4, 0.6], [0.25, 0.75]])
    measures = tasks.classification_measures(logits, [0, 0, 1])
    assert measures["accuracy"] == pytest.approx(2 / 3)
    assert measures["balanced_accuracy"] == pytest.approx(0.75) and measures["f1"] == pytest.approx(2 / 3)
    assert measures["nll"] == pytest.approx(-np.log([0.8, 0.4, 0.75]).mean())
    assert measures["auc"] == 1.0  # both of class 0 have less of class 1 than the one of class 1
    assert math.isnan(tasks.classification_measures(logits, [0, 0, 0])["auc"])


def test_large_logits_do_not_overflow():
    assert tasks.classification_measures([[1e4, 0.0]], [0])["nll"] == 0.0
    assert tasks.classification_measures([[1e4, 0.0]], [1])["nll"] == 1e4


def test_the_commonest_class_by_hand():
    assert tasks.commonest_class_accuracy([1, 1, 0, 2], [1, 0, 1, 1]) == 0.75


def test_predicting_the_mean_by_hand():
    # The training ages have the mean 60, from which the test ages lie 10, 0 and 5 years away.
    assert tasks.predict_mean_mae([50.0, 60.0, 70.0], [70.0, 60.0, 55.0]) == 5.0


@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_tasks_headline_is_one_of_its_measures(name):
    task = tasks.TASKS[name]
    predictions, targets = (np.eye(2), [0, 1]) if name == "classification" else ([1.0, 2.0], [1.0, 3.0])
    assert task.headline in task.measure(predictions, targets)
    assert np.isfinite(task.baseline(targets, targets))
    better, worse = task.measure(predictions, targets)[task.headline], task.baseline(targets, targets)
    assert (better <= worse) if task.lower_is_better else (better >= worse)

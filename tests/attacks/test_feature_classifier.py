"""The classifier of the white-box attacks, apart from any model."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.attacks import feature_classifier, statistics

FAST = feature_classifier.Training(epochs=40, patience=10)


def crowd(count, spread, seed, shift=0.0):
    """A residual, whose size alone says something, and a column of noise."""
    rng = np.random.default_rng(seed)
    return {
        "error": (shift + rng.normal(0, spread, (count, 1))).astype(np.float32),
        "noise": rng.normal(size=(count, 3)).astype(np.float32),
    }


def judge(logits, place=0, shift=0.0):
    scores = [logits(crowd(300, spread, seed, shift), place) for spread, seed in ((0.5, 8), (4.0, 9))]
    return statistics.auc(*scores)


def test_scaling_by_hand():
    values = np.array([[0.0, 3.0, 5.0], [-2.0, 3.0, 0.0], [4.0, 3.0, 0.0]])
    how = feature_classifier.fit_scaling(values)
    assert how.unit == pytest.approx([2, 3, 5 / 3])  # a median of 0 gives way to the mean
    scaled = feature_classifier.scale_features(values, how)
    np.testing.assert_allclose(scaled[:, [0, 2]].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:, [0, 2]].std(0), 1, rtol=1e-5)
    assert (scaled[:, 1] == 0).all() and scaled.dtype == np.float32
    assert feature_classifier.scale_features(np.full((1, 3), 1e30), how).max() == 10


def test_learns_what_is_in_the_size_and_not_in_the_sign():
    logits = feature_classifier.fit_classifier([(crowd(200, 0.5, 1), crowd(200, 4.0, 2))], FAST)
    assert judge(logits) > 0.85


def test_few_known_members_count_as_much_as_many_others():
    logits = feature_classifier.fit_classifier([(crowd(30, 0.5, 1), crowd(600, 4.0, 2))], FAST)
    members, others = (logits(crowd(300, spread, seed), 0) for spread, seed in ((0.5, 8), (4.0, 9)))
    assert ((members > 0).mean() + (others <= 0).mean()) / 2 > 0.75


def test_each_model_has_its_own_scale():
    """Under the second model all residuals are ten times as large: the classifier is shared, the units are not."""
    large = lambda features: {**features, "error": 10 * features["error"]}
    pair = (crowd(100, 0.5, 1), crowd(100, 4.0, 2))
    logits = feature_classifier.fit_classifier([pair, (large(pair[0]), large(pair[1]))], FAST)
    unseen = crowd(50, 2.0, 5)
    np.testing.assert_allclose(logits(unseen, 0), logits(large(unseen), 1), rtol=1e-4, atol=1e-4)


def test_padding_has_no_weight():
    weights = feature_classifier.init_classifier({"a": 3}, FAST)
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
    labels, weight = jnp.array([1.0, 1, 0, 0, 1, 0]), jnp.array([1.0, 1, 1, 1, 0, 0])
    short = feature_classifier.classifier_loss(weights, ({"a": rows[:4]}, labels[:4], weight[:4]))
    padded = feature_classifier.classifier_loss(weights, ({"a": rows}, labels, weight))
    assert float(padded) == pytest.approx(float(short))


def test_early_stopping_gives_the_best_weights_back():
    """On labels that say nothing more epochs only learn by heart: they change nothing after the best one."""
    known = [(crowd(60, 1.0, 1), crowd(60, 1.0, 2))]
    short = feature_classifier.fit_classifier(known, FAST._replace(epochs=60, patience=5))
    long = feature_classifier.fit_classifier(known, FAST._replace(epochs=120, patience=5))
    unseen = crowd(20, 1.0, 5)
    np.testing.assert_array_equal(short(unseen, 0), long(unseen, 0))
    forever = feature_classifier.fit_classifier(known, FAST._replace(epochs=60, patience=1000))
    assert np.abs(forever(unseen, 0)).mean() < 1


@pytest.mark.parametrize("count", [2, 5, 100])
def test_somebody_is_held_out_and_somebody_is_not(count):
    chosen = feature_classifier._held_out(np.arange(count), 0.2, np.random.default_rng(0))
    assert chosen.shape == (count,) and 1 <= chosen.sum() < count
    assert chosen.sum() == max(1, round(0.2 * count))

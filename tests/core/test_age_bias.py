"""The age bias by hand, and that its correction does what it promises."""

import numpy as np
import pytest

from fedsparse_jax.core.age_bias import AgeBias, correct_age_bias, fit_age_bias


def test_the_line_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    ages = rng.uniform(45, 80, 60)
    predictions = 0.6 * ages + 25 + rng.normal(0, 3, 60)
    slope, offset = np.polyfit(ages, predictions, 1)
    assert fit_age_bias(predictions, ages) == pytest.approx((slope, offset, 60))


def test_who_is_corrected_by_hand():
    # 0.5 * 50 + 30 = 55 is what is expected at 50, and 65 at 70: 58 and 64 are 3 years too old and 1 too young.
    assert correct_age_bias(AgeBias(0.5, 30.0, 9), [58.0, 64.0], [50.0, 70.0]).tolist() == [53.0, 69.0]


def test_a_corrected_gap_does_not_hang_on_the_age_and_equals_that_by_the_regression_of_the_gap():
    rng = np.random.default_rng(1)
    ages = rng.uniform(45, 80, 200)
    predictions = 0.5 * ages + 31 + rng.normal(0, 3, 200)
    gap = correct_age_bias(fit_age_bias(predictions, ages), predictions, ages) - ages
    assert np.polyfit(ages, gap, 1) == pytest.approx([0, 0], abs=1e-9)
    slope, offset = np.polyfit(ages, predictions - ages, 1)
    np.testing.assert_allclose(gap, predictions - ages - (slope * ages + offset))


@pytest.mark.parametrize(("predictions", "ages"), [([], []), ([50, 60], [50, 60]), ([5, 6, 7], [50] * 3)])
def test_too_few_and_one_age_give_no_line(predictions, ages):
    assert fit_age_bias(predictions, ages) is None
    assert fit_age_bias([50.0, np.nan, 60.0], [50.0, 55.0, 60.0]) is None

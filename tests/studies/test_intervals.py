"""The interval beside a mean, by hand and against SciPy's quantiles."""

import math

import numpy as np
import pytest
from scipy.stats import t

from fedsparse_jax.studies import half_width, mean_with_interval


def test_two_values_by_hand():
    # t = tan(0.95 * pi / 2) = 12.706 with one degree of freedom; the mean's error is half the difference.
    quantile = math.tan(0.95 * math.pi / 2)
    assert half_width([3.0, 5.0]) == pytest.approx(quantile * 1.0)
    assert half_width([3.0, 5.0], level=0.5) == pytest.approx(math.tan(math.pi / 4))
    assert mean_with_interval([3.0, 5.0], 1) == "4.0 ± 12.7"


@pytest.mark.parametrize("count", [3, 5, 40])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_student_quantiles(count, level):
    values = np.random.default_rng(count).normal(7, 2, count)
    expected = t.ppf((1 + level) / 2, count - 1) * values.std(ddof=1) / count**0.5
    assert half_width(values, level) == pytest.approx(expected)


def test_intervals_cover_the_truth():
    """Of 400 samples of four, about 95 % of the intervals hold the true mean; binomially at least 366."""
    samples = np.random.default_rng(0).normal(1.0, 3.0, (400, 4))
    assert sum(abs(sample.mean() - 1.0) <= half_width(sample) for sample in samples) >= 366


def test_equal_values_have_no_spread_and_one_value_has_none_that_is_known():
    assert half_width([0.1, 0.1, 0.1]) == 0.0
    assert math.isnan(half_width([4.0]))
    assert mean_with_interval([4.0], 2) == "4.00"


def test_a_mean_may_show_its_sign():
    assert mean_with_interval([-5.0, -5.0], 1, "+") == "-5.0 ± 0.0"
    assert mean_with_interval([0.25, 0.25], 2, "+") == "+0.25 ± 0.00"

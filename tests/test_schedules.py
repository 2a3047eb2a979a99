"""The paper's numbers, and the traps of the published code."""

import jax
import numpy as np
import pytest

from fedsparse_jax.schedules import gradual, one_shot
from fedsparse_jax.types import UsageError
from tests import reference


@pytest.mark.parametrize(
    ("t", "expected"), [(1, 0.0), (2, 0.071), (3, 0.139), (5, 0.263), (10, 0.518), (20, 0.822), (40, 0.95)]
)
def test_the_papers_forty_rounds(t, expected):
    assert float(gradual(0.0, 0.95, begin=1, end=40)(t)) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("begin", "end", "every"), [(1, 40, 1), (1, 40, 15), (8, 20, 3), (0, 7, 10)])
def test_agrees_with_the_formula_and_reaches_its_end(begin, end, every):
    schedule = jax.jit(gradual(0.1, 0.9, begin, end, every=every))
    values = [float(schedule(t)) for t in range(1, end + 3)]
    expected = [reference.gradual(t, 0.1, 0.9, begin, end, every=every) for t in range(1, end + 3)]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert values[-1] == values[end - 1] == np.float32(0.9)
    assert (np.diff(values) >= -1e-7).all()


def test_one_shot():
    assert [float(one_shot(0.8, at=2)(t)) for t in (1, 2, 3)] == [0.0, np.float32(0.8), np.float32(0.8)]


@pytest.mark.parametrize("options", [dict(final=1.2), dict(begin=5, end=5), dict(every=0)])
def test_refuses_what_cannot_be(options):
    with pytest.raises(UsageError, match="pruning.schedule"):
        gradual(**options)

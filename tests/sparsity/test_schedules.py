"""The paper's numbers, and the traps of the published code."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.sparsity.schedules import constant, gradual, multiplicative, one_shot, step_wise
from tests.helpers import numpy_reference


@pytest.mark.parametrize(
    ("t", "expected"), [(1, 0.0), (2, 0.071), (3, 0.139), (5, 0.263), (10, 0.518), (20, 0.822), (40, 0.95)]
)
def test_the_papers_forty_rounds(t, expected):
    assert float(gradual(0.0, 0.95, begin=1, end=40)(t)) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("begin", "end", "every"), [(1, 40, 1), (1, 40, 15), (8, 20, 3), (0, 7, 10)])
def test_agrees_with_the_formula_and_reaches_its_end(begin, end, every):
    schedule = jax.jit(gradual(0.1, 0.9, begin, end, every=every))
    values = [float(schedule(t)) for t in range(1, end + 3)]
    expected = [numpy_reference.gradual(t, 0.1, 0.9, begin, end, every=every) for t in range(1, end + 3)]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert values[-1] == values[end - 1] == np.float32(0.9)
    assert (np.diff(values) >= -1e-7).all()


@settings(deadline=None, max_examples=40)
@given(
    initial=st.floats(0, 0.99),
    final=st.floats(0, 1),
    begin=st.integers(0, 9),
    length=st.integers(1, 40),
    power=st.floats(0.5, 4),
    every=st.integers(1, 12),
    t=st.integers(0, 60),
)
def test_gradual_agrees_with_the_formula(initial, final, begin, length, power, every, t):
    sparsity = float(gradual(initial, final, begin, begin + length, power=power, every=every)(t))
    expected = numpy_reference.gradual(t, initial, final, begin, begin + length, power, every)
    assert sparsity == pytest.approx(expected, abs=2e-6)


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 1), st.integers(0, 40), st.integers(0, 40))
def test_one_shot_and_constant_agree_with_their_definitions(final, at, t):
    assert float(one_shot(final, at)(t)) == (np.float32(final) if t >= at else 0)
    assert float(constant(final)(t)) == np.float32(final)


def test_one_shot_by_hand():
    assert [float(one_shot(0.8, at=2)(t)) for t in (1, 2, 3)] == [0.0, np.float32(0.8), np.float32(0.8)]


def test_constant_by_hand():
    assert [float(constant(0.8)(t)) for t in (0, 7)] == [np.float32(0.8)] * 2


def test_step_wise_by_hand():
    stairs = step_wise(0.8, at=(2, 5), levels=(0.5, 0.8))
    assert [round(float(stairs(t)), 6) for t in (1, 2, 4, 5, 9)] == [0.0, 0.5, 0.5, 0.8, 0.8]


def test_multiplicative_takes_a_fifth_of_what_remains():
    schedule = multiplicative(0.95, rate=0.2, begin=3, every=2)
    remaining = [1 - float(schedule(t)) for t in (2, 3, 4, 5, 7)]
    assert remaining == pytest.approx([1.0, 0.8, 0.8, 0.64, 0.512])
    # .8^13 = .055, .8^14 = .044
    assert float(schedule(3 + 2 * 12)) < np.float32(0.95) == float(schedule(3 + 2 * 13))


@settings(deadline=None, max_examples=30)
@given(
    final=st.floats(0, 1),
    rate=st.floats(0.01, 1),
    begin=st.integers(0, 9),
    every=st.integers(1, 5),
    t=st.integers(0, 30),
)
def test_multiplicative_agrees_with_the_formula(final, rate, begin, every, t):
    sparsity = float(multiplicative(final, rate, begin, every)(t))
    assert sparsity == pytest.approx(numpy_reference.multiplicative(t, final, rate, begin, every), abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1), st.sets(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 45))
def test_step_wise_agrees_with_the_formula(final, at, t):
    sparsity = float(step_wise(final, at=tuple(sorted(at)))(t))
    assert sparsity == pytest.approx(numpy_reference.step_wise(t, final, at), abs=1e-6)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: step_wise(at=()), r"at is \(\)"),
        (lambda: step_wise(at=(5, 2)), r"at is \(5, 2\)"),
        (lambda: step_wise(0.9, at=(1, 2), levels=(0.5,)), r"levels is \(0.5,\)"),
        (lambda: step_wise(0.9, at=(1, 2), levels=(0.5, 0.8)), r"levels is \(0.5, 0.8\)"),
        (lambda: multiplicative(rate=0.0), "rate is 0.0"),
        (lambda: multiplicative(every=0), "every is 0"),
        (lambda: constant(-0.1), "final is -0.1"),
        (lambda: one_shot(float("nan")), "final is nan"),
        (lambda: gradual(final=1.2), "final is 1.2"),
        (lambda: gradual(begin=5, end=5), "begin is 5"),
        (lambda: gradual(every=0), "every is 0"),
    ],
)
def test_impossible_schedules_are_refused(make, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: "):
        make()

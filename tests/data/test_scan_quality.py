"""Which scans to look at first."""

import math

from fedsparse_jax.data import nifti
from fedsparse_jax.data.scan_quality import find_doubts, rows_to_show


def quality(overlap=0.95, correlation=0.5, litres=1.4, rotation=math.nan, warnings=()):
    return nifti.Quality(
        (9, 9, 9), (1.0, 1.0, 1.0), "RAS", 0.3, 1.0, 1.0, litres, overlap, correlation, rotation, 1.0, warnings
    )


def test_a_sound_cohort_has_no_doubts():
    assert find_doubts([quality(overlap=0.95 - 0.001 * i) for i in range(20)]) == []


def test_warnings_and_outliers_by_hand():
    scans = [quality(overlap=0.95 + 0.002 * (i % 2)) for i in range(20)]
    scans[3] = quality(overlap=0.80)
    scans[7] = quality(warnings=("dark", "cut"))
    scans[9] = quality(overlap=0.999)  # unusually good is no doubt
    scans[11] = quality(litres=0.9)
    scans[12] = quality(litres=1.9)
    doubts = find_doubts(scans)
    assert [doubt.row for doubt in doubts] == [7, 3, 11, 12]
    assert doubts[0].reasons == ("dark", "cut")
    assert doubts[1].reasons == ("overlap 0.8, where the median is 0.95",)


def test_a_small_cohort_and_figures_that_are_not_there_raise_no_doubts():
    assert find_doubts([quality(overlap=0.2), quality(), quality()]) == []
    assert find_doubts([quality(rotation=math.nan) for _ in range(12)]) == []


def test_many_turned_scans_are_usual_and_one_is_not():
    turned = [quality(rotation=8.0 + i % 3) for i in range(12)]
    assert find_doubts(turned) == []
    assert [doubt.row for doubt in find_doubts([*turned, quality(rotation=30.0)])] == [12]


def test_the_doubtful_are_shown_first_and_nobody_twice():
    doubts = find_doubts([quality(warnings=("x",) if i in (2, 5) else ()) for i in range(9)])
    assert rows_to_show(doubts, 9, 8) == [2, 5, 0, 1, 3, 6, 7, 8]
    assert len(set(rows_to_show(doubts, 9, 8))) == 8
    assert rows_to_show([], 3, 8) == [0, 1, 2] and rows_to_show([], 0, 8) == []

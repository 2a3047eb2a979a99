"""Which scans of a cohort a person should look at first: those with warnings, and those unlike the others."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedsparse_jax.data.nifti import Quality

FIGURES = {  # figure of `nifti.Quality` -> which way is bad, and the least difference from the median that counts
    "overlap": (-1, 0.03),
    "correlation": (-1, 0.1),
    "litres": (0, 0.3),
    "rotation": (1, 15.0),
}
FAR = 4.0  # robust standard deviations from the cohort's median
FEWEST_SCANS = 8  # scans from which a cohort says what is usual


class Doubt(NamedTuple):
    """A scan to look at."""

    row: int
    reasons: tuple[str, ...]


def find_doubts(quality: Sequence[Quality]) -> list[Doubt]:
    """The doubtful scans of a cohort: first those of most reasons, then in the order of the list.

    A figure is unlike the others' where it lies more than `FAR` robust standard deviations (1.4826 times the median
    absolute deviation) from the median, on the bad side.
    """
    reasons = [list(scan.warnings) for scan in quality]
    for name, (bad_side, least) in FIGURES.items():
        values = np.array([getattr(scan, name) for scan in quality], float)
        if np.isfinite(values).sum() < FEWEST_SCANS:
            continue
        middle = np.nanmedian(values)
        limit = max(FAR * 1.4826 * float(np.nanmedian(np.abs(values - middle))), least)
        for row, off in enumerate(values - middle):
            if (bad_side * off if bad_side else abs(off)) > limit:
                reasons[row].append(f"{name} {values[row]:.3g}, where the median is {middle:.3g}")
    found = [Doubt(row, tuple(texts)) for row, texts in enumerate(reasons) if texts]
    return sorted(found, key=lambda doubt: -len(doubt.reasons))


def rows_to_show(doubts: Sequence[Doubt], count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` rows: the doubtful first, then others from the whole list.

    >>> rows_to_show([Doubt(7, ("dark",))], 9, 4)
    [7, 0, 4, 8]
    """
    first = [doubt.row for doubt in doubts][:most]
    others = [row for row in range(count) if row not in set(first)]
    left = min(most - len(first), len(others))
    return first + [others[place] for place in np.linspace(0, len(others) - 1, left).round().astype(int)]

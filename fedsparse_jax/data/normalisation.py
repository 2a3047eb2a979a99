"""How the intensities of a volume are brought to a common scale; the background is 0 before."""

from collections.abc import Callable

import numpy as np


def zscore_volume(volume: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance over the whole volume, background included: the paper's choice."""
    return (volume - volume.mean()) / volume.std()


def zscore_brain(volume: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance over the non-zero voxels; the background stays 0."""
    brain = volume != 0
    inside = volume[brain]
    return np.where(brain, (volume - inside.mean()) / inside.std(), 0)


def percentile(volume: np.ndarray) -> np.ndarray:
    """The 99th percentile of the non-zero voxels becomes 1; nothing is shifted or clipped."""
    return volume / np.percentile(volume[volume != 0], 99)


def by_mean(volume: np.ndarray) -> np.ndarray:
    """Divided by the mean over the whole volume, as the published SFCN was trained."""
    return volume / volume.mean()


NORMALISE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "volume": zscore_volume,
    "brain": zscore_brain,
    "percentile": percentile,
    "mean": by_mean,
}

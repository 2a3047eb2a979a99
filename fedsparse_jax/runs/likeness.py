"""How like the scans that a run was trained on a new scan is: its correlation with their mean.

A scan that lies otherwise on the grid, that is cut off, or that has another contrast is less like that mean than any
scan of the training was. ``likeness.npz`` of the run folder keeps the mean and how like it the training scans were.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.files import npz_bytes, read_npz, write_whole
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.scan_checks import pearson

LIKENESS = "likeness.npz"
MOST = 128  # scans that are looked at, evenly chosen
LEAST_MARGIN = 0.02  # below the least of the training, from which a scan may count as unlike


class TrainingLook(NamedTuple):
    """What is known of the scans of a training."""

    mean: np.ndarray  # f32[*shape, channels]
    of_training: np.ndarray  # f32[K], correlations of scans of the training with the mean

    @property
    def least(self) -> float:
        """That of the training scan which is least like the others."""
        return float(self.of_training.min())

    @property
    def limit(self) -> float:
        """Below it a scan is unlike those of the training: as far below the least as that is below their median."""
        return self.least - max(float(np.median(self.of_training)) - self.least, LEAST_MARGIN)


def measure_likeness(data: Federation, most: int = MOST) -> TrainingLook:
    """The mean of at most so many scans of all clients, and the correlation of each with it."""
    rows = np.sort(np.concatenate(data.members))
    rows = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)]
    total = np.zeros(data.inputs.shape[1:], np.float64)
    for row in rows:
        total += data.inputs[row]
    mean = (total / len(rows)).astype(np.float32)
    return TrainingLook(mean, np.array([likeness(data.inputs[row], mean) for row in rows], np.float32))


def likeness(scan: np.ndarray, mean: np.ndarray) -> float:
    """The correlation of a scan ``[*shape, channels]`` with the mean over all voxels; 0 where a scan is constant."""
    return pearson(scan.ravel(), mean.ravel())


def write_likeness(data: Federation, workdir: Path) -> None:
    """Writes the file of a run on scans; none where those of the training are elsewhere."""
    if any(len(rows) and rows.max() >= len(data.inputs) for rows in data.members):
        return
    write_whole(workdir / LIKENESS, npz_bytes(measure_likeness(data)._asdict()))


def read_likeness(workdir: Path) -> TrainingLook | None:
    """What `write_likeness` wrote; None where it did not yet, or an earlier version trained."""
    return TrainingLook(**read_npz(workdir / LIKENESS)) if (workdir / LIKENESS).exists() else None

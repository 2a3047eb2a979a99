"""Ridge regression on voxels: what a linear model of pooled scans reaches, beside which a network has to be better."""

import numpy as np

PENALTIES = tuple(10.0**power for power in range(-2, 7))


def ridge_on_voxels(inputs, targets, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    r"""Predictions ``f64[T]`` of a ridge regression on the standardised voxels of all training scans together.

    The penalty is the one of `PENALTIES` whose leave-one-out error is least. With the eigenvectors of the Gram matrix
    of :math:`n` centred scans that error is known without a second fit (Hastie et al., The Elements of Statistical
    Learning, section 7.10): a residual divided by one minus its leverage.

    Args:
        inputs: ``f32[N, *shape]``, memory-mapped or not.
        targets: ``f32[N]``.
        train, test: the examples, ``i64[n]`` and ``i64[T]``.
    """
    voxels = np.asarray(inputs[train], np.float32).reshape(len(train), -1)
    mean, spread = voxels.mean(0), voxels.std(0)
    varies = spread > 0
    standardise = lambda scans: ((scans - mean) / np.where(varies, spread, 1) * varies).astype(np.float32)
    voxels = standardise(voxels)
    level = targets[train].astype(float).mean()
    centred = targets[train] - level
    values, vectors = np.linalg.eigh((voxels @ voxels.T).astype(float))
    within = vectors.T @ centred

    def left_out(penalty: float) -> float:
        """The leave-one-out error; the mean, which is fitted as well, has a leverage of 1 / n."""
        shrunk = values / (values + penalty)
        residuals = centred - vectors @ (shrunk * within)
        leverage = np.square(vectors) @ shrunk + 1 / len(train)
        return float(np.square(residuals / np.maximum(1 - leverage, 1e-12)).mean())

    penalty = min(PENALTIES, key=left_out)
    weights = voxels.T @ (vectors @ (within / (values + penalty))).astype(np.float32)
    scans = np.asarray(inputs[test], np.float32).reshape(len(test), -1)
    return standardise(scans) @ weights + level

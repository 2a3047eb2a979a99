"""Ridge regression on voxels, against scikit-learn's."""

import numpy as np
from sklearn.linear_model import RidgeCV

from fedsparse_jax.studies.voxel_ridge import PENALTIES, ridge_on_voxels


def test_it_is_the_ridge_regression_of_scikit_learn():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 4, 5, 4, 1)).astype(np.float32)
    inputs[:, 0] = 3.0  # a plane of background
    targets = (60 + 3 * inputs[:, 1, 2, 3, 0] + rng.normal(size=60)).astype(np.float32)
    train, test = np.arange(40), np.arange(40, 60)
    flat = inputs.reshape(60, -1)[:, 20:].astype(float)
    mean, spread = flat[train].mean(0), flat[train].std(0)
    scaled = (flat - mean) / spread
    reference = RidgeCV(PENALTIES).fit(scaled[train], targets[train])
    found = ridge_on_voxels(inputs, targets, train, test)
    np.testing.assert_allclose(found, reference.predict(scaled[test]), atol=1e-3)
    assert np.abs(found - targets[test]).mean() < np.abs(targets[train].mean() - targets[test]).mean()

"""OrganMNIST3D of MedMNIST: organs of 11 classes as volumes of 28 x 28 x 28 voxels, a task for two cores.

python scripts/train.py --config=configs/cohorts/medmnist3d.py --config.data.root=organmnist3d.npz \
    --workdir=runs/organs

The validation part is trained on, and the test part is the test set. Other sets have other classes, such as
``--config.model.classes=2`` for NoduleMNIST3D. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import images_config


def get_config(forms=""):
    return images_config((28, 28, 28), forms, classes=11)

"""CIFAR-10 as an .npz file with the names that Keras gives: x_train, y_train, x_test, y_test.

python scripts/train.py --config=configs/cohorts/cifar10.py --config.data.root=cifar10.npz --workdir=runs/cifar10

Colour images of 32 x 32 pixels in three channels. See docs/how-to/cohorts.md.
"""

from fedsparse_jax.config.cohort_presets import images_config


def get_config(forms=""):
    return images_config((32, 32), forms, classes=10, channels=3)

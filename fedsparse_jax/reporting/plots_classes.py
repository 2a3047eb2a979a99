"""The pictures of a task with classes: who holds which, what is taken for what, and a few images."""

import numpy as np
from matplotlib.figure import Figure

from fedsparse_jax.reporting.style import clip_name, styled


@styled
def class_overview(clients, test_labels, names):
    """Who holds how many examples of which class.

    Args:
        clients: list of ``(name, labels)``.
        test_labels: labels of the central test set.
        names: of the K classes.
    """
    groups = [(clip_name(name), labels) for name, labels in clients] + [("test", test_labels)]
    counts = np.array([np.bincount(np.asarray(labels, int), minlength=len(names)) for _, labels in groups])
    figure = Figure(figsize=(7, 1 + 0.2 * len(groups)), layout="constrained")
    _counted(figure.subplots(), counts, [f"{name}  n = {len(labels)}" for name, labels in groups], names)
    figure.axes[0].set(xlabel="class", title="Examples of each class")
    return figure


@styled
def confusion(labels, predicted, names=()):
    """How often each class (rows) was taken for which (columns); ``names`` are theirs, by default their numbers."""
    labels, predicted = np.asarray(labels, int), np.asarray(predicted, int)
    classes = int(max(labels.max(), predicted.max(), len(names) - 1)) + 1
    names = list(names) or [str(k) for k in range(classes)]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    figure = Figure(figsize=(3.8, 3.6), layout="constrained")
    _counted(figure.subplots(), counts, names, names)
    figure.axes[0].set(xlabel="predicted class", ylabel="true class")
    return figure


def _counted(ax, counts, names, classes):
    """A table of counts, darker where there are more."""
    ax.imshow(counts, cmap="Blues", aspect="auto", vmin=0, vmax=max(1.4 * counts.max(), 1))
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = counts[row, column] > 0.8 * counts.max()
        ax.text(
            column, row, counts[row, column], ha="center", va="center", fontsize=7, color="white" if dark else "black"
        )
    ax.set_xticks(range(counts.shape[1]), [clip_name(name) for name in classes])
    ax.set_yticks(range(len(names)), names)
    ax.grid(visible=False)


@styled
def montage(images, titles):
    """A row of images; of volumes the middle plane of the last axis.

    Args:
        images: f32[K, H, W], or f32[K, X, Y, Z].
        titles: K strings.
    """
    figure = Figure(figsize=(min(7, 0.75 * len(images)), 1.1), layout="constrained")
    for ax, image, title in zip(figure.subplots(1, len(images), squeeze=False)[0], images, titles, strict=True):
        plane = image if image.ndim == 2 else image[..., image.shape[-1] // 2]
        ax.imshow(plane, cmap="gray_r", interpolation="nearest")
        ax.set_title(title, loc="center", fontsize=8)
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    return figure

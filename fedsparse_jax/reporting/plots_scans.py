"""Pictures of volumes: axial, coronal and sagittal slices of a few scans beside one another."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fedsparse_jax.reporting.style import ORANGE, RED, clip_name, styled

MAX_SCANS = 8
CHARACTER = 0.66  # width of a wide character, of its size


def slice_indices(shape):
    """Where the contact sheet cuts: (x, y, z) indices, the sagittal cut a little off the midline."""
    return tuple(min(int(size * part), size - 1) for size, part in zip(shape, (0.44, 0.5, 0.5), strict=True))


@styled
def contact_sheet(volumes, titles, doubtful=0):
    """Axial, coronal and sagittal slices, one column a scan; left of the picture is left of the person.

    Args:
        volumes: f32[K, X, Y, Z] in RAS order (x to the right, y to the front, z up); at most MAX_SCANS are drawn.
        titles: K strings, of one line or more.
        doubtful: so many of the first are marked in red.
    """
    volumes = np.asarray(volumes)
    picked = np.unique(np.linspace(0, len(volumes) - 1, min(len(volumes), MAX_SCANS)).round().astype(int))
    x, y, z = slice_indices(volumes.shape[1:])
    cuts = (np.s_[:, :, z], np.s_[:, y, :], np.s_[x, :, :])
    heights = (volumes.shape[2], volumes.shape[3], volumes.shape[3] * volumes.shape[1] / volumes.shape[2])
    width = min(1.4, 6.8 / len(picked))
    size = (width * len(picked) + 0.25, width * sum(heights) / volumes.shape[1] + 0.5)
    tight = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    figure = Figure(figsize=(max(size[0], 3.6), size[1]), layout=tight)
    axes = figure.subplots(3, len(picked), squeeze=False, height_ratios=heights)
    for column_axes, k in zip(axes.T, picked, strict=True):
        window = {"vmin": np.nanmin(volumes[k]), "vmax": np.nanpercentile(volumes[k], 99.7)}
        _title(column_axes[0], titles[k], width, RED if k < doubtful else "black")
        for ax, cut, ends in zip(column_axes, cuts, ("LR", "LR", "PA"), strict=True):
            _slice(ax, volumes[k][cut], ends, window)
    for ax, plane in zip(axes[:, 0], ("axial", "coronal", "sagittal"), strict=True):
        ax.set_ylabel(plane, fontsize=7.5)
    figure.supxlabel("neurological convention: the person's left is on the left", fontsize=7, color="#4b5563")
    return figure


def _title(ax, title, width, colour):
    """A title that fits above a column ``width`` inches wide, whatever a scan is called: long names take two lines."""
    size = 8 if len(title.split("\n")[0]) * 8 * CHARACTER < 72 * width else 6.5
    fits = int(72 * width / (size * CHARACTER))
    lines = [part for line in title.split("\n") for part in _broken(" ".join(line.split()), fits)]
    ax.set_title("\n".join(lines), loc="center", fontsize=size, fontweight="normal", color=colour)


def _broken(name, limit):
    """A name in at most two lines of ``limit`` characters.

    >>> _broken("sub-NDARINV3ABCDEFGH", 12), _broken("sub-NDARINV3ABCDEFGH", 8)
    (['sub-NDARINV3', 'ABCDEFGH'], ['sub-NDAR', 'INV3ABC…'])
    """
    return [name[:limit], clip_name(name[limit:], limit)] if len(name) > limit else [name]


def _slice(ax, image, ends, window):
    ax.imshow(image.T, origin="lower", cmap="gray", interpolation="nearest", **window)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    for place, letter in zip((0.04, 0.96), ends, strict=True):
        ax.text(place, 0.03, letter, transform=ax.transAxes, color=ORANGE, fontsize=6.5, fontweight="bold",
                ha="left" if place < 0.5 else "right", va="bottom")  # fmt: skip


@styled
def registration_sheet(volumes, outline, titles):
    """Axial, coronal and sagittal slices of registered scans, a scan a column, under the template's outline.

    Args:
        volumes: K of f32[X, Y, Z] in RAS order.
        outline: f32[X, Y, Z], share of brain in the template; its contour at one half is drawn.
        titles: K strings.
    """
    columns = min(len(volumes), 9)
    bands = -(-len(volumes) // columns)
    x, y, z = slice_indices(outline.shape)
    cuts = (np.s_[:, :, z], np.s_[:, y, :], np.s_[x, :, :])
    figure = Figure(
        figsize=(7, 2.45 * bands), layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    )
    axes = figure.subplots(3 * bands, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for k, (volume, title) in enumerate(zip(volumes, titles, strict=True)):
        band, column = divmod(k, columns)
        window = {"vmin": 0, "vmax": np.percentile(volume, 99.7)}
        for ax, cut in zip(axes[3 * band : 3 * band + 3, column], cuts, strict=True):
            ax.imshow(volume[cut].T, origin="lower", cmap="gray", interpolation="nearest", **window)
            ax.contour(outline[cut].T, [0.5], colors=[ORANGE], linewidths=0.5)
        axes[3 * band, column].set_title(clip_name(title), loc="center", fontsize=6.5, fontweight="normal")
    return figure

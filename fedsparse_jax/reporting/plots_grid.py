"""Pictures of a grid of runs: the headline measure of each cell with its interval. Plain data in, a Figure out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fedsparse_jax.core.tasks import REGRESSION
from fedsparse_jax.reporting.plots_run import axis_label
from fedsparse_jax.reporting.style import BLUE, GREEN, GREY, ORANGE, RED, SKY, clip_name, styled

PANELS_IN_A_ROW = 3  # panels beside one another, at most
COLOURS = ("black", BLUE, RED, GREEN, ORANGE, "#CC79A7", SKY, GREY)


class Point(NamedTuple):
    """A cell: where it stands, and its measure."""

    level: str  # on the horizontal axis
    mean: float
    half: float  # of the interval; NaN for none


class DensityPanel(NamedTuple):
    """A cell: the share of weights kept in each of its kernels, round by round."""

    title: str  # a line or two
    rounds: Sequence[int]
    kernels: Mapping[str, Sequence[float]]  # by name


class Panel(NamedTuple):
    """One environment."""

    title: str
    lines: Mapping[str, Sequence[Point]]  # by method
    baseline: float  # the measure of knowing nothing


@styled
def measure_by_level(panels: Sequence[Panel], task=REGRESSION):
    """A panel for each environment; in it a line for each method, over the levels of the last axis."""
    figure, axes = _panels(len(panels), 2.3)
    methods = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    levels = list(dict.fromkeys(p.level for panel in panels for line in panel.lines.values() for p in line))
    for ax, panel in zip(axes, panels, strict=False):
        for name, line in panel.lines.items():
            i = methods.index(name)
            shift = 0.5 * ((i + 0.5) / len(methods) - 0.5)  # side by side, so that intervals can be told apart
            at = [levels.index(point.level) + shift for point in line]
            look = {"color": COLOURS[i % len(COLOURS)], "marker": "osD^vPX*"[i % 8], "capsize": 2, "lw": 1.1}
            ax.errorbar(
                at, [p.mean for p in line], [np.nan_to_num(p.half) for p in line], label=clip_name(name, 28), **look
            )
        if np.isfinite(panel.baseline):
            ax.axhline(panel.baseline, color=GREY, ls=":", lw=1.2)
        ax.set_title(panel.title)
        ax.set_xticks(range(len(levels)), [clip_name(level, 12) for level in levels])
        ax.set_xlim(-0.6, len(levels) - 0.4)
    for ax in axes[::PANELS_IN_A_ROW]:
        ax.set_ylabel(axis_label(task))
    return _with_one_legend(figure, axes)


def _panels(count: int, height: float, **shared) -> tuple[Figure, np.ndarray]:
    """A figure and the axes of so many panels, in rows of ``PANELS_IN_A_ROW``, each ``height`` inches high."""
    columns, rows = min(PANELS_IN_A_ROW, count), -(-count // PANELS_IN_A_ROW)
    figure = Figure(figsize=(max(3.6, 2.4 * columns), height * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False, **shared).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


def _with_one_legend(figure: Figure, axes: np.ndarray) -> Figure:
    """The figure with the lines of all panels in one legend, each once."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 4))
    return figure


@styled
def density_by_round(panels: Sequence[DensityPanel]):
    """A panel for each cell; in it a line for each kernel, the share of its weights that are kept over the rounds."""
    figure, axes = _panels(len(panels), 2.1, sharex=True)
    names = list(dict.fromkeys(name for panel in panels for name in panel.kernels))
    for ax, panel in zip(axes, panels, strict=False):
        for name, kept in panel.kernels.items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            ax.plot(panel.rounds, kept, color=colour, lw=1.3, label=clip_name(name, 24))
        ax.set_title("\n".join(clip_name(line, 28) for line in panel.title.splitlines()))
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    for ax in axes[::PANELS_IN_A_ROW]:
        ax.set_ylabel("share kept")
    for ax in axes[-PANELS_IN_A_ROW:]:
        ax.set_xlabel("round")
        ax.tick_params(labelbottom=True)
    return _with_one_legend(figure, axes)

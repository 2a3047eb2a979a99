"""Pictures of people: who holds whom, and what was predicted for whom; ages are in years."""

import itertools
import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsparse_jax.core.tasks import REGRESSION, regression_measures
from fedsparse_jax.reporting.style import BLUE, BOX, GREY, RED, annotate, clip_name, styled

MAX_PANELS = 16
SHOWN = (("MAE", "mae", True), ("RMSE", "rmse", True), ("r", "r", False), ("R²", "r2", False))  # whether it has a unit


def age_edges(ages):
    """Edges of the age buckets, open on the left and closed on the right: 39, 50, 60, 70, 80, then inf.

    Younger cohorts start at their own decade; buckets beyond the oldest person are left out.
    """
    low, high = float(np.min(ages)), float(np.max(ages))
    start = 39 if 39 < low <= 50 else min(80, 10 * (math.ceil(low / 10) - 1))
    first = 50 if start == 39 else start + 10
    edges = [start, *range(first, min(80, max(first, 10 * math.ceil(high / 10))) + 1, 10)]
    return [*edges, math.inf] if high > 80 else edges


def target_edges(values, task=REGRESSION):
    """Edges of the buckets of any target: those of ages, or five equally wide ones."""
    if task.of_age:
        return age_edges(values)
    low, high = float(np.min(values)), float(np.max(values))
    return [low - 1e-6 * max(abs(low), 1), *np.linspace(low, high if high > low else low + 1, 6)[1:]]


def bucket_names(edges):
    """Labels of the buckets between ``edges``, such as ``(39, 50]`` and ``80+``."""
    return [f"{a:g}+" if b == math.inf else f"({a:g}, {b:g}]" for a, b in itertools.pairwise(edges)]


def bucket_of(ages, edges):
    """Index of the bucket of each age, i64[N]."""
    return np.clip(np.searchsorted(edges, ages, side="left") - 1, 0, len(edges) - 2)


@styled
def federation_overview(clients, test_ages=(), task=REGRESSION):
    """Who holds whom: stacked buckets of age, or of another target, per client over one histogram each.

    Args:
        clients: list of ``(name, ages in years)``.
        test_ages: ages of the central test set; empty for none.
        task: what is predicted.
    """
    groups = [(clip_name(name), np.asarray(ages, float)) for name, ages in clients if len(ages)]
    test = [("test", np.asarray(test_ages, float))] if len(test_ages) else []
    edges = target_edges(np.concatenate([ages for _, ages in groups + test]), task)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.12, 0.95, len(edges) - 1))
    panels = groups[: MAX_PANELS - len(test)] + test
    rows = math.ceil(len(panels) / 5)
    figure = Figure(figsize=(7, 2.4 + 1.15 * rows), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.4, 1.15 * rows), hspace=0.02)[:, 0]
    _bars(upper.subplots(), groups, edges, colours, task)
    axes = lower.subplots(rows, math.ceil(len(panels) / rows), sharex=True, squeeze=False)
    lower.supxlabel(task.axis, fontsize=7.5)
    _histograms(axes, panels, edges, colours, task)
    return figure


def _bars(ax, groups, edges, colours, task):
    bottom = np.zeros(len(groups))
    for i, label in enumerate(bucket_names(edges)):
        counts = np.array([np.sum(bucket_of(ages, edges) == i) for _, ages in groups])
        ax.bar(range(len(groups)), counts, 0.72, bottom, color=colours[i], label=label, edgecolor="white", lw=0.4)
        bottom += counts
    step = math.ceil(len(groups) / (160 // max(len(name) + 4 for name, _ in groups)))
    for i in range(0, len(groups), step):
        annotate(ax, f"{bottom[i]:.0f}", (i, bottom[i]), (0, 2), ha="center")
    ax.set_xticks(range(0, len(groups), step), [name for name, _ in groups[::step]])
    ax.set_xlim(-0.7 - max(0, 3 - len(groups)), len(groups) - 0.3 + max(0, 3 - len(groups)))
    ax.set(ylabel="scans", title=f"Scans of each client by {task.axis}")
    ax.set_ylim(0, 1.12 * max(bottom.max(), 1))
    ax.grid(axis="x", visible=False)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)


def _histograms(axes, panels, edges, colours, task):
    everyone = np.concatenate([ages for _, ages in panels])
    width = 2.5 if task.of_age else max(np.ptp(everyone), 1e-6) / 15
    bins = np.arange(width * math.floor(everyone.min() / width), everyone.max() + width, width)
    fills = colours[bucket_of((bins[:-1] + bins[1:]) / 2, edges)]
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for i, (ax, (name, ages)) in enumerate(zip(axes.flat, panels, strict=False)):
        counts, _ = np.histogram(ages, bins)
        ax.bar(bins[:-1], counts, np.diff(bins), align="edge", color=fills)
        ax.set_title(f"{name}  n = {len(ages)}", fontsize=7.5, fontweight="normal")
        ax.set_ylim(0, 1.55 * max(counts.max(), 1))
        text = f"μ {ages.mean():.1f}\nσ {ages.std():.1f}"
        ax.text(0.97, 0.93, text, transform=ax.transAxes, ha="right", va="top", fontsize=6.5)
        ax.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        ax.tick_params(labelsize=7, labelbottom=i + axes.shape[1] >= len(panels))


@styled
def predicted_vs_true(age, predicted, task=REGRESSION):
    """Predicted against true age, or target (both f64[N]), with identity, regression line and the scores."""
    age, predicted = np.asarray(age, float), np.asarray(predicted, float)
    figure = Figure(figsize=(3.4, 3.4), layout="constrained")
    ax = figure.subplots()
    both = np.concatenate([age, predicted])
    margin = 2 if task.of_age else 0.05 * max(np.ptp(both), 1e-6)
    limits = (both.min() - margin, both.max() + margin)
    ax.plot(limits, limits, color=GREY, ls="--", lw=1, label="identity")
    ax.scatter(age, predicted, s=12, alpha=_alpha(len(age)), color=BLUE, linewidths=0)
    _regression(ax, age, predicted, "regression")
    ax.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"true {task.axis}", ylabel=f"predicted {task.axis}")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    measures = regression_measures(predicted, age)
    lines = [f"{name:4} {measures[key]:.2f}{task.unit * has_unit}" for name, key, has_unit in SHOWN]
    lines.append(f"{'n':4} {len(age)}")
    look: dict[str, Any] = {"va": "top", "fontsize": 7, "bbox": BOX, "family": "DejaVu Sans Mono"}
    ax.text(0.03, 0.97, "\n".join(lines), transform=ax.transAxes, **look)
    ax.legend(loc="lower right", fontsize=7)
    return figure


def _alpha(count):
    return float(np.clip(12 / math.sqrt(max(count, 1)), 0.15, 0.7))


def _regression(ax, x, y, label):
    """Draws the least-squares line over the range of ``x`` and returns its slope, NaN if there is none."""
    if len(x) < 2 or np.ptp(x) == 0:
        return math.nan
    slope, offset = np.polyfit(x - x.mean(), y, 1)
    ends = np.array([x.min(), x.max()])
    ax.plot(ends, offset + slope * (ends - x.mean()), color=RED, label=label)
    return float(slope)


@styled
def gap_by_target(age, predicted, task=REGRESSION):
    """Brain-age gap (predicted minus true age, years), or error, against the truth, with bucket means and the slope."""
    age, gap = np.asarray(age, float), np.asarray(predicted, float) - np.asarray(age, float)
    figure = Figure(figsize=(3.4, 3.4), layout="constrained")
    ax = figure.subplots()
    ax.axhline(0, color=GREY, ls="--", lw=1)
    ax.scatter(age, gap, s=12, alpha=_alpha(len(age)), color=BLUE, linewidths=0)
    slope = _regression(ax, age, gap, "regression")
    edges = target_edges(age, task)
    parts = [(age[bucket_of(age, edges) == i], gap[bucket_of(age, edges) == i]) for i in range(len(edges) - 1)]
    means = np.array([(a.mean(), g.mean(), g.std()) for a, g in parts if len(a)])
    centre, mean, std = means.T
    ax.errorbar(
        centre, mean, std, fmt="s", color="black", ms=4, lw=1, capsize=2, label=f"mean ± SD by {task.target} bucket"
    )
    ax.set(xlabel=f"true {task.axis}", ylabel=f"predicted − true {task.axis}")
    text = f"slope {slope:+.2f}{' y/y' * task.of_age}".replace("-", "−")
    ax.text(0.97, 0.97, text, transform=ax.transAxes, ha="right", va="top", fontsize=7, bbox=BOX)
    ax.legend(loc="lower left", fontsize=7)
    return figure

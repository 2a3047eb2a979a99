"""Pictures of a run: a measure by round and by traffic, several runs beside one another, where the zeros are.

Plain data in, a matplotlib Figure out; ``records`` are always those of one run, in the order of the rounds.
"""

import functools
import math
import re

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from fedsparse_jax.core.tasks import REGRESSION
from fedsparse_jax.reporting.style import (
    BLUE,
    BOX,
    GREEN,
    GREY,
    METHOD_COLOURS,
    ORANGE,
    RED,
    SKY,
    annotate,
    clip_name,
    styled,
    traffic_amount,
)
from fedsparse_jax.runs.model_choice import best_record
from fedsparse_jax.runs.series import exchanged, headline_series, params_exchanged, series


@styled
def quality_by_round(records, method="", task=REGRESSION):
    """The headline measure over the rounds, beside its baseline; under it the sparsity asked and reached."""
    figure = Figure(figsize=(7, 3.6))
    figure.subplots_adjust(left=0.09, right=0.98, top=0.92, bottom=0.12, hspace=0.14)
    top, strip = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.1))
    at, colour = series(records, lambda r: r.round), METHOD_COLOURS.get(method, BLUE)
    _curve(top, at, records, task, colour)
    _validation_curve(top, at, records, task, colour)
    top.set_title(f"Test {task.label} by round")
    strip.step(at, series(records, lambda r: r.target_sparsity), where="mid", color=GREY, ls="--", lw=1, label="asked")
    strip.plot(at, series(records, lambda r: r.sparsity), "o-", color=colour, ms=2.5, lw=1.2, label="reached")
    strip.set(xlabel="round", ylabel="sparsity", ylim=(-0.05, 1.08))
    strip.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    strip.xaxis.set_major_locator(MaxNLocator(integer=True))
    strip.set_xlim(at.min() - 0.6, at.max() + 0.6 + 0.04 * np.ptp(at))
    strip.legend(loc="center right", handlelength=1.6)
    return figure


def _curve(ax, x, records, task, colour):
    """The headline measure against ``x``; values far above the axis become triangles at its upper edge."""
    values = headline_series(records, task)
    ok = np.isfinite(values)
    reference = _last(series(records, lambda r: r.baseline))
    low, high = limits(values[ok], reference, task)
    shown = ok & (values <= high)
    ax.plot(x[ok], values[ok], "-", color=colour)
    ax.plot(x[shown], values[shown], "o", color=colour)
    above = ok & ~shown
    ax.plot(x[above], np.full(above.sum(), high), "^", color=colour, clip_on=False, in_layout=False)
    if np.isfinite(reference):
        ax.axhline(reference, color=GREY, ls=":", lw=1.3)
        text = f"{task.naive}: {reference:.2f}"
        annotate(ax, text, (np.max(x), reference), (-4, 3), ha="right", color="#4b5563")
    if ok.any():
        end = (x[ok][-1], min(values[ok][-1], high))
        text = f"{values[ok][-1]:.{task.digits}f}"
        annotate(ax, text, end, (7, -3), fontsize=8, color=colour, fontweight="bold")
    else:
        ax.text(0.5, 0.5, f"no round has a test {task.label}", transform=ax.transAxes, ha="center", color=GREY)
    ax.set(ylim=(low, high), ylabel=axis_label(task))


def _validation_curve(ax, x, records, task, colour):
    """The headline measure on validation, dashed, and a diamond at the best round; nothing where nobody validates."""
    values = series(records, lambda r: r.validation.get(task.headline))
    if not np.isfinite(values).any():
        return
    low, high = ax.get_ylim()
    ax.plot(x, np.clip(values, low, high), "--", color=colour, lw=1.2, alpha=0.7)
    best = best_record(records, task)
    if best:
        place = [r.round for r in records].index(best.round)
        ax.plot(x[place], np.clip(values[place], low, high), "D", color=colour, mec="white", ms=6, clip_on=False)


def axis_label(task):
    """What the headline measure's axis says."""
    unit = "years" if task.of_age else task.unit.strip()
    return f"test {task.label}" + (f" ({unit})" if task.unit else "")


def _last(values):
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else math.nan


def limits(values, reference, task):
    """Limits that show the curve and the reference; a wild start must not flatten the rest."""
    known = np.append(values, reference)[np.isfinite(np.append(values, reference))]
    if not len(known):
        return 0.0, 1.0
    cap = 1.6 * max(reference if np.isfinite(reference) else 0.0, np.median(known))
    low, high = known.min(), min(known.max(), cap) if task.lower_is_better else known.max()
    pad = 0.14 * max(high - low, 0.1 * high, 1e-3)
    return max(0.0, low - 1.6 * pad), high + pad


@styled
def quality_by_traffic(records, dense_total=math.nan, method="", task=REGRESSION):
    """The headline measure against what crossed the network so far, up and down, on a log axis.

    Args:
        records: of the run.
        dense_total: what dense FedAvg would have sent in the same rounds, in the unit of `runs.series.exchanged`; NaN
            leaves the mark out.
        method: key into METHOD_COLOURS.
        task: what is measured.
    """
    figure = Figure(figsize=(7, 2.9), layout="constrained")
    ax = figure.subplots()
    sent, unit = exchanged(records)
    x, colour = np.maximum(sent, 1), METHOD_COLOURS.get(method, BLUE)
    _curve(ax, x, records, task, colour)
    ax.set_title(f"Test {task.label} by {unit} exchanged")
    traffic_axis(ax, unit)
    ax.plot(x[-1:], headline_series(records, task)[-1:], "o", ms=8, mfc="none", color=colour)
    if np.isfinite(dense_total) and dense_total > 0:
        ax.axvline(dense_total, color="black", ls="--", lw=1)
        ax.set_xlim(right=1.4 * max(dense_total, x[-1]))
        times = f", {dense_total / x[-1]:.1f} times as many" if 0 < 1.05 * x[-1] < dense_total else ""
        text = f"dense FedAvg: {traffic_amount(dense_total, unit)}{times}"
        height = 0.76 if task.lower_is_better else 0.3
        annotate(ax, text, (dense_total, height), (-6, 0), ("data", "axes fraction"), ha="right", bbox=BOX)
    return figure


def traffic_axis(ax, unit):
    """Makes x a log axis of bytes or weights with ticks at 1, 2 and 5, or fewer where they would touch."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 150 * low else (1,), numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: traffic_amount(value, unit)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    what = "messages" if unit == "bytes" else "non-zero values"
    ax.set_xlabel(f"{unit} exchanged so far, up and down ({what})")


@styled
def compare_runs(runs, task=REGRESSION):
    """Several runs on common axes: the headline measure by round and by what crossed the network.

    Args:
        runs: list of ``(label, records)``; a label that names a method takes that method's colour.
        task: what is measured.
    """
    figure = Figure(figsize=(7, 2.9 + 0.16 * (len(runs) // 4)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    spare = [BLUE, RED, GREEN, ORANGE, "#CC79A7", SKY, "black", GREY]
    units = {exchanged(records)[1] for _, records in runs}
    unit, total = (
        ("bytes", lambda records: exchanged(records)[0]) if units == {"bytes"} else ("weights", params_exchanged)
    )
    for i, (label, records) in enumerate(runs):
        colour = METHOD_COLOURS.get(label, spare[i % len(spare)])
        look = {"marker": "osD^vPX*"[i % 8], "markevery": max(1, len(records) // 10), "color": colour}
        values = headline_series(records, task)
        left.plot(series(records, lambda r: r.round), values, label=clip_name(label, 28), **look)
        right.plot(total(records), values, **look)
    every = np.concatenate([headline_series(records, task) for _, records in runs])
    reference = _last(series(runs[0][1], lambda r: r.baseline))
    left.set(xlabel="round", ylabel=axis_label(task), ylim=limits(every[np.isfinite(every)], reference, task))
    for ax in (left, right):
        ax.axhline(reference, color=GREY, ls=":", lw=1.3)
    traffic_axis(right, unit)
    right.set_xlabel(f"{unit} exchanged so far")
    figure.legend(loc="outside upper center", ncols=min(len(runs), 4))
    return figure


def layer_order(names):
    """Names as given, or, where the alphabet has sorted them, with conv2 before conv10."""
    natural = [[int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)] for name in names]
    return [name for _, name in sorted(zip(natural, names, strict=True))] if names == sorted(names) else names


@styled
def density_by_layer(records, layers):
    """Heat map of the share of weights kept, layers by rounds, with the final share and count.

    Args:
        records: of the run.
        layers: dict of weights by layer; only these layers are drawn, in ``layer_order``.
    """
    names, at = layer_order(list(layers)), series(records, lambda r: r.round)
    density = np.array([series(records, functools.partial(_density, name)) for name in names])
    figure = Figure(figsize=(7, 1.2 + 0.21 * len(names)), layout="constrained")
    ax = figure.subplots()
    floor = 10 ** math.floor(math.log10(np.nanmin(density[density > 0], initial=0.1)) + 1e-9)
    colours = matplotlib.colormaps["cividis"].with_extremes(bad="white", under=RED)
    steps, rows = np.append(at - 0.5, at[-1] + 0.5), np.arange(len(names) + 1) - 0.5
    drawn = np.where(density == 0, floor / 10, density)  # a logarithm has no place for none kept
    mesh = ax.pcolormesh(steps, rows, drawn, norm=LogNorm(floor, 1), cmap=colours, rasterized=True)
    ax.set_yticks(range(len(names)), [clip_name(name, 30) for name in names])
    ax.set(xlabel="round", title="Share of weights kept", ylim=(len(names) - 0.5, -0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=False)
    for i, name in enumerate(names):
        _kept_label(ax, i, density[i, -1], layers[name])
    ax.text(1.02, 1.02, "kept at the end", transform=ax.transAxes, fontsize=7, va="bottom", color="#4b5563")
    _density_bar(figure, ax, mesh, bool((density == 0).any()))
    return figure


def _density(name, record):
    return record.density.get(name)


def _kept_label(ax, row, density, size):
    share = f"{100 * density:.{2 if 0 < density < 0.01 else 1}f} %"
    text = f"{share:>7}  {density * size:>9,.0f}" if np.isfinite(density) else "      –"
    place = {
        "transform": ax.get_yaxis_transform(),
        "va": "center_baseline",
        "fontsize": 7,
        "family": "DejaVu Sans Mono",
    }
    ax.text(1.01, row, text, color=RED if density == 0 else "black", **place)


def _density_bar(figure, ax, mesh, collapsed):
    ticks = [t for t in (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4, 1e-5) if t >= mesh.norm.vmin]
    extend = "min" if collapsed else "neither"
    bar = figure.colorbar(mesh, ax=ax, location="bottom", aspect=45, pad=0.02, extend=extend, ticks=ticks)
    bar.ax.set_xticklabels([f"{100 * t:g} %" for t in ticks])
    bar.ax.minorticks_off()
    bar.set_label("share of weights kept (log scale" + ("; red: none kept)" if collapsed else ")"))


@styled
def mask_agreement(records):
    """Overlap of the clients' masks with one another (Jaccard, pooled over pairs), and the margin of their votes."""
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    ax = figure.subplots()
    rounds, margins = series(records, lambda r: r.round), series(records, lambda r: r.vote_margin)
    ax.plot(rounds, series(records, lambda r: r.agreement), "o-", color=BLUE, label="Jaccard overlap")
    if np.isfinite(margins).any():
        ax.plot(rounds, margins, "s-", color=ORANGE, label="vote margin")
        ax.legend()
    ax.axhline(1, color=GREY, ls=":", lw=1.2)
    ax.set(xlabel="round", ylabel="agreement", title="Agreement of the clients' masks")
    ax.set_ylim(top=1.02)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure

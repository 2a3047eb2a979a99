"""The pictures of a federated run: plain data in, a matplotlib Figure out.

Nothing here reads or writes files or touches pyplot's global state. ``rounds`` is always the list of
metrics of one run, one dict a round, in the order of the rounds. Colours are Okabe and Ito's, which
colour-blind readers can tell apart; sizes are those of a two-column page (7 in wide, 8 pt).
"""

import functools
import io
import itertools
import math
import re
import warnings

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from fedsparse_jax.core.tasks import REGRESSION, column, exchanged, number, regression, traffic

BLUE, ORANGE, GREEN, RED, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#6b7280"
METHOD_COLOURS = {
    "fedavg": "#000000",
    "fedsparsify_global": BLUE,
    "fedsparsify_local": RED,
    "one_shot": GREEN,
    "random": GREY,
    "snip": "#CC79A7",
    "grasp": ORANGE,
    "centralized": SKY,
}
STYLE: dict = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#4b5563",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "text.parse_math": False,
    "svg.hashsalt": "fedsparse_jax",
}
BOX = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#d1d5db", "alpha": 0.92}
MAX_PANELS = 16


def styled(draw):
    """Runs a drawing function in the house style and leaves matplotlib's settings as they were."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


@styled
def render(figure, kind, dpi=200):
    """The bytes of a figure as ``kind``: png, svg or pdf; the same figure gives the same bytes.

    The layout is solved on the first call and kept, so that further kinds cost only the drawing.
    """
    blank = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a client named in another script
        if figure.get_layout_engine() is not None:
            FigureCanvasAgg(figure).draw()
            figure.set_layout_engine("none")
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=blank)
    return buffer.getvalue()


# --- what the axes are labelled with ----------------------------------------------------------


def age_edges(ages):
    """Edges of the age buckets, open on the left and closed on the right: 39, 50, 60, 70, 80, then inf.

    Younger cohorts start at their own decade; buckets beyond the oldest person are left out.
    """
    low, high = float(np.min(ages)), float(np.max(ages))
    start = 39 if 39 < low <= 50 else min(80, 10 * (math.ceil(low / 10) - 1))
    first = 50 if start == 39 else start + 10
    edges = [start, *range(first, min(80, max(first, 10 * math.ceil(high / 10))) + 1, 10)]
    return [*edges, math.inf] if high > 80 else edges


def bucket_names(edges):
    """Labels of the buckets between ``edges``, such as ``(39, 50]`` and ``80+``."""
    return [f"{a:g}+" if b == math.inf else f"({a:g}, {b:g}]" for a, b in itertools.pairwise(edges)]


def bucket_of(ages, edges):
    """Index of the bucket of each age, i64[N]."""
    return np.clip(np.searchsorted(edges, ages, side="left") - 1, 0, len(edges) - 2)


def layer_order(names):
    """Names as given, or, where the alphabet has sorted them, with conv2 before conv10."""
    natural = [[int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)] for name in names]
    return [name for _, name in sorted(zip(natural, names, strict=True))] if names == sorted(names) else names


def short(count):
    """A count in at most three digits: 950, 12.3 k, 4.05 M, 1.2 G."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


# --- the federation --------------------------------------------------------------------------


@styled
def federation_overview(clients, test_ages=()):
    """Who holds whom: stacked age buckets per client over one age histogram each.

    Args:
        clients: list of ``(name, ages in years)``.
        test_ages: ages of the central test set; empty for none.
    """
    groups = [(clip_name(name), np.asarray(ages, float)) for name, ages in clients if len(ages)]
    test = [("test", np.asarray(test_ages, float))] if len(test_ages) else []
    edges = age_edges(np.concatenate([ages for _, ages in groups + test]))
    colours = matplotlib.colormaps["viridis"](np.linspace(0.12, 0.95, len(edges) - 1))
    panels = groups[: MAX_PANELS - len(test)] + test
    rows = math.ceil(len(panels) / 5)
    figure = Figure(figsize=(7, 2.4 + 1.15 * rows), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.4, 1.15 * rows), hspace=0.02)[:, 0]
    _age_bars(upper.subplots(), groups, edges, colours)
    axes = lower.subplots(rows, math.ceil(len(panels) / rows), sharex=True, squeeze=False)
    lower.supxlabel("age (years)", fontsize=7.5)
    _age_histograms(axes, panels, edges, colours)
    return figure


def clip_name(name, limit=14):
    """A name on one line of at most ``limit`` characters."""
    name = " ".join(str(name).split())
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _age_bars(ax, groups, edges, colours):
    bottom = np.zeros(len(groups))
    for i, label in enumerate(bucket_names(edges)):
        counts = np.array([np.sum(bucket_of(ages, edges) == i) for _, ages in groups])
        ax.bar(
            range(len(groups)), counts, 0.72, bottom, color=colours[i], label=label, edgecolor="white", lw=0.4
        )
        bottom += counts
    step = math.ceil(len(groups) / (160 // max(len(name) + 4 for name, _ in groups)))
    for i in range(0, len(groups), step):
        _note(ax, f"{bottom[i]:.0f}", (i, bottom[i]), (0, 2), ha="center")
    ax.set_xticks(range(0, len(groups), step), [name for name, _ in groups[::step]])
    ax.set_xlim(-0.7 - max(0, 3 - len(groups)), len(groups) - 0.3 + max(0, 3 - len(groups)))
    ax.set(ylabel="scans", title="Scans of each client by age (years)")
    ax.set_ylim(0, 1.12 * max(bottom.max(), 1))
    ax.grid(axis="x", visible=False)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)


def _age_histograms(axes, panels, edges, colours):
    everyone = np.concatenate([ages for _, ages in panels])
    bins = np.arange(2.5 * math.floor(everyone.min() / 2.5), everyone.max() + 2.5, 2.5)
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


# --- accuracy and communication --------------------------------------------------------------


@styled
def quality_by_round(rounds, method="", task=REGRESSION):
    """The headline measure over the rounds, beside its baseline; under it the sparsity asked and reached."""
    figure = Figure(figsize=(7, 3.6))
    figure.subplots_adjust(left=0.09, right=0.98, top=0.92, bottom=0.12, hspace=0.14)
    top, strip = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.1))
    at, colour = column(rounds, "round"), METHOD_COLOURS.get(method, BLUE)
    _curve(top, at, rounds, task, colour)
    top.set_title(f"Test {task.label} by round")
    strip.step(at, column(rounds, "target_sparsity"), where="mid", color=GREY, ls="--", lw=1, label="asked")
    strip.plot(at, column(rounds, "sparsity"), "o-", color=colour, ms=2.5, lw=1.2, label="reached")
    strip.set(xlabel="round", ylabel="sparsity", ylim=(-0.05, 1.08))
    strip.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    strip.xaxis.set_major_locator(MaxNLocator(integer=True))
    strip.set_xlim(at.min() - 0.6, at.max() + 0.6 + 0.04 * np.ptp(at))
    strip.legend(loc="center right", handlelength=1.6)
    return figure


def _curve(ax, x, rounds, task, colour):
    """The headline measure against ``x``; values far above the axis become triangles at its upper edge."""
    values = column(rounds, f"test_{task.headline}")
    ok = np.isfinite(values)
    reference = _last(column(rounds, task.baseline_key))
    low, high = limits(values[ok], reference, task)
    shown = ok & (values <= high)
    ax.plot(x[ok], values[ok], "-", color=colour)
    ax.plot(x[shown], values[shown], "o", color=colour)
    above = ok & ~shown
    ax.plot(x[above], np.full(above.sum(), high), "^", color=colour, clip_on=False, in_layout=False)
    if np.isfinite(reference):
        ax.axhline(reference, color=GREY, ls=":", lw=1.3)
        text = f"{task.naive}: {reference:.2f}"
        _note(ax, text, (np.max(x), reference), (-4, 3), ha="right", color="#4b5563")
    if ok.any():
        end = (x[ok][-1], min(values[ok][-1], high))
        text = f"{values[ok][-1]:.{task.digits}f}"
        _note(ax, text, end, (7, -3), fontsize=8, color=colour, fontweight="bold")
    else:
        ax.text(
            0.5, 0.5, f"no round has a test {task.label}", transform=ax.transAxes, ha="center", color=GREY
        )
    ax.set(ylim=(low, high), ylabel=axis_label(task))


def axis_label(task):
    """What the headline measure's axis says."""
    return f"test {task.label}" + (" (years)" if task.unit else "")


def _note(ax, text, at, offset, coordinates="data", **look):
    """A remark ``offset`` points away from ``at``; the layout makes no room for it."""
    look = {"fontsize": 7.5, "annotation_clip": False, "in_layout": False, **look}
    ax.annotate(text, at, offset, coordinates, textcoords="offset points", **look)


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
def quality_by_traffic(rounds, dense_total=math.nan, method="", task=REGRESSION):
    """The headline measure against what crossed the network so far, up and down, on a log axis.

    Args:
        rounds: metrics, one dict a round.
        dense_total: what dense FedAvg would have sent in the same rounds, in the unit of `traffic`; NaN leaves the mark
            out.
        method: key into METHOD_COLOURS.
        task: what is measured.
    """
    figure = Figure(figsize=(7, 2.9), layout="constrained")
    ax = figure.subplots()
    sent, unit = traffic(rounds)
    x, colour = np.maximum(sent, 1), METHOD_COLOURS.get(method, BLUE)
    _curve(ax, x, rounds, task, colour)
    ax.set_title(f"Test {task.label} by {unit} exchanged")
    traffic_axis(ax, unit)
    ax.plot(x[-1:], column(rounds, f"test_{task.headline}")[-1:], "o", ms=8, mfc="none", color=colour)
    if np.isfinite(dense_total) and dense_total > 0:
        ax.axvline(dense_total, color="black", ls="--", lw=1)
        ax.set_xlim(right=1.4 * max(dense_total, x[-1]))
        times = f", {dense_total / x[-1]:.1f} times as many" if 0 < 1.05 * x[-1] < dense_total else ""
        text = f"dense FedAvg: {amount(dense_total, unit)}{times}"
        height = 0.76 if task.lower_is_better else 0.3
        _note(ax, text, (dense_total, height), (-6, 0), ("data", "axes fraction"), ha="right", bbox=BOX)
    return figure


def amount(value, unit):
    """So many bytes or weights, for humans: 12.3 kB, or 12.3 k."""
    return short(value) + ("B" if abs(value) >= 1e3 else " B") if unit == "bytes" else short(value)


def traffic_axis(ax, unit):
    """Makes x a log axis of bytes or weights with ticks at 1, 2 and 5, or fewer where they would touch."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 150 * low else (1,), numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value, unit)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    what = "messages" if unit == "bytes" else "non-zero values"
    ax.set_xlabel(f"{unit} exchanged so far, up and down ({what})")


@styled
def compare_runs(runs, task=REGRESSION):
    """Several runs on common axes: the headline measure by round and by what crossed the network.

    Args:
        runs: list of ``(label, rounds)``; a label that names a method takes that method's colour.
        task: what is measured.
    """
    figure = Figure(figsize=(7, 2.9 + 0.16 * (len(runs) // 4)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    spare = [BLUE, RED, GREEN, ORANGE, "#CC79A7", SKY, "black", GREY]
    key = f"test_{task.headline}"
    units = {traffic(rounds)[1] for _, rounds in runs}
    unit, total = (
        ("bytes", lambda rounds: traffic(rounds)[0]) if units == {"bytes"} else ("weights", exchanged)
    )
    for i, (label, rounds) in enumerate(runs):
        colour = METHOD_COLOURS.get(label, spare[i % len(spare)])
        look = {"marker": "osD^vPX*"[i % 8], "markevery": max(1, len(rounds) // 10), "color": colour}
        values = column(rounds, key)
        left.plot(column(rounds, "round"), values, label=clip_name(label, 28), **look)
        right.plot(total(rounds), values, **look)
    every = np.concatenate([column(rounds, key) for _, rounds in runs])
    reference = _last(column(runs[0][1], task.baseline_key))
    left.set(xlabel="round", ylabel=axis_label(task), ylim=limits(every[np.isfinite(every)], reference, task))
    for ax in (left, right):
        ax.axhline(reference, color=GREY, ls=":", lw=1.3)
    traffic_axis(right, unit)
    right.set_xlabel(f"{unit} exchanged so far")
    figure.legend(loc="outside upper center", ncols=min(len(runs), 4))
    return figure


# --- sparsity --------------------------------------------------------------------------------


@styled
def density_by_layer(rounds, layers):
    """Heat map of the share of weights kept, layers by rounds, with the final share and count.

    Args:
        rounds: metrics with ``density``, a dict of shares by layer.
        layers: dict of weights by layer; only these layers are drawn, in ``layer_order``.
    """
    names, at = layer_order(list(layers)), column(rounds, "round")
    density = np.array(
        [[number((entry.get("density") or {}).get(name)) for entry in rounds] for name in names]
    )
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
def mask_agreement(rounds):
    """Overlap of the clients' masks with one another (Jaccard, pooled over pairs) over the rounds."""
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    ax = figure.subplots()
    ax.plot(column(rounds, "round"), column(rounds, "agreement"), "o-", color=BLUE)
    ax.axhline(1, color=GREY, ls=":", lw=1.2)
    ax.set(xlabel="round", ylabel="Jaccard overlap", title="Agreement of the clients' masks")
    ax.set_ylim(top=1.02)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


# --- predictions and scans -------------------------------------------------------------------


@styled
def predicted_vs_true(age, predicted):
    """Predicted against true age in years (both f64[N]) with identity, regression line and the scores."""
    age, predicted = np.asarray(age, float), np.asarray(predicted, float)
    figure = Figure(figsize=(3.4, 3.4), layout="constrained")
    ax = figure.subplots()
    both = np.concatenate([age, predicted])
    limits = (both.min() - 2, both.max() + 2)
    ax.plot(limits, limits, color=GREY, ls="--", lw=1, label="identity")
    ax.scatter(age, predicted, s=12, alpha=_alpha(len(age)), color=BLUE, linewidths=0)
    _regression(ax, age, predicted, "regression")
    ax.set(
        xlim=limits, ylim=limits, aspect="equal", xlabel="true age (years)", ylabel="predicted age (years)"
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    got = regression(predicted, age)
    lines = [f"MAE  {got['mae']:.2f} y", f"RMSE {got['rmse']:.2f} y", f"r    {got['r']:.2f}", f"R²   {got['r2']:.2f}",
             f"n    {len(age)}"]  # fmt: skip
    ax.text(0.03, 0.97, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=7, bbox=BOX,
            family="DejaVu Sans Mono")  # fmt: skip
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
def gap_by_age(age, predicted):
    """Brain-age gap (predicted minus true age, years) against age, with bucket means and the slope."""
    age, gap = np.asarray(age, float), np.asarray(predicted, float) - np.asarray(age, float)
    figure = Figure(figsize=(3.4, 3.4), layout="constrained")
    ax = figure.subplots()
    ax.axhline(0, color=GREY, ls="--", lw=1)
    ax.scatter(age, gap, s=12, alpha=_alpha(len(age)), color=BLUE, linewidths=0)
    slope = _regression(ax, age, gap, "regression")
    edges = age_edges(age)
    parts = [
        (age[bucket_of(age, edges) == i], gap[bucket_of(age, edges) == i]) for i in range(len(edges) - 1)
    ]
    means = np.array([(a.mean(), g.mean(), g.std()) for a, g in parts if len(a)])
    centre, mean, spread = means.T
    ax.errorbar(
        centre, mean, spread, fmt="s", color="black", ms=4, lw=1, capsize=2, label="mean ± SD by age bucket"
    )
    ax.set(xlabel="true age (years)", ylabel="predicted − true age (years)")
    ax.text(0.97, 0.97, f"slope {slope:+.2f} y/y".replace("-", "−"), transform=ax.transAxes, ha="right", va="top",
            fontsize=7, bbox=BOX)  # fmt: skip
    ax.legend(loc="lower left", fontsize=7)
    return figure

"""Pictures of a cohort before it is trained on: ages by site and sex, and the quality figures of the scans."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedsparse_jax.reporting.style import BLUE, GREY, ORANGE, RED, annotate, clip_name, styled

SEXES = {"F": ORANGE, "M": BLUE, "n/a": GREY}
MAX_SITES = 12
MOST_NAMES = 12  # doubtful scans whose names are written beside their points
FIGURE_LABELS = {
    "overlap": "overlap with the template (Dice)",
    "correlation": "correlation with the template",
    "litres": "tissue in the file (litres)",
    "rotation": "turned by (degrees)",
    "scale": "template scaled by",
}


@styled
def ages_by_site_and_sex(ages, sexes, sites):
    """Ages of all scans by sex, beside those of each site.

    Args:
        ages: years, f64[N].
        sexes: N of ``F``, ``M`` and ``n/a``.
        sites: N names; the largest `MAX_SITES` are drawn.
    """
    ages, sexes, sites = np.asarray(ages, float), np.asarray(sexes), np.asarray(sites)
    names, counts = np.unique(sites, return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][:MAX_SITES]
    figure = Figure(figsize=(7, max(2.2, 0.9 + 0.24 * len(names))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    width = max(1.0, float(np.ptp(ages)) / 24)
    bins = np.arange(np.floor(ages.min()), ages.max() + 2 * width, width)
    there = [sex for sex in SEXES if (sexes == sex).any()]
    labels = [f"{sex}: {(sexes == sex).sum()}" for sex in there]
    left.hist([ages[sexes == sex] for sex in there], bins, stacked=True, color=[SEXES[s] for s in there], label=labels)
    left.set(xlabel="age (years)", ylabel="scans", title="Ages by sex")
    left.legend(fontsize=7)
    left.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    rng = np.random.default_rng(0)
    for row, name in enumerate(names):
        for sex in there:
            own = ages[(sites == name) & (sexes == sex)]
            right.scatter(own, row + rng.uniform(-0.28, 0.28, len(own)), s=7, color=SEXES[sex], alpha=0.6, linewidths=0)
        middle = np.median(ages[sites == name])
        right.plot([middle, middle], [row - 0.38, row + 0.38], color="black", lw=1.2)
    ticks = [f"{clip_name(name)} ({(sites == name).sum()})" for name in names]
    right.set_yticks(range(len(names)), ticks)
    right.set_ylim(len(names) - 0.5, -0.5)
    right.set(xlabel="age (years)", title="Ages by site; the line is the median")
    right.grid(axis="y", visible=False)
    return figure


@styled
def quality_figures(figures, doubtful, names):
    """Each figure of all scans in the order of the list; the doubtful are red and named.

    Args:
        figures: name to values, f64[N]; those without a number are left out.
        doubtful: rows of the doubtful scans, the gravest first.
        names: of the N scans.
    """
    there = {name: np.asarray(values, float) for name, values in figures.items() if np.isfinite(values).any()}
    figure = Figure(figsize=(7, 1.45 * len(there) + 0.2), layout="constrained")
    axes = figure.subplots(len(there), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (name, values) in zip(axes, there.items(), strict=True):
        ax.scatter(range(len(values)), values, s=9, color=BLUE, alpha=0.6, linewidths=0)
        ax.scatter(doubtful, values[list(doubtful)], s=14, color=RED, linewidths=0)
        for row in list(doubtful)[:MOST_NAMES] if len(doubtful) < len(values) else ():
            side, offset = ("right", -3) if row > len(values) / 2 else ("left", 3)
            annotate(ax, clip_name(names[row], 24), (row, values[row]), (offset, 2), color=RED, fontsize=6, ha=side)
        ax.set_title(FIGURE_LABELS.get(name, name), fontsize=7.5, fontweight="normal")
    axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes[-1].set_xlabel("scan, in the order of accepted.tsv")
    return figure

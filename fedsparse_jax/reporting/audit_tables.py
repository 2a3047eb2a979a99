"""What an audit found, shown: rows of a table, and pictures. Plain data in, as they stand in ``attack.json``."""

import numpy as np
from matplotlib.figure import Figure

from fedsparse_jax.reporting.style import BLUE, GREEN, GREY, ORANGE, RED, SKY, styled

AUDIT_HEAD = ("attack", "AUC", "TPR at 1 % FPR", "TPR at 0.1 % FPR", "balanced accuracy", "AUC, age-matched")
CAPTION = "Members found against false alarms, both axes logarithmic, the mean over the threats."


def attack_rows(audit: dict, part: str = "threats") -> list[list[str]]:
    """One row an attack, under ``AUDIT_HEAD``; one threat has intervals, several the mean and the range over them.

    Args:
        audit: what ``attack.json`` holds of one kind of threat.
        part: ``threats``, or the name of a control.
    """
    threats = list((audit["threats"] if part == "threats" else audit["controls"][part]).values())
    return [[name, *_cells([threat[name] for threat in threats])] for name in threats[0]]


def audit_tables(audit: dict) -> list[tuple[str, list[list[str]]]]:
    """All that was found, as titles and rows: everybody together, the controls, and, of several threats, each."""
    parts = [(audit_summary(audit), attack_rows(audit))]
    parts += [(f"Control: models that cannot know, {name}.", attack_rows(audit, name)) for name in audit["controls"]]
    several = audit["threats"] if len(audit["threats"]) > 1 else {}
    return parts + [(name, attack_rows({"threats": {name: threat}})) for name, threat in several.items()]


def _cells(findings: list[dict]) -> list[str]:
    """The cells of one attack; where nobody could try it, the reason in the first of them."""
    ran = [finding for finding in findings if not finding["refused"]]
    if not ran:
        return [f"refused: {findings[0]['refused']}", "", "", "", ""]
    outcomes = [finding["everybody"] for finding in ran]
    matched = [finding["age_matched"] for finding in ran if finding["age_matched"]]
    return [
        show_estimate([outcome["auc"] for outcome in outcomes]),
        show_estimate([outcome["tpr"]["0.01"] for outcome in outcomes]),
        show_estimate([outcome["tpr"]["0.001"] for outcome in outcomes]),
        show_estimate([outcome["balanced_accuracy"] for outcome in outcomes]),
        show_estimate([outcome["auc"] for outcome in matched]) if matched else "nobody has a partner",
    ]


def show_estimate(values: list[dict]) -> str:
    """One number with its interval; of several the mean, the smallest and the largest.

    >>> show_estimate([{"value": 0.5, "low": 0.4, "high": 0.6}]), show_estimate([{"value": 0.5}, {"value": 0.7}])
    ('0.500 [0.400, 0.600]', '0.600 (0.500 to 0.700)')
    """
    known = [value["value"] for value in values if value["value"] is not None]
    if not known:
        return f"refused: {values[0]['refused']}"
    if len(values) == 1:
        return f"{known[0]:.3f} [{values[0]['low']:.3f}, {values[0]['high']:.3f}]"
    return f"{np.mean(known):.3f} ({min(known):.3f} to {max(known):.3f})"


def audit_summary(audit: dict) -> str:
    """The sentence that must stand beside every number of an audit."""
    pairs, threat = len(audit["threats"]), audit["threat"]
    return (
        f"Threat: {threat}" + (f", {pairs} of them" if pairs > 1 else "") + f"; models after round {audit['round']}. "
        f"{_errors(audit)}"
        + (f" Epsilon {audit['epsilon']:.3g} at delta {audit['delta']:g}." if "epsilon" in audit else "")
    )


def _errors(audit: dict) -> str:
    """Train and test error, and the gap; an audit of before there were other tasks is of ages."""
    if "train_mae" not in audit:
        shown = [f"{audit[key]:.3f}" for key in ("train_accuracy", "test_accuracy", "gap")]
        return f"Train accuracy {shown[0]}, test accuracy {shown[1]}, gap {shown[2]}."
    train, test, gap = (f"{audit[key]:.2f}{audit.get('unit', ' y')}" for key in ("train_mae", "test_mae", "gap"))
    return f"Train MAE {train}, test MAE {test}, gap {gap}."


@styled
def roc_curves(audit: dict) -> Figure:
    """TPR against FPR on logarithmic axes, the mean over the threats; the diagonal is guessing."""
    figure = Figure(figsize=(3.6, 3.4), layout="constrained")
    ax = figure.subplots()
    ax.plot([1e-3, 1], [1e-3, 1], color=GREY, ls="--", lw=1, label="guessing")
    colours = (BLUE, RED, GREEN, ORANGE, SKY, "#CC79A7", "black", GREY)
    for (name, curve), colour in zip(audit["roc"].items(), colours * 3):
        points = np.array([(x, y) for x, y in zip(curve["fpr"], curve["tpr"]) if y]).reshape(-1, 2)
        ax.plot(points[:, 0], points[:, 1], color=colour, label=name)
    ax.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1), xlabel="false positives")
    ax.set_ylabel("true positives")
    decades, labels = [1e-3, 1e-2, 1e-1, 1], ["0.1 %", "1 %", "10 %", "100 %"]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(decades, labels)
    ax.legend(loc="lower right", fontsize=6.5)
    return figure


@styled
def auc_by_sparsity(levels: list[dict]) -> Figure:
    """Best-attack AUC against sparsity with 95 % intervals, beside dense models stopped at the same test error."""
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    ax = figure.subplots()
    places = np.arange(len(levels))
    for key, label, colour, shift in (
        ("auc", "sparse", BLUE, -0.06),
        ("matched_auc", "dense, stopped at the same test MAE", RED, 0.06),
    ):
        at = [i for i, level in enumerate(levels) if level.get(key)]
        mean = np.array([levels[i][key]["mean"] for i in at])
        half = np.array([levels[i][key]["half"] for i in at])
        ax.errorbar(places[at] + shift, mean, half, fmt="o-", color=colour, capsize=2.5, label=label)
    ax.axhline(0.5, color=GREY, ls="--", lw=1)
    ax.set_xticks(places, [f"{level['sparsity']:.0%}" for level in levels])
    ax.set(xlabel="sparsity", ylabel="AUC of the best attack", ylim=(0.45, 1.0))
    ax.legend(loc="lower left", fontsize=7)
    return figure

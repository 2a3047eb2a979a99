"""Parts of the report that say how good the last model is: measures with intervals, clients, sites, the age bias."""

import math
from typing import Any

from fedsparse_jax.core.tasks import Task
from fedsparse_jax.reporting.html import Fold, Section, Table, Text, formatted
from fedsparse_jax.reporting.run_files import RunFiles
from fedsparse_jax.runs.quality import BIAS, QUALITY, QUANTILES, why_no_age_bias
from fedsparse_jax.runs.series import as_number

MEASURE_LABELS = {
    "mae": ("MAE", ".2f", " y"),
    "rmse": ("RMSE", ".2f", " y"),
    "r": ("Pearson r", ".3f", ""),
    "r2": ("R²", ".3f", ""),
    "bias": ("bias, mean of predicted minus true", "+.2f", " y"),
    "accuracy": ("accuracy", ".3f", ""),
    "balanced_accuracy": ("balanced accuracy", ".3f", ""),
    "f1": ("F1, mean over classes", ".3f", ""),
    "auc": ("AUC", ".3f", ""),
    "nll": ("cross-entropy (nats)", ".3f", ""),
}
INTERVAL = "95 % interval"


def measures_table(run: RunFiles) -> Table:
    """Measures of the last round on the test set, and the headline measure of each of several ones."""
    task, last = run.task, run.records[-1]
    of_set = f"_{task.headline}"  # behind the name of one of several test sets
    whole = _of_set(run, "test")
    rows = [_row(name, last.test[name], whole, task) for name in MEASURE_LABELS if name in last.test]
    for name in (key.removesuffix(of_set) for key in last.test if key.endswith(of_set) and key not in MEASURE_LABELS):
        _, value, between = _row(task.headline, last.test[f"{name}{of_set}"], _of_set(run, name), task)
        rows.append((f"{task.label}, test set {name}", value, between))
    naive = formatted(as_number(last.baseline), f".{task.digits}f", task.unit)
    rows.insert(1, (f"{task.label} of {task.naive}", naive, ""))
    if task.headline in last.own:
        part = "at the sites of a client" if task.lower_is_better else "on the classes that a client holds"
        own = formatted(as_number(last.own[task.headline]), f".{task.digits}f", task.unit)
        rows.append((f"{task.label} {part}, mean over clients", own, ""))
    head, columns = (f"on the test set, round {last.round}", "", INTERVAL), 3 if whole else 2
    return Table(head[:columns], [row[:columns] for row in rows])


def age_bias_parts(run: RunFiles) -> list[Table | Text]:
    """How the gap hangs on the age, and the errors without it."""
    line, judged = run.quality.get("age_bias"), _of_set(run, "test")
    if not line or "corrected" not in judged:
        note = "The gap falls with age in every such model (regression to the mean). No correction for it is applied, "
        return [Text(f"{note}as {_why_uncorrected(run)}.", "note")]
    text = (
        f"The gap falls with age in every such model (regression to the mean). On the {line['scans']} scans of the "
        f"validation the predicted age is {line['slope']:.2f} times the true one plus {line['offset']:.1f} years. The "
        "corrected gap, corrected_error in predictions.tsv, is the distance from this line. A corrected prediction "
        "knows the true age, so that its errors do not say how well ages are predicted."
    )
    names = [name for name in MEASURE_LABELS if name in judged["corrected"]]
    rows = [
        (
            *_row(name, judged[name], judged, run.task),
            *_row(name, judged["corrected"][name], judged["corrected"], run.task)[1:],
        )
        for name in names
    ]
    return [Text(text, "note"), Table(("on the test set", "as predicted", INTERVAL, "corrected", INTERVAL), rows)]


def _why_uncorrected(run: RunFiles) -> str:
    if not _of_set(run, "test"):
        return f"{QUALITY} is missing or not of the last round; give the command that trained the run once more"
    return why_no_age_bias(run.federation.get("validation", {}).get("ages", []))


def by_client_section(run: RunFiles) -> Section | None:
    """What the last round knows of each client; None where the log has nothing of them."""
    last, key = run.records[-1], f"validation_{run.task.headline}"
    if not last.clients:
        return None
    shown = lambda value, form, unit="": formatted(as_number(value), form, unit)
    rows = [
        (
            name,
            str(sum(name in record.clients and "examples" in record.clients[name] for record in run.records)),
            shown(known.get("examples"), ",.0f"),
            shown(known.get("loss"), ".3f"),
            *([shown(known.get(key), f".{run.task.digits}f", run.task.unit)] if run.validated else []),
        )
        for name, known in sorted(last.clients.items(), key=lambda item: (len(item[0]), item[0]))
    ]
    head = ["client", "rounds", "examples", "training loss"] + [f"validation {run.task.label}"] * run.validated
    text = f"What each client did in round {last.round}; of an epoch every example counts once."
    return Section("Clients", [Text(text), Table(head, rows)])


def by_site_section(run: RunFiles) -> Section | None:
    """How the sites of each test set do; None where sites are not known."""
    task, last = run.task, run.records[-1]
    if not last.sites:
        return None
    parts: list[Any] = []
    worst_first = -1 if task.lower_is_better else 1
    for name, judged in last.sites.items():
        keys = [key for key in (task.headline, BIAS) if key in judged]
        of_set = "" if name == "test" else f" of the test set {name}"
        spread = [(_label(key, task), *(_number(key, judged[key][one], task) for one in QUANTILES)) for key in keys]
        parts += [
            Text(f"{len(judged['sites'])} sites{of_set}; the worst is {judged['worst']}."),
            Table((f"over the sites{of_set}", "least", "first quartile", "median", "third quartile", "most"), spread),
        ]
        rows = [
            (site, str(one["n"]), *(_number(key, one[key], task) for key in keys))
            for site, one in sorted(judged["sites"].items(), key=lambda item: worst_first * item[1][task.headline])
        ]
        table = Table(("site", "scans", *(_label(key, task) for key in keys)), rows)
        parts.append(Fold(f"All sites{of_set}", [table], open=len(rows) <= 12))
    return Section("Sites", parts)


def _of_set(run: RunFiles, name: str) -> dict:
    """The quality of a test set, if it is that of the last round; else empty."""
    current = run.quality.get("round") == run.records[-1].round
    return run.quality.get("sets", {}).get(name, {}) if current else {}


def _row(name: str, value, judged: dict, task: Task) -> tuple[str, str, str]:
    """Label, value and interval; where clients have models of their own, the log's value is their mean and has none."""
    low, high = map(as_number, judged.get("intervals", {}).get(name, (math.nan, math.nan)))
    _, form, _ = MEASURE_LABELS[name]
    same = math.isclose(as_number(value), as_number(judged.get(name)), rel_tol=1e-3, abs_tol=1e-6)
    between = f"{low:{form}} to {high:{form}}" if same and math.isfinite(low + high) else "–"
    return MEASURE_LABELS[name][0], _number(name, value, task), between


def _number(name: str, value, task: Task) -> str:
    _, form, unit = MEASURE_LABELS[name]
    return formatted(as_number(value), form, unit and task.unit)


def _label(name: str, task: Task) -> str:
    return task.label if name == task.headline else name

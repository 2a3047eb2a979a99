"""One self-contained HTML page from a run folder: what was trained on what, how well, and at what cost.

Everything comes from the files that the run has written; a file that is missing leaves its section out with a
sentence that says so. The page loads nothing from anywhere, and each figure is also written as PNG and PDF.
"""

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core import tasks
from fedsparse_jax.core.types import UsageError
from fedsparse_jax.reporting import audit_tables, html, plots, plots_classes, plots_scans
from fedsparse_jax.runs import metrics_log

PAGE = "report.html"
KEYS = (
    "round",
    "target_sparsity",
    "sparsity",
    "train_loss",
    "{headline}",
    "params_down",
    "params_up",
    "bytes_down_total",
    "bytes_up_total",
    "agreement",
    "drift",
    "flops",
    "epsilon",
    "seconds",
)


class Run(NamedTuple):
    """The files of a run folder, parsed; what is missing is empty."""

    workdir: Path
    rounds: list[dict]
    config: dict
    environment: dict
    federation: dict
    predictions: dict[str, np.ndarray]  # the truth and what was predicted, f64[N] each, and participant_id
    slices: dict[str, np.ndarray]  # volumes f32[K, X, Y, Z], or images f32[K, H, W], and targets f32[K]
    attack: dict  # of scripts/attack.py, by kind of threat

    @property
    def task(self) -> tasks.Task:
        """What was predicted; runs of before there was a choice are regressions."""
        return tasks.TASKS.get(str(self.config.get("task")), tasks.REGRESSION)

    @property
    def classified(self) -> bool:
        """Whether the targets are classes."""
        return self.task is tasks.CLASSIFICATION


def load(workdir: Path) -> Run:
    """Reads a run folder.

    Raises:
        UsageError: the folder holds no round.
    """
    rounds = metrics_log.read(workdir)
    if not rounds:
        raise UsageError(
            f"{workdir} holds no finished round (no {metrics_log.METRICS}); train at least one round first."
        )
    return Run(
        workdir,
        rounds,
        _json(workdir / "config.json").get("config", {}),
        _json(workdir / "environment.json"),
        _json(workdir / "federation.json"),
        _predictions(workdir / "predictions.tsv"),
        _slices(workdir / "slices.npz"),
        _json(workdir / "attack.json"),
    )


def write(workdir: Path) -> Path:
    """Writes ``report.html`` and ``figures/`` into a run folder; returns the page's path."""
    run = load(workdir)
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    sections = [make(run) for make in SECTIONS if make is not privacy or run.attack]
    for section in sections:
        for name, figure in section.figures.items():
            for kind in ("png", "pdf"):
                (folder / f"{name}.{kind}").write_bytes(plots.render(figure, kind))
    title = f"{_method(run)}, seed {run.environment.get('seed', '?')}"
    metrics_log.write_text(workdir / PAGE, html.whole(title, tiles(run), sections))
    return workdir / PAGE


def _json(path: Path) -> dict:
    """The file's object; empty where it is missing or damaged, so that the rest can still be shown."""
    try:
        return metrics_log.read_json(path)
    except (OSError, ValueError):
        return {}


def _predictions(path: Path) -> dict[str, np.ndarray]:
    """The columns of the predictions whose age and prediction are numbers; empty if there are none."""
    head, *rows = [line.split("\t") for line in _lines(path)] or [[]]
    table = [dict(zip(head, row)) for row in rows]
    names = ("label", "predicted_label") if "label" in head else ("age", "predicted_age")
    pairs = [[tasks.number(row.get(name)) for name in names] for row in table]
    good = [i for i, pair in enumerate(pairs) if np.isfinite(pair).all()]
    if not good:
        return {}
    truth, predicted = np.array([pairs[i] for i in good]).T
    who = np.array([table[i].get("participant_id", "") for i in good])
    return {"truth": truth, "predicted": predicted, "participant_id": who}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _slices(path: Path) -> dict[str, np.ndarray]:
    try:
        found = dict(np.load(path))
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}
    if "ages" in found:  # the name of before there were classes
        found["targets"] = found.pop("ages")
    return found if len(found.get("volumes", ())) else {}


# --- sections -----------------------------------------------------------------------------------


def federation(run: Run) -> html.Section:
    """Who holds what."""
    data = run.federation
    if not data:
        return _absent("Federation", "federation.json")
    clients, test = data["clients"], data["test"]
    total = sum(client["n"] for client in clients)
    things, others = ("images", "images") if run.classified else ("scans", "people")
    kind = "labels" if run.classified else "ages"
    owners = [(client["name"], client[kind]) for client in clients]
    dropped = ", ".join(f"{count} × {reason}" for reason, count in data.get("dropped", {}).items())
    text = (
        f"<p>{len(clients)} client{'s' * (len(clients) > 1)} hold {total:,} {things}; {test['n']:,} {things} of other "
        f"{others} form the central test set. Grid {' × '.join(map(str, data['shape']))}, "
        f"{data['total_weights']:,} trainable weights. Left out: {html.text(dropped or 'nothing')}.</p>"
    )
    if run.classified:
        text = text.replace(" images of other images", " more images")
        drawn = plots_classes.class_overview(owners, test[kind], data["classes"])
    else:
        drawn = plots.federation_overview(owners, test[kind])
    caption = f"{things.capitalize()} and {'classes' if run.classified else 'ages'} of each client and of the test set."
    return html.Section("Federation", text, {"federation": drawn}, {"federation": caption})


MEASURES = {
    "mae": ("MAE", ".2f", " y"),
    "rmse": ("RMSE", ".2f", " y"),
    "r": ("Pearson r", ".3f", ""),
    "r2": ("R²", ".3f", ""),
    "accuracy": ("accuracy", ".3f", ""),
    "balanced_accuracy": ("balanced accuracy", ".3f", ""),
    "f1": ("F1, mean over classes", ".3f", ""),
    "nll": ("cross-entropy (nats)", ".3f", ""),
}


def accuracy(run: Run) -> html.Section:
    """Error by round."""
    task, last = run.task, run.rounds[-1]
    rows = [
        (label, html.number(tasks.number(last[f"test_{name}"]), form, unit))
        for name, (label, form, unit) in MEASURES.items()
        if f"test_{name}" in last
    ]
    baseline = html.number(tasks.number(last.get(task.baseline_key)), f".{task.digits}f", task.unit)
    rows.insert(1, (f"{task.label} of {task.naive}", baseline))
    if f"own_{task.headline}" in last:
        own = html.number(tasks.number(last[f"own_{task.headline}"]), ".3f")
        rows.append((f"{task.label} on the classes that a client holds, mean over clients", own))
    return html.Section(
        "Accuracy",
        _undefined(run) + html.table((f"on the test set, round {last['round']}", ""), rows),
        {"quality_by_round": plots.quality_by_round(run.rounds, _method(run), task)},
        {"quality_by_round": f"Test {task.label} after each round, and the sparsity asked for and reached."},
    )


def _undefined(run: Run) -> str:
    """A warning that names the rounds whose test error is no number."""
    key = f"test_{run.task.headline}"
    lost = [str(entry["round"]) for entry in run.rounds if math.isnan(tasks.number(entry.get(key)))]
    text = f"<p class=warning>No test error in round {', '.join(lost)}: it is no number there.</p>"
    return text if lost else ""


def communication(run: Run) -> html.Section:
    """What was exchanged, against dense FedAvg over the same rounds."""
    (sent, unit), dense = tasks.traffic(run.rounds), _dense_total(run)
    ours = float(sent[-1])
    rows = [(html.text(_method(run)), f"{ours:,.0f}", f"{ours / dense:.1%}" if dense else "–")]
    rows += [("dense FedAvg, same rounds and clients", f"{dense:,.0f}", "100.0%")] if dense else []
    note = (
        "<p class=note>Lengths of the messages that carry the model down to and up from all clients of each round, "
        "masks included (docs/wire.md); dense FedAvg sends arrays of 4 bytes a weight.</p>"
        if unit == "bytes"
        else "<p class=note>Counted are the non-zero values sent down to and up from all clients of each round. Masks, "
        "indices and bytes are not in this count.</p>"
    )
    return html.Section(
        "Communication",
        html.table(("run", f"{unit} exchanged", "of dense"), rows) + note,
        {
            "quality_by_traffic": plots.quality_by_traffic(
                run.rounds, dense or math.nan, _method(run), run.task
            )
        },
        {"quality_by_traffic": f"Test {run.task.label} against the {unit} exchanged so far."},
    )


def layers(run: Run) -> html.Section:
    """Where the zeros are."""
    sizes, density = run.federation.get("layers", {}), run.rounds[-1].get("density") or {}
    collapsed = [name for name, share in density.items() if share == 0 and not name.endswith("bias")]
    warning = (
        f"<p class=warning>Collapsed: {html.text(', '.join(collapsed))} keeps no weight, which cuts the network. Begin "
        "pruning later, set pruning.floor, or choose another scope.</p>"
        if collapsed
        else ""
    )
    dead = run.rounds[-1].get("dead_channels") or {}
    names = plots.layer_order(list(density))
    kept = [density[name] * sizes.get(name, 0) for name in names]
    rows = [
        (
            html.text(name),
            f"{sizes.get(name, 0):,}",
            f"{count:,.0f}",
            f"{density[name]:.2%}",
            f"{dead.get(name, '–')}",
        )
        for name, count in zip(names, kept)
    ]
    drawn = {"density_by_layer": plots.density_by_layer(run.rounds, sizes)} if sizes else {}
    captions = {"density_by_layer": "Share of weights kept in each layer after each round."}
    if any(tasks.number(entry.get("agreement")) < 1 for entry in run.rounds):
        drawn["mask_agreement"] = plots.mask_agreement(run.rounds)
        captions["mask_agreement"] = (
            "Overlap (Jaccard) of the clients' masks with one another, pooled over all pairs."
        )
    return html.Section(
        "Sparsity by layer",
        warning + _operations(run) + html.table(("leaf", "weights", "kept", "density", "dead outputs"), rows),
        drawn,
        captions,
    )


def _operations(run: Run) -> str:
    """A sentence on the cost of one prediction; empty for runs that did not count it."""
    dense, left = run.federation.get("flops"), run.rounds[-1].get("flops")
    if not dense or left is None:
        return ""
    return (
        f"<p>One prediction takes {plots.short(left)} floating-point operations on kept weights, "
        f"{left / dense:.1%} of the dense {plots.short(dense)} (products only; a count, not a measured time).</p>"
    )


def predictions(run: Run) -> html.Section:
    """What was predicted against the truth."""
    if not run.predictions:
        return _absent("Predictions", "predictions.tsv")
    if run.classified:
        drawn = plots_classes.confusion(run.predictions["truth"], run.predictions["predicted"])
        return html.Section(
            "Predictions", "", {"confusion": drawn}, {"confusion": "True against predicted class."}
        )
    age, predicted = run.predictions["truth"], run.predictions["predicted"]
    note = (
        "<p class=note>The gap falls with age in every such model (regression to the mean). No correction for it "
        "is applied here.</p>"
    )
    return html.Section(
        "Predictions",
        note,
        {
            "predicted_vs_true": plots.predicted_vs_true(age, predicted),
            "gap_by_age": plots.gap_by_age(age, predicted),
        },
        {
            "predicted_vs_true": "Predicted against true age of the test people.",
            "gap_by_age": "Brain-age gap, predicted minus true, against true age.",
        },
    )


def scans(run: Run) -> html.Section:
    """What the network saw."""
    if not run.slices:
        return _absent("Scans", "slices.npz")
    if run.classified:
        titles = [f"{label:.0f}" for label in run.slices["targets"]]
        drawn = {"images": plots_classes.montage(run.slices["volumes"], titles)}
        return html.Section(
            "Images", "<p>Some of the test set.</p>", drawn, {"images": "Class above each image."}
        )
    titles = [f"{age:.0f} y" for age in run.slices["targets"]]
    return html.Section(
        "Scans",
        "<p>Test people from young to old, as the network sees them.</p>",
        {"scans": plots_scans.contact_sheet(run.slices["volumes"], titles)},
        {"scans": "Axial, coronal and sagittal slices."},
    )


def privacy(run: Run) -> html.Section:
    """What an audit found."""
    body = "".join(_audited(found) for found in run.attack.values())
    drawn = {f"attack_roc_{threat}": audit_tables.curves(found) for threat, found in run.attack.items()}
    return html.Section("Privacy", body, drawn, {name: audit_tables.CAPTION for name in drawn})


def _audited(found: dict) -> str:
    """The tables of one kind of threat; those of single attackers and victims folded."""
    body, shown = "", 1 + len(found["controls"])
    for place, (title, rows) in enumerate(audit_tables.tables(found)):
        cells = [[html.text(cell) for cell in row] for row in rows]
        body += f"<details{' open' if place < shown else ''}><summary>{html.text(title)}</summary>"
        body += html.table(audit_tables.HEAD, cells) + "</details>"
    return body


def reproduce(run: Run) -> html.Section:
    """Versions, configuration and the numbers of every round."""
    versions = run.environment.get("versions", {})
    rows = [(html.text(name), html.text(version)) for name, version in versions.items()]
    rows += [
        (key, html.text(run.environment.get(key, "–")))
        for key in ("python", "platform", "devices", "seed", "started")
    ]
    keys = [key.format(headline=f"test_{run.task.headline}") for key in KEYS]
    table = html.table(keys, [[html.cell(entry.get(key)) for key in keys] for entry in run.rounds])
    config = html.text(json.dumps(run.config, indent=1, default=str))
    return html.Section(
        "Reproduce",
        "<p>The run folder's <code>config.json</code> with seed "
        f"{html.text(run.environment.get('seed', '?'))} and these versions.</p>{html.table(('what', 'which'), rows)}"
        f"<details><summary>Configuration</summary><pre>{config}</pre></details>"
        f"<details><summary>All rounds</summary>{table}</details>",
        {},
        {},
    )


def _absent(title: str, file: str) -> html.Section:
    return html.Section(title, f"<p class=note>Left out: the run folder holds no {file}.</p>", {}, {})


# --- numbers ------------------------------------------------------------------------------------


def _quality(run: Run) -> tuple[float, float]:
    """The headline measure of the last round, and of knowing nothing."""
    last = run.rounds[-1]
    return tasks.number(last.get(f"test_{run.task.headline}")), tasks.number(last.get(run.task.baseline_key))


def _method(run: Run) -> str:
    return str(run.federation.get("method") or run.config.get("method") or "run")


def _dense_total(run: Run) -> float:
    """Bytes, or weights, that dense FedAvg exchanges in the same rounds; 0 if the size of the model is unknown."""
    if not run.federation:
        return 0.0
    clients = len(run.federation["clients"])
    weights = float(tasks.dense_exchanged(run.rounds, run.federation["total_weights"], clients)[-1])
    return 4 * weights if tasks.traffic(run.rounds)[1] == "bytes" else weights


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """The headline numbers: ``(label, value, remark)``."""
    task, last, (value, baseline) = run.task, run.rounds[-1], _quality(run)
    (sent, unit), dense = tasks.traffic(run.rounds), _dense_total(run)
    ours = float(sent[-1])
    weights = run.federation.get("total_weights", 0)
    kept = round((1 - last["sparsity"]) * weights)
    seconds = sum(tasks.number(entry.get("seconds")) for entry in run.rounds)
    total = run.config.get("rounds", len(run.rounds))
    reached = html.number(value, f".{task.digits}f", task.unit)
    return [
        (f"test {task.label}", reached, _against_naive(task, value, baseline)),
        ("sparsity", f"{last['sparsity']:.1%}", f"{kept:,} of {weights:,} weights kept" if weights else ""),
        (f"{unit} exchanged", plots.amount(ours, unit), _against_dense(ours, dense)),
        ("rounds", f"{len(run.rounds)} of {total}", f"{metrics_log.duration(seconds)} in all"),
    ]  # fmt: skip


def _against_naive(task: tasks.Task, value: float, baseline: float) -> str:
    if not (math.isfinite(value) and baseline > 0):
        return ""
    if not task.lower_is_better:
        return f"{task.naive}: {baseline:.{task.digits}f}"
    side = "below" if value <= baseline else "above"
    return f"{abs(1 - value / baseline):.0%} {side} {task.naive} ({baseline:.{task.digits}f}{task.unit})"


def _against_dense(ours: float, dense: float) -> str:
    if not (ours and dense):
        return ""
    return f"{dense / ours:.1f} × fewer than dense" if dense / ours >= 1.05 else "as many as dense FedAvg"


SECTIONS: tuple[Callable[[Run], html.Section], ...] = (
    federation,
    accuracy,
    communication,
    layers,
    predictions,
    scans,
    privacy,
    reproduce,
)

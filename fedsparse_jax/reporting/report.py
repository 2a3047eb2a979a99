"""One self-contained HTML page from a run folder: what was trained on what, how well, and at what cost.

Everything comes from the files that the run has written; a file that is missing leaves its section out with a
sentence that says so. The page loads nothing from anywhere, and each figure is also written as PNG and PDF.
"""

import json
import math
import operator
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedsparse_jax.core.files import write_whole
from fedsparse_jax.core.tasks import Task
from fedsparse_jax.data.roster import client_name
from fedsparse_jax.reporting import plots_classes, plots_people, plots_run, plots_scans
from fedsparse_jax.reporting.audit_tables import AUDIT_HEAD, CAPTION, audit_tables, roc_curves
from fedsparse_jax.reporting.html import Fold, Section, Table, Text, cell, formatted, render_page
from fedsparse_jax.reporting.quality_tables import age_bias_parts, by_client_section, by_site_section, measures_table
from fedsparse_jax.reporting.run_files import RunFiles, read_run_files
from fedsparse_jax.reporting.style import render_figure, short_count, traffic_amount
from fedsparse_jax.runs.console import ABSENCES, duration
from fedsparse_jax.runs.model_choice import best_record
from fedsparse_jax.runs.series import as_number, exchanged, series

PAGE = "report.html"
VALIDATION_KEY = "validation_{headline}"  # only where there is a validation
KEYS = (  # of the table of all rounds
    *("round", "target_sparsity", "sparsity", "train_loss", "test_{headline}", VALIDATION_KEY, "params_down"),
    "params_up",
    *("bytes_down_total", "bytes_up_total", "agreement", "drift", "flops", "epsilon", "seconds"),
)
RATE_OWNERS = {"client_rate_factor": "clients", "server_rate_factor": "server"}  # in the table where they change


def write_report(workdir: Path) -> Path:
    """Writes ``report.html`` and ``figures/`` into a run folder; returns the page's path.

    Raises:
        UsageError: the folder holds no round.
    """
    run = read_run_files(workdir)
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    empty = [absences_section] * (not any(record.left_out for record in run.records))
    empty += [privacy_section] * (not run.attack)
    sections = [section for make in SECTIONS if make not in empty and (section := make(run))]
    for section in sections:
        for name, (figure, _) in section.figures.items():
            for kind in ("png", "pdf"):
                (folder / f"{name}.{kind}").write_bytes(render_figure(figure, kind))
    title = f"{run.method}, seed {run.environment.get('seed', '?')}"
    write_whole(workdir / PAGE, render_page(title, headline_tiles(run), sections))
    return workdir / PAGE


def federation_section(run: RunFiles) -> Section:
    """Who holds what."""
    data = run.federation
    if not data:
        return _absent("Federation", "federation.json")
    clients, test = data["clients"], data["test"]
    total = sum(client["n"] for client in clients)
    named = run.classified and "class_names" not in data  # images, of nobody
    things, of_others = ("images", "images") if named else ("scans", "scans of other people")
    kind = "labels" if run.classified else "ages"
    owners = [(client["name"], client[kind]) for client in clients]
    dropped = ", ".join(f"{count} × {reason}" for reason, count in data.get("dropped", {}).items())
    validating = f"{data['validation']['n']:,} more of theirs form the validation, " if "validation" in data else ""
    text = (
        f"{len(clients)} client{'s' * (len(clients) > 1)} hold {total:,} {things}; {validating}{test['n']:,} "
        f"{'more ' * named}{of_others} form the central test set. Grid {' × '.join(map(str, data['shape']))}, "
        f"{data['total_weights']:,} trainable weights. Left out: {dropped or 'nothing'}."
    )
    if run.classified:
        figure = plots_classes.class_overview(owners, test[kind], run.class_names)
    else:
        figure = plots_people.federation_overview(owners, test[kind], run.task)
    what = "classes" if run.classified else "ages" if run.task.of_age else run.task.target
    caption = f"{things.capitalize()} and {what} of each client and of the test set."
    return Section("Federation", [Text(text)], {"federation": (figure, caption)})


def accuracy_section(run: RunFiles) -> Section:
    """Error by round."""
    task = run.task
    parts = [*_undefined_rounds(run), measures_table(run), *_chosen_model(run), *_rates(run)]
    figure = plots_run.quality_by_round(run.records, run.method, task)
    caption = f"Test {task.label} after each round, and the sparsity asked for and reached."
    if run.validated:
        caption += " Dashed: on validation. The diamond is the best round."
    return Section("Accuracy", parts, {"quality_by_round": (figure, caption)})


def _chosen_model(run: RunFiles) -> list[Table | Text]:
    """The last and the best round on validation beside one another; nothing where nobody validates."""
    if not run.validated:
        return []
    task, last, best = run.task, run.records[-1], best_record(run.records, run.task)
    shown = lambda measures: formatted(as_number(measures.get(task.headline)), f".{task.digits}f", task.unit)
    row = lambda what, record: (
        (what, str(record.round), shown(record.validation), shown(record.test), f"{record.sparsity:.1%}")
    )
    head = ("model", "round", f"validation {task.label}", f"test {task.label}", "sparsity")
    table = Table(head, [row("last", last), *([row("best on validation", best)] if best else [])])
    note = "Only rounds that ask for the final sparsity compete to be the best. The test set has no say in it."
    return [table, Text(note, "note")]


def _undefined_rounds(run: RunFiles) -> list[Text]:
    """A warning that names the rounds whose test error is no number."""
    undefined = [r.round for r in run.records if math.isnan(as_number(r.test.get(run.task.headline)))]
    text = f"No test error in round {', '.join(map(str, undefined))}: it is no number there."
    return [Text(text, "warning")] if undefined else []


def _changing_rates(run: RunFiles) -> list[str]:
    """The factors of learning rates that are not the same in all rounds."""
    return [key for key in RATE_OWNERS if np.unique(series(run.records, operator.attrgetter(key))).size > 1]


def _rates(run: RunFiles) -> list[Text]:
    """A sentence on each learning rate that a schedule has changed."""
    texts = []
    for key in _changing_rates(run):
        values, first, last = series(run.records, operator.attrgetter(key)), run.records[0], run.records[-1]
        texts.append(
            Text(
                f"A schedule multiplied the learning rate of the {RATE_OWNERS[key]} by {values[0]:.3g} in round "
                f"{first.round} and by {values[-1]:.3g} in round {last.round}; it lay between {np.nanmin(values):.3g} "
                f"and {np.nanmax(values):.3g}."
            )
        )
    return texts


def communication_section(run: RunFiles) -> Section:
    """What was exchanged, against dense FedAvg over the same rounds."""
    (totals, unit), dense = exchanged(run.records), run.dense_total
    ours = float(totals[-1])
    rows = [(run.method, f"{ours:,.0f}", f"{ours / dense:.1%}" if dense else "–")]
    rows += [("dense FedAvg, same rounds and clients", f"{dense:,.0f}", "100.0%")] if dense else []
    note = (
        "Lengths of the messages that carry the model down to and up from all clients of each round, masks included; "
        "dense FedAvg sends arrays of 4 bytes a weight."
        if unit == "bytes"
        else "Counted are the non-zero values sent down to and up from all clients of each round. Masks, indices and "
        "bytes are not in this count."
    )
    parts = [Table(("run", f"{unit} exchanged", "of dense"), rows), Text(note, "note")]
    figure = plots_run.quality_by_traffic(run.records, dense or math.nan, run.method, run.task)
    caption = f"Test {run.task.label} against the {unit} exchanged so far."
    return Section("Communication", parts, {"quality_by_traffic": (figure, caption)})


def absences_section(run: RunFiles) -> Section:
    """Which clients did not count in which rounds, and why."""
    rounds: dict[tuple[int, str], list[int]] = {}
    for record in run.records:
        for reason, clients in record.left_out.items():
            for client in clients:
                rounds.setdefault((client, reason), []).append(record.round)
    shown = lambda numbers: ", ".join(map(str, numbers[:12])) + (f" and {len(numbers) - 12} more" * (len(numbers) > 12))
    rows = [
        (client_name(client), ABSENCES[reason].what, str(len(numbers)), shown(numbers))
        for (client, reason), numbers in sorted(rounds.items())
    ]
    void = [record.round for record in run.records if record.void]
    text = f"Too few clients were left in round {shown(void)}, which therefore changed nothing."
    parts = [*([Text(text, "warning")] if void else []), Table(("client", "what it did", "rounds", "which"), rows)]
    return Section("Clients that did not count", parts)


def layers_section(run: RunFiles) -> Section:
    """Where the zeros are."""
    sizes, last = run.federation.get("layers", {}), run.records[-1]
    collapsed = [name for name, share in last.density.items() if share == 0 and not name.endswith("bias")]
    warning = (
        f"Collapsed: {', '.join(collapsed)} keeps no weight, which cuts the network. Begin pruning later, set "
        "pruning.floor, or choose another scope."
    )
    rows = [
        (
            name,
            f"{sizes.get(name, 0):,}",
            f"{last.density[name] * sizes.get(name, 0):,.0f}",
            f"{last.density[name]:.2%}",
            f"{last.dead_channels.get(name, '–')}",
        )
        for name in plots_run.layer_order(list(last.density))
    ]
    parts = [
        *([Text(warning, "warning")] if collapsed else []),
        *_operations(run),
        Table(("leaf", "weights", "kept", "density", "dead outputs"), rows),
    ]
    figures = {}
    if sizes:
        caption = "Share of weights kept in each layer after each round."
        figures["density_by_layer"] = (plots_run.density_by_layer(run.records, sizes), caption)
    if (series(run.records, lambda r: r.agreement) < 1).any():
        caption = (
            "Overlap (Jaccard) of the clients' masks with one another, pooled over all pairs, and the margin of their "
            "votes: |keep - drop| / voters, the mean over the weights that anybody keeps."
        )
        figures["mask_agreement"] = (plots_run.mask_agreement(run.records), caption)
    return Section("Sparsity by layer", parts, figures)


def _operations(run: RunFiles) -> list[Text]:
    """A sentence on the cost of one prediction; none for runs that did not count it."""
    dense, left = run.federation.get("flops"), run.records[-1].flops
    if not dense or left is None:
        return []
    text = (
        f"One prediction takes {short_count(left)} floating-point operations on kept weights, {left / dense:.1%} of "
        f"the dense {short_count(dense)} (products only; a count, not a measured time)."
    )
    return [Text(text)]


def predictions_section(run: RunFiles) -> Section:
    """What was predicted against the truth."""
    if not run.predictions:
        return _absent("Predictions", "predictions.tsv")
    truth, predicted = run.predictions["truth"], run.predictions["predicted"]
    if run.classified:
        figure = plots_classes.confusion(truth, predicted, run.class_names)
        return Section("Predictions", [], {"confusion": (figure, "True against predicted class.")})
    target, gap = run.task.target, "Brain-age gap" if run.task.of_age else "Error"
    note = Text(f"The error falls with {target} in every such model (regression to the mean).", "note")
    parts = age_bias_parts(run) if run.task.of_age else [note]
    figures = {
        "predicted_vs_true": (
            plots_people.predicted_vs_true(truth, predicted, run.task),
            f"Predicted against true {target} of the test people.",
        ),
        "gap_by_age" if run.task.of_age else "error_by_target": (
            plots_people.gap_by_target(truth, predicted, run.task),
            f"{gap}, predicted minus true, against true {target}.",
        ),
    }
    return Section("Predictions", parts, figures)


def scans_section(run: RunFiles) -> Section:
    """What the network saw."""
    if not run.slices:
        return _absent("Scans", "slices.npz")
    targets, volumes = run.slices["targets"], run.slices["volumes"]
    if run.classified and not run.federation.get("class_names"):
        figure = plots_classes.montage(volumes, [f"{label:.0f}" for label in targets])
        text = "Some of the test set; of volumes the middle plane, of colours the first."
        return Section("Images", [Text(text)], {"images": (figure, "Class above each image.")})
    if run.classified:
        titles, order = [run.class_names[int(label)] for label in targets], "by class"
    else:
        titles = [f"{target:.0f}{run.task.unit}" for target in targets]
        order = "from young to old" if run.task.of_age else f"by {run.task.target}"
    figure = plots_scans.contact_sheet(volumes, titles)
    text = f"Test people {order}, as the network sees them."
    return Section("Scans", [Text(text)], {"scans": (figure, "Axial, coronal and sagittal slices.")})


def privacy_section(run: RunFiles) -> Section:
    """What an audit found; the tables of single attackers and victims are folded."""
    folds, figures = [], {}
    for threat, audit in run.attack.items():
        shown = 1 + len(audit["controls"])
        for place, (title, rows) in enumerate(audit_tables(audit)):
            folds.append(Fold(title, [Table(AUDIT_HEAD, rows)], open=place < shown))
        figures[f"attack_roc_{re.sub(r'[^A-Za-z0-9_]', '_', threat)}"] = (roc_curves(audit), CAPTION)
    return Section("Privacy", folds, figures)


def reproduce_section(run: RunFiles) -> Section:
    """Versions, configuration and the numbers of every round."""
    shown = [key for key in KEYS if run.validated or key != VALIDATION_KEY]
    about, keys = run.environment, [key.format(headline=run.task.headline) for key in shown]
    keys += _changing_rates(run)
    rows = list(about.get("versions", {}).items())
    rows += [(key, about.get(key, "–")) for key in ("python", "platform", "processor", "devices", "seed", "started")]
    entries = [record.to_json() for record in run.records]
    all_rounds = Table(keys, [[cell(entry.get(key)) for key in keys] for entry in entries])
    text = f"The run folder's config.json with seed {about.get('seed', '?')} and these versions."
    parts = [
        Text(text),
        Table(("what", "which"), rows),
        Fold("Configuration", [Text(json.dumps(run.config, indent=1, default=str), "code")]),
        Fold("All rounds", [all_rounds]),
    ]
    return Section("Reproduce", parts)


def _absent(title: str, file: str) -> Section:
    return Section(title, [Text(f"Left out: the run folder holds no {file}.", "note")])


def headline_tiles(run: RunFiles) -> list[tuple[str, str, str]]:
    """The headline numbers: ``(label, value, remark)``."""
    task, last, value = run.task, run.records[-1], run.headline
    (totals, unit), dense = exchanged(run.records), run.dense_total
    ours, weights = float(totals[-1]), run.federation.get("total_weights", 0)
    kept = round((1 - last.sparsity) * weights)
    seconds = float(np.nansum(series(run.records, lambda record: record.seconds)))
    reached = formatted(value, f".{task.digits}f", task.unit)
    rounds = run.config.get("rounds", len(run.records))
    return [
        (f"test {task.label}", reached, _against_naive(task, value, as_number(last.baseline))),
        ("sparsity", f"{last.sparsity:.1%}", f"{kept:,} of {weights:,} weights kept" if weights else ""),
        (f"{unit} exchanged", traffic_amount(ours, unit), _against_dense(ours, dense)),
        ("rounds", f"{len(run.records)} of {rounds}", f"{duration(seconds)} in all"),
    ]


def _against_naive(task: Task, value: float, baseline: float) -> str:
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


SECTIONS: tuple[Callable[[RunFiles], Section | None], ...] = (
    federation_section,
    accuracy_section,
    by_site_section,
    by_client_section,
    communication_section,
    absences_section,
    layers_section,
    predictions_section,
    scans_section,
    privacy_section,
    reproduce_section,
)

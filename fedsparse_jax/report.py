"""One self-contained HTML page from a run folder: what was trained on what, how well, and at what cost.

Everything comes from the files that the run has written; a file that is missing leaves its section out with a
sentence that says so. The page loads nothing from anywhere, and each figure is also written as PNG and PDF.
"""

import base64
import html
import json
import math
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from fedsparse_jax import figures, log, metrics, slices
from fedsparse_jax.types import UsageError

PAGE = "report.html"
KEYS = (
    "round",
    "target_sparsity",
    "sparsity",
    "train_loss",
    "test_mae",
    "params_down",
    "params_up",
    "seconds",
)


class Run(NamedTuple):
    """The files of a run folder, parsed; what is missing is empty."""

    workdir: Path
    rounds: list[dict]
    config: dict
    environment: dict
    federation: dict
    predictions: dict[str, np.ndarray]  # age and predicted_age, f64[N], and participant_id
    slices: dict[str, np.ndarray]  # volumes f32[K, X, Y, Z] and ages f32[K]


class Section(NamedTuple):
    """A heading, what stands under it as HTML, and its figures by name."""

    title: str
    body: str
    figures: dict[str, Figure]
    captions: dict[str, str]


def load(workdir: Path) -> Run:
    """Reads a run folder.

    Raises:
        UsageError: the folder holds no round.
    """
    rounds = log.read(workdir)
    if not rounds:
        raise UsageError(
            f"{workdir} holds no finished round (no {log.METRICS}); train at least one round first."
        )
    return Run(
        workdir,
        rounds,
        _json(workdir / "config.json").get("config", {}),
        _json(workdir / "environment.json"),
        _json(workdir / "federation.json"),
        _predictions(workdir / "predictions.tsv"),
        _slices(workdir / "slices.npz"),
    )


def write(workdir: Path) -> Path:
    """Writes ``report.html`` and ``figures/`` into a run folder; returns the page's path."""
    run = load(workdir)
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    sections = [make(run) for make in SECTIONS]
    for section in sections:
        for name, figure in section.figures.items():
            for kind in ("png", "pdf"):
                (folder / f"{name}.{kind}").write_bytes(figures.render(figure, kind))
    log.write_text(workdir / PAGE, page(run, sections))
    return workdir / PAGE


def _json(path: Path) -> dict:
    """The file's object; empty where it is missing or damaged, so that the rest can still be shown."""
    try:
        return log.read_json(path)
    except (OSError, ValueError):
        return {}


def _predictions(path: Path) -> dict[str, np.ndarray]:
    """The columns of the predictions whose age and prediction are numbers; empty if there are none."""
    head, *rows = [line.split("\t") for line in _lines(path)] or [[]]
    table = [dict(zip(head, row)) for row in rows]
    pairs = [[metrics.number(row.get(name)) for name in ("age", "predicted_age")] for row in table]
    good = [i for i, pair in enumerate(pairs) if np.isfinite(pair).all()]
    if not good:
        return {}
    age, predicted = np.array([pairs[i] for i in good]).T
    names = np.array([table[i].get("participant_id", "") for i in good])
    return {"age": age, "predicted_age": predicted, "participant_id": names}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _slices(path: Path) -> dict[str, np.ndarray]:
    try:
        found = dict(np.load(path))
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}
    return found if len(found.get("volumes", ())) else {}


# --- sections -----------------------------------------------------------------------------------


def federation(run: Run) -> Section:
    """Who holds what."""
    data = run.federation
    if not data:
        return _absent("Federation", "federation.json")
    clients, test = data["clients"], data["test"]
    total = sum(client["n"] for client in clients)
    owners = [(client["name"], client["ages"]) for client in clients]
    dropped = ", ".join(f"{count} × {reason}" for reason, count in data.get("dropped", {}).items())
    text = (
        f"<p>{len(clients)} client{'s' * (len(clients) > 1)} hold {total:,} scans; {test['n']:,} scans of other "
        f"people form the central test set. Grid {' × '.join(map(str, data['shape']))}, "
        f"{data['total_weights']:,} trainable weights. Left out: {_text(dropped or 'nothing')}.</p>"
    )
    return Section(
        "Federation",
        text,
        {"federation": figures.federation_overview(owners, test["ages"])},
        {"federation": "Scans and ages of each client and of the test set."},
    )


def accuracy(run: Run) -> Section:
    """Error by round."""
    quality = _quality(run)
    rows = [
        ("MAE", _number(quality["test_mae"], ".2f", " y")),
        ("MAE of predicting the training mean", _number(quality["predict_mean_mae"], ".2f", " y")),
        ("RMSE", _number(quality["test_rmse"], ".2f", " y")),
        ("Pearson r", _number(quality["test_r"], ".3f")),
        ("R²", _number(quality["test_r2"], ".3f")),
    ]
    return Section(
        "Accuracy",
        _undefined(run) + _table((f"on the test set, round {run.rounds[-1]['round']}", ""), rows),
        {"mae_by_round": figures.mae_by_round(run.rounds, _method(run))},
        {"mae_by_round": "Test error after each round, and the sparsity asked for and reached."},
    )


def _undefined(run: Run) -> str:
    """A warning that names the rounds whose test error is no number."""
    lost = [str(entry["round"]) for entry in run.rounds if math.isnan(metrics.number(entry.get("test_mae")))]
    text = f"<p class=warning>No test error in round {', '.join(lost)}: it is no number there.</p>"
    return text if lost else ""


def communication(run: Run) -> Section:
    """What was exchanged, against dense FedAvg over the same rounds."""
    ours = float(metrics.exchanged(run.rounds)[-1])
    dense = _dense_total(run)
    rows = [(_text(_method(run)), f"{ours:,.0f}", f"{ours / dense:.1%}" if dense else "–")]
    rows += [("dense FedAvg, same rounds and clients", f"{dense:,.0f}", "100.0%")] if dense else []
    note = (
        "<p class=note>Counted are the non-zero values sent down to and up from all clients of each round. Masks, "
        "indices and bytes are not in this count.</p>"
    )
    return Section(
        "Communication",
        _table(("run", "weights exchanged", "of dense"), rows) + note,
        {"mae_by_parameters": figures.mae_by_parameters(run.rounds, dense or math.nan, _method(run))},
        {"mae_by_parameters": "Test error against the weights exchanged so far."},
    )


def layers(run: Run) -> Section:
    """Where the zeros are."""
    sizes, density = run.federation.get("layers", {}), run.rounds[-1].get("density") or {}
    collapsed = [name for name, share in density.items() if share == 0 and not name.endswith("bias")]
    warning = (
        f"<p class=warning>Collapsed: {_text(', '.join(collapsed))} keeps no weight, which cuts the network. Begin "
        "pruning later, or choose another scope.</p>"
        if collapsed
        else ""
    )
    names = figures.layer_order(list(density))
    kept = [density[name] * sizes.get(name, 0) for name in names]
    rows = [
        (_text(name), f"{sizes.get(name, 0):,}", f"{count:,.0f}", f"{density[name]:.2%}")
        for name, count in zip(names, kept)
    ]
    drawn = {"density_by_layer": figures.density_by_layer(run.rounds, sizes)} if sizes else {}
    captions = {"density_by_layer": "Share of weights kept in each layer after each round."}
    if any(metrics.number(entry.get("agreement")) < 1 for entry in run.rounds):
        drawn["mask_agreement"] = figures.mask_agreement(run.rounds)
        captions["mask_agreement"] = (
            "Mean overlap (Jaccard) of the clients' masks with the one they were merged to."
        )
    return Section(
        "Sparsity by layer", warning + _table(("leaf", "weights", "kept", "density"), rows), drawn, captions
    )


def predictions(run: Run) -> Section:
    """Predicted against true age."""
    if not run.predictions:
        return _absent("Predictions", "predictions.tsv")
    age, predicted = run.predictions["age"], run.predictions["predicted_age"]
    note = (
        "<p class=note>The gap falls with age in every such model (regression to the mean). No correction for it "
        "is applied here.</p>"
    )
    return Section(
        "Predictions",
        note,
        {
            "predicted_vs_true": figures.predicted_vs_true(age, predicted),
            "gap_by_age": figures.gap_by_age(age, predicted),
        },
        {
            "predicted_vs_true": "Predicted against true age of the test people.",
            "gap_by_age": "Brain-age gap, predicted minus true, against true age.",
        },
    )


def scans(run: Run) -> Section:
    """What the network saw."""
    if not run.slices:
        return _absent("Scans", "slices.npz")
    titles = [f"{age:.0f} y" for age in run.slices["ages"]]
    return Section(
        "Scans",
        "<p>Test people from young to old, as the network sees them.</p>",
        {"scans": slices.contact_sheet(run.slices["volumes"], titles)},
        {"scans": "Axial, coronal and sagittal slices."},
    )


def reproduce(run: Run) -> Section:
    """Versions, configuration and the numbers of every round."""
    versions = run.environment.get("versions", {})
    rows = [(_text(name), _text(version)) for name, version in versions.items()]
    rows += [
        (key, _text(run.environment.get(key, "–")))
        for key in ("python", "platform", "devices", "seed", "started")
    ]
    table = _table(KEYS, [[_cell(entry.get(key)) for key in KEYS] for entry in run.rounds])
    config = _text(json.dumps(run.config, indent=1, default=str))
    return Section(
        "Reproduce",
        f"<p>The run folder's <code>config.json</code> with seed {_text(run.environment.get('seed', '?'))} and these "
        f"versions.</p>{_table(('what', 'which'), rows)}"
        f"<details><summary>Configuration</summary><pre>{config}</pre></details>"
        f"<details><summary>All rounds</summary>{table}</details>",
        {},
        {},
    )


def _absent(title: str, file: str) -> Section:
    return Section(title, f"<p class=note>Left out: the run folder holds no {file}.</p>", {}, {})


# --- numbers ------------------------------------------------------------------------------------


def _quality(run: Run) -> dict[str, float]:
    keys = ("test_mae", "predict_mean_mae", "test_rmse", "test_r", "test_r2")
    return {key: metrics.number(run.rounds[-1].get(key)) for key in keys}


def _method(run: Run) -> str:
    return str(run.federation.get("method") or run.config.get("method") or "run")


def _dense_total(run: Run) -> float:
    """Weights that dense FedAvg exchanges in the same rounds; 0 if the size of the model is unknown."""
    if not run.federation:
        return 0.0
    clients = len(run.federation["clients"])
    return float(metrics.dense_exchanged(run.rounds, run.federation["total_weights"], clients)[-1])


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """The headline numbers: ``(label, value, remark)``."""
    quality, last = _quality(run), run.rounds[-1]
    ours, dense = float(metrics.exchanged(run.rounds)[-1]), _dense_total(run)
    weights = run.federation.get("total_weights", 0)
    kept = round((1 - last["sparsity"]) * weights)
    seconds = sum(metrics.number(entry.get("seconds")) for entry in run.rounds)
    total = run.config.get("rounds", len(run.rounds))
    return [
        ("test MAE", _number(quality["test_mae"], ".2f", " y"), _against_mean(quality)),
        ("sparsity", f"{last['sparsity']:.1%}", f"{kept:,} of {weights:,} weights kept" if weights else ""),
        ("weights exchanged", figures.short(ours), _against_dense(ours, dense)),
        ("rounds", f"{len(run.rounds)} of {total}", f"{log.duration(seconds)} in all"),
    ]  # fmt: skip


def _against_mean(quality: dict[str, float]) -> str:
    mae, mean = quality["test_mae"], quality["predict_mean_mae"]
    if not (math.isfinite(mae) and mean > 0):
        return ""
    side = "below" if mae <= mean else "above"
    return f"{abs(1 - mae / mean):.0%} {side} predicting the mean ({mean:.2f} y)"


def _against_dense(ours: float, dense: float) -> str:
    if not (ours and dense):
        return ""
    return f"{dense / ours:.1f} × fewer than dense" if dense / ours >= 1.05 else "as many as dense FedAvg"


# --- HTML ---------------------------------------------------------------------------------------


def page(run: Run, sections: Iterable[Section]) -> str:
    """The whole page."""
    title = f"{_method(run)}, seed {run.environment.get('seed', '?')}"
    head = "".join(
        f"<div class=tile><span>{_text(label)}</span><b>{_text(value)}</b><small>{_text(remark)}</small></div>"
        for label, value, remark in tiles(run)
    )
    body = "".join(
        f"<section><h2>{section.title}</h2>{section.body}<div class=figures>"
        f"{''.join(_figure(section, name) for name in section.figures)}</div></section>"
        for section in sections
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<main><h1>{_text(title)}</h1><div class=tiles>{head}</div>{body}</main></body></html>\n"
    )


def _figure(section: Section, name: str) -> str:
    data = base64.b64encode(figures.render(section.figures[name], "png", dpi=150)).decode()
    caption = _text(section.captions[name])
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    width = 7.6 * section.figures[name].get_figwidth()  # rem: two narrow figures fit beside one another
    return f'<figure style="max-width:{width:.0f}rem">{image}<figcaption>{caption}</figcaption></figure>'


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already."""
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    header = "".join(f"<th>{_text(name)}</th>" for name in head)
    return f"<div class=scroll><table><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table></div>"


def _cell(value: Any) -> str:
    number = metrics.number(value)
    if not math.isfinite(number):
        return "–"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.3f}"


def _number(value: float, form: str, unit: str = "") -> str:
    return f"{value:{form}}{unit}" if math.isfinite(value) else "–"


def _text(value: Any) -> str:
    return html.escape(str(value))


STYLE = """
body{margin:0;background:#f3f4f6;color:#1f2937;font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem}
h1{font-size:1.5rem;margin:.5rem 0 1rem}h2{font-size:1.15rem;margin:0 0 .75rem}
section{background:#fff;border:1px solid #e5e7eb;border-radius:.5rem;padding:1.25rem;margin:1rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:1rem}
.tile{background:#fff;border:1px solid #e5e7eb;border-radius:.5rem;padding:1rem;display:flex;flex-direction:column}
.tile span{color:#6b7280;font-size:.85rem}.tile b{font-size:1.6rem;line-height:1.3}.tile small{color:#4b5563}
.figures{display:flex;flex-wrap:wrap;gap:0 1rem;justify-content:center}figure{margin:1rem 0 0}
img{max-width:100%;height:auto;display:block;margin:0 auto}
figcaption,.note{color:#4b5563;font-size:.9rem}
.warning{background:#fef3c7;border-left:4px solid #d97706;padding:.6rem .9rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.2rem .8rem;border-bottom:1px solid #e5e7eb}
th:first-child,td:first-child{text-align:left;padding-left:0}
details{margin-top:.75rem}summary{cursor:pointer}pre{font-size:.8rem;overflow-x:auto}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""

SECTIONS: tuple[Callable[[Run], Section], ...] = (
    federation,
    accuracy,
    communication,
    layers,
    predictions,
    scans,
    reproduce,
)

"""A run's model card: what to know of a model before it is used, from the run's own files, as JSON and as Markdown.

It tells no person's id, no path, and no error of fewer than ``FEWEST_TOLD`` people: a model goes where its run folder
does not.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedsparse_jax import __version__
from fedsparse_jax.core.files import read_tsv
from fedsparse_jax.core.tasks import Task
from fedsparse_jax.data.nifti import FOV
from fedsparse_jax.data.roster import is_trained_on, is_validation
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.reporting.run_files import RunFiles
from fedsparse_jax.runs.evaluation import PREDICTED
from fedsparse_jax.runs.run_dir import PLACES_OF_TABLES, recorded_people
from fedsparse_jax.runs.series import as_number

NOT_STATED = "not stated"
BAND = 10.0  # years
FEWEST_TOLD = 5  # examples of a group whose error is told
BANDS = 5  # of a number that is no age


def model_card(files: RunFiles, round_: int, kept: Mapping[str, tuple[int, int]], licence: str = "") -> dict[str, Any]:
    """The card of a run's model, which JSON knows.

    Args:
        files: of the run.
        round_: whose model it is.
        kept: for each leaf its kept weights and all of them.
        licence: of the model; empty where nobody has stated it.
    """
    task, config = files.task, files.config
    weights, all_weights = (sum(pair[i] for pair in kept.values()) for i in (0, 1))
    record = next((record for record in files.records if record.round == round_), None)
    measures = lambda name: {} if record is None else dict(getattr(record, name))
    newest = round_ == files.records[-1].round
    groups = _error_by_group(files.workdir, task) if newest else {}
    return {
        "method": files.method,
        "predicts": _predicts(files),
        "round": round_,
        "rounds": config.get("rounds"),
        "network": {key: value for key, value in config.get("model", {}).items() if not key.startswith("init_")},
        "data": _data(files),
        "split": {
            "partition": config.get("partition"),
            "seed": config.get("seed"),
            **{key: config.get("data", {}).get(key) for key in ("test_share", "validation_share")},
        },
        "sparsity": {
            "share_of_zeros": round(1 - weights / all_weights, 6),
            "kept": weights,
            "weights": all_weights,
            "by_leaf": {name: list(pair) for name, pair in kept.items()},
        },
        "errors": {
            "test": measures("test"),
            "validation": measures("validation"),
            task.baseline_key: _known(record.baseline) if record else None,
            **groups,
        },
        "privacy": {"epsilon": record.epsilon if record else None},
        "preprocessing": _preprocessing(files),
        "licence": licence or NOT_STATED,
        "versions": {**files.environment.get("versions", {}), "exported by fedsparse_jax": __version__},
        "trained": files.environment.get("started"),
    }


def _predicts(files: RunFiles) -> Any:
    """The number with its unit, or the classes in the order of the logits; images have no label but these."""
    if not files.classified:
        return files.task.axis
    label = {"label": files.task.target} if files.federation.get("class_names") else {}
    return {**label, "classes": files.class_names}


def _known(value: float | None) -> float | None:
    """A number that JSON knows."""
    return value if value is not None and math.isfinite(value) else None


def _data(files: RunFiles) -> dict[str, Any]:
    """How many people trained, validated and were tested, and of what age; scans of people of whom nothing is told."""
    people = recorded_people(files.workdir)
    judges = {"trained_on": is_trained_on, "validation": is_validation, "test": lambda name: name == "test"}
    sets = {}
    for name, judge in judges.items():
        entries = [entry for entry in people if judge(entry.set)]
        if entries:
            targets = np.array([entry.target for entry in entries])
            numbers = dict(zip(("lowest", "mean", "highest"), (targets.min(), targets.mean(), targets.max())))
            sets[name] = {
                "people": len({entry.participant_id for entry in entries}),
                "examples": len(entries),
                **({} if files.classified else {key: round(float(value), 1) for key, value in numbers.items()}),
            }
    clients = files.federation.get("clients", [])
    source = files.config.get("data", {}).get("source")
    return {"source": source, "clients": len(clients), **sets, "left_out": files.federation.get("dropped", {})}


def _preprocessing(files: RunFiles) -> dict[str, Any]:
    """What inputs must look like."""
    data, shape = files.config.get("data", {}), files.federation.get("shape") or []
    grid = {"inputs": ["B", *shape, data.get("channels", 1)], "type": "float32"}
    if len(shape) != 3 or "align" not in data:
        return grid
    voxel = [round(side / count, 3) for side, count in zip(FOV, shape, strict=True)]
    options = {key: value for key, value in (data.get("options") or {}).items() if key not in PLACES_OF_TABLES}
    place = {"space": "MNI152 box, RAS", "voxel_mm": voxel, "align": data["align"], "normalise": data["normalise"]}
    return {**grid, **place, "options": options, "precision": files.config.get("precision", "float32")}


def _error_by_group(workdir: Path, task: Task) -> dict[str, list[dict[str, Any]]]:
    """Errors on the test set by age (or number, or class) and by site, of the newest model, which wrote the table."""
    rows = read_tsv(workdir / "predictions.tsv")
    predicted = next((name for name in rows[0] if name.startswith(PREDICTED)), "") if rows else ""
    truth = predicted.removeprefix(PREDICTED)
    known = [row for row in rows if row.get(truth, "n/a") != "n/a"]
    if not known:
        return {}
    if "error" in known[0]:
        known = sorted(known, key=lambda row: as_number(row[truth]))
        errors = np.array([as_number(row["error"]) for row in known])
        groups = {f"by_{truth}": _bands(np.array([as_number(row[truth]) for row in known]), task)}
        judge = lambda chosen: {"mae": np.abs(errors[chosen]).mean(), "bias": errors[chosen].mean()}
    else:
        known = sorted(known, key=lambda row: row[truth])
        hits = np.array([row[truth] == row[predicted] for row in known])
        groups = {f"by_{truth}": [row[truth] for row in known]}
        judge = lambda chosen: {"accuracy": hits[chosen].mean()}
    sites = [row.get("site", "n/a") for row in known]
    if set(sites) != {"n/a"}:
        groups["by_site"] = sites
    return {
        name: [_of_group(group, labels, judge) for group in _in_order(name, labels)] for name, labels in groups.items()
    }


def _in_order(name: str, labels: list[str]) -> Iterable[str]:
    """The groups that there are; sites by their names, all others as they rise."""
    return sorted(set(labels)) if name == "by_site" else dict.fromkeys(labels)


def _of_group(group: str, labels: list[str], judge: Callable) -> dict[str, Any]:
    """Measures of a group; None where it is so small that they would tell of single people."""
    chosen = np.array(labels) == group
    told = chosen.sum() >= FEWEST_TOLD
    measures = {name: round(float(value), 3) if told else None for name, value in judge(chosen).items()}
    return {"group": group, "n": int(chosen.sum()), **measures}


def _bands(targets: np.ndarray, task: Task) -> list[str]:
    """The band that each number is in: ten years of age, or a fifth of the range of another number."""
    low, high = targets.min(), targets.max()
    start, width = (low // BAND * BAND, BAND) if task.of_age else (low, (high - low) / BANDS or 1.0)
    places = (targets - start) // width if task.of_age else np.minimum((targets - start) // width, BANDS - 1)
    return [f"{start + place * width:.6g} to {start + (place + 1) * width:.6g}" for place in places]


def card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    sections = {
        f"# Model card: {_said(card['predicts'])} by {card['method']}": _about_it(card),
        "## Data": _about_data(card["data"]),
        "## Split": ["People are divided, and never their scans.", _facts(card["split"])],
        "## Network": [_facts(card["network"])],
        "## Sparsity": _about_sparsity(card["sparsity"]),
        "## Errors": _about_errors(card["errors"]),
        "## Privacy": [_promise(card["privacy"]["epsilon"])],
        "## Preprocessing": [_facts(card["preprocessing"])],
        "## Licence": [f"Of the model: {card['licence']}. The terms of the data that it was trained on hold, too."],
        "## Versions": [_facts({**card["versions"], "trained": card["trained"]})],
    }
    return "\n\n".join(part.strip() for title, parts in sections.items() for part in [title, *parts]) + "\n"


def _about_it(card: Mapping[str, Any]) -> list[str]:
    told = [f"The model of round {card['round']} of a run of {card['rounds']} rounds."]
    if card["data"]["source"] == "phantom":
        told += ["It was trained on the phantom, synthetic brains, and knows nothing about real brains."]
    return [*told, "It is no medical device. Nobody has tested it for the care of patients."]


def _about_data(data: Mapping[str, Any]) -> list[str]:
    sets = [(name.replace("_", " "), data[name]) for name in ("trained_on", "validation", "test") if name in data]
    keys = list(dict.fromkeys(key for _, told in sets for key in told))
    table = markdown_table(["set", *keys], [[name, *(told.get(key, "") for key in keys)] for name, told in sets])
    left_out = ["Left out, by the reason:", _facts(data["left_out"])] if data["left_out"] else []
    return [_facts({name: data[name] for name in ("source", "clients")}), table, *left_out]


def _about_sparsity(sparsity: Mapping[str, Any]) -> list[str]:
    kept, weights, share = (sparsity[key] for key in ("kept", "weights", "share_of_zeros"))
    table = markdown_table(["leaf", "kept", "weights"], [[name, *pair] for name, pair in sparsity["by_leaf"].items()])
    return [f"{kept:,} of {weights:,} weights are kept, a sparsity of {share:.4f}.", table]


def _about_errors(errors: Mapping[str, Any]) -> list[str]:
    groups = {name: rows for name, rows in errors.items() if isinstance(rows, list)}
    parts = [_facts({name: value for name, value in errors.items() if name not in groups and value not in ({}, None)})]
    for name, rows in groups.items():
        cells = [["too few" if value is None else value for value in row.values()] for row in rows]
        parts += [f"On the test set, {name.replace('_', ' ')}:", markdown_table(rows[0], cells)]
    return parts if groups else [*parts, "By age and site they are not known: the run keeps these of its newest model."]


def _promise(epsilon: float | None) -> str:
    return "Training was not differentially private." if epsilon is None else f"Epsilon is {epsilon:.3g}."


def _facts(told: Mapping[str, Any]) -> str:
    return "".join(f"- {name.replace('_', ' ')}: {_said(value)}\n" for name, value in told.items())


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items()) or "none"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(_said, value))
    return f"{value:.4g}" if isinstance(value, float) else "n/a" if value is None else str(value)

"""What does each aggregation rule bear? One to three of eight clients lie, in six ways, at two sparsities.

The clients hold the handwritten digits, each an equal share of all classes. A run is a cell: rule, poison, number of
liars, sparsity, seed. What a finished cell has measured is one line of ``cells.jsonl``, and is not done again. Beside
the accuracy stand the overlap of the final mask with the mask that the same run without liars ends with (Jaccard), and
for the backdoor how often images with the trigger are taken for the class that the trigger means.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedsparse_jax.attacks.poison import POISONS, add_trigger
from fedsparse_jax.config.build import experiment_from_config, load_config
from fedsparse_jax.config.scans import no_progress
from fedsparse_jax.core.files import write_whole
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.runs.evaluation import predict_test
from fedsparse_jax.runs.loop import fold_rounds
from fedsparse_jax.runs.round import Runner, initial_server, make_runner
from fedsparse_jax.studies.intervals import mean_with_interval

CELLS = "cells.jsonl"
CLIENTS, TRIGGER_MEANS = 8, 0
GLOBAL, LOCAL = "configs/methods/fedsparsify_global.py", "configs/methods/fedsparsify_local.py"


class Rule(NamedTuple):
    """How the server merges: a method's file, and the keys of its config that are set otherwise."""

    file: str
    aggregation: dict[str, Any]
    norm_bound: float = 0.0


RULES = {
    "mean": Rule(GLOBAL, {"name": "mean"}),
    "mean, norms bounded": Rule(GLOBAL, {"name": "mean"}, norm_bound=1.0),
    "median": Rule(GLOBAL, {"name": "median"}),
    "trimmed mean": Rule(GLOBAL, {"name": "trimmed_mean", "trim": 0.375}),
    "Krum": Rule(GLOBAL, {"name": "krum", "malicious": 3}),
    "multi-Krum": Rule(GLOBAL, {"name": "multi_krum", "malicious": 3}),
    "Local, vote": Rule(LOCAL, {"name": "majority_vote"}),
    "Local, capped vote, median": Rule(LOCAL, {"name": "capped_vote", "values": "median"}),
}


class Cell(NamedTuple):
    """One run of the study."""

    rule: str
    poison: str  # a member of ``POISONS``, or none
    liars: int
    percent: int  # sparsity
    seed: int


class Measured(NamedTuple):
    """What came of a cell."""

    accuracy: float
    triggered: float  # share of images with the trigger, of other classes, that are taken for the trigger's class
    mask: np.ndarray  # bool[P], of the final model


def all_cells(percents: Iterable[int], liars: Sequence[int], seeds: Sequence[int], rules: Iterable[str]) -> list[Cell]:
    """Every cell, those without liars first. A vote needs clients who prune, so that Local has no dense cells."""
    pairs = [(rule, percent) for rule in rules for percent in percents if percent or RULES[rule].file == GLOBAL]
    clean = [Cell(rule, "none", 0, percent, seed) for (rule, percent), seed in itertools.product(pairs, seeds)]
    lied = itertools.product(pairs, POISONS, liars, seeds)
    return clean + [Cell(rule, poison, count, percent, seed) for (rule, percent), poison, count, seed in lied]


def config_of(cell: Cell, form: str = ""):
    """The config of a cell."""
    rule = RULES[cell.rule]
    config = load_config("+".join(filter(None, (f"{rule.file}:digits", "iid", str(cell.percent), form))))
    config.seed, config.communication.mode, config.server.norm_bound = cell.seed, "off", rule.norm_bound
    config.rounds = min(config.rounds, 30)
    with config.unlocked():
        config.partition.num_clients = CLIENTS
        config.aggregation = rule.aggregation
        config.poison = {"name": cell.poison, "clients": cell.liars}
    return config


def run_cell(cell: Cell, form: str = "") -> Measured:
    """Trains one cell and measures its final model."""
    runner = make_runner(experiment_from_config(config_of(cell, form)))
    server = initial_server(runner)
    for result in fold_rounds(runner, server, {}):
        server = result.server
    mask = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(server.masks)])
    return Measured(*_accuracies(runner, server.params), mask)


def _accuracies(runner: Runner, params) -> tuple[float, float]:
    """The share of right predictions, and of triggered images that are taken for the trigger's class."""
    data = runner.experiment.federation
    targets = data.targets[data.test]
    right = predict_test(runner, params).argmax(-1) == targets
    others = data.test[targets != TRIGGER_MEANS]
    fooled = np.asarray(runner.apply(params, add_trigger(data.inputs[others]))).argmax(-1) == TRIGGER_MEANS
    return float(right.mean()), float(fooled.mean())


def run_cells(
    cells: Sequence[Cell], workdir: Path, form: str = "", progress: Callable = no_progress
) -> dict[Cell, Measured]:
    """What all cells have measured; those that ``workdir`` holds are not run again."""
    workdir.mkdir(parents=True, exist_ok=True)
    done = read_cells(workdir)
    for cell in progress([cell for cell in cells if cell not in done], "cells", len(set(cells) - set(done))):
        done[cell] = run_cell(cell, form)
        line = {**cell._asdict(), "accuracy": done[cell].accuracy, "triggered": done[cell].triggered}
        line |= {"size": len(done[cell].mask), "mask": np.packbits(done[cell].mask).tobytes().hex()}
        with open(workdir / CELLS, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return {cell: done[cell] for cell in cells}


def read_cells(workdir: Path) -> dict[Cell, Measured]:
    """The cells that are finished; a line that was cut off is left out, and its cell run again."""
    path, found = workdir / CELLS, {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("}\n")]
    if whole != lines:
        write_whole(path, "".join(whole))
    for entry in map(json.loads, whole):
        packed = np.frombuffer(bytes.fromhex(entry["mask"]), np.uint8)
        mask = np.unpackbits(packed, count=entry["size"]).astype(bool)
        cell = Cell(*(entry[key] for key in Cell._fields))
        found[cell] = Measured(entry["accuracy"], entry["triggered"], mask)
    return found


def write_poison_tables(results: dict[Cell, Measured], workdir: Path) -> str:
    """Writes ``study.md``: accuracy, triggered images and overlap of masks by rule and poison; what liars cost.

    Returns:
        The text.
    """
    parts = []
    for percent in sorted({cell.percent for cell in results}):
        of_percent = {cell: value for cell, value in results.items() if cell.percent == percent}
        parts.append(f"Accuracy (%) at {percent} % sparsity with 1 / 2 / 3 liars of {CLIENTS}\n\n")
        parts.append(_table(of_percent, lambda cell: 100 * results[cell].accuracy))
        parts.append(f"\nTriggered images taken for the trigger's class (%) at {percent} % sparsity\n\n")
        parts.append(_table(of_percent, lambda cell: 100 * results[cell].triggered, poisons=("backdoor",)))
        if percent:
            parts.append(f"\nOverlap of the final mask with that without liars (Jaccard) at {percent} % sparsity\n\n")
            parts.append(_table(of_percent, lambda cell: overlap(results, cell), digits=2))
        parts.append("\n")
    parts.append(_sparsity_table(results))
    text = "".join(parts)
    write_whole(workdir / "study.md", text)
    return text


def overlap(results: dict[Cell, Measured], cell: Cell) -> float:
    """Jaccard overlap of a cell's final mask with that of the same run without liars."""
    ours, clean = results[cell].mask, results[cell._replace(poison="none", liars=0)].mask
    return float((ours & clean).sum() / (ours | clean).sum())


def _table(
    results: dict[Cell, Measured], measure: Callable[[Cell], float], poisons=("none", *POISONS), digits=1
) -> str:
    """One row a rule, one column a poison, the means over the seeds for each number of liars."""
    rows = []
    for rule in dict.fromkeys(cell.rule for cell in results):
        row = [rule]
        for poison in poisons:
            cells = [cell for cell in results if (cell.rule, cell.poison) == (rule, poison)]
            by_liars = [[measure(c) for c in cells if c.liars == n] for n in sorted({c.liars for c in cells})]
            short = (mean_with_interval(values, digits) for values in by_liars)
            row.append(" / ".join(short) or "–")
        rows.append(row)
    head = ["no liar" if poison == "none" else poison.replace("_", " ") for poison in poisons]
    return markdown_table(["rule", *head], rows)


def _sparsity_table(results: dict[Cell, Measured]) -> str:
    """What liars cost at each sparsity: points of accuracy below the same run without them, and the difference."""
    percents = sorted({cell.percent for cell in results})
    if len(percents) < 2:
        return ""
    rows = []
    rules = [rule for rule in dict.fromkeys(c.rule for c in results) if RULES[rule].file == GLOBAL]
    for rule, liars in itertools.product(rules, sorted({c.liars for c in results} - {0})):
        costs = [_cost_by_seed(results, rule, liars, percent) for percent in (percents[0], percents[-1])]
        cells = [mean_with_interval(cost, 1) for cost in costs]
        rows.append([rule, liars, *cells, mean_with_interval(costs[1] - costs[0], 1, "+")])
    head = ["rule", "liars", *(f"points lost at {percent} %" for percent in (percents[0], percents[-1])), "difference"]
    return "What the liars cost, the mean over all poisons, paired by seed\n\n" + markdown_table(head, rows)


def _cost_by_seed(results: dict[Cell, Measured], rule: str, liars: int, percent: int) -> np.ndarray:
    """Points of accuracy lost to liars for each seed, the mean over the poisons."""
    seeds = sorted({cell.seed for cell in results})
    lost = [
        [
            results[Cell(rule, "none", 0, percent, seed)].accuracy
            - results[Cell(rule, poison, liars, percent, seed)].accuracy
            for poison in POISONS
        ]
        for seed in seeds
    ]
    return 100 * np.mean(lost, axis=1)

"""The claim, tested: does sparsity hide members, or only the accuracy that it costs?

At each sparsity some models are trained on random halves of all people (`shadow_models`), and each is the target in its
turn, with the others as its shadows, but for the one that trained on exactly the other half. The attacker is an
outsider, who has the final model alone. Beside each target stands the dense model of the same half, stopped in the
round whose test error is nearest. Two defences are measured in the same way: the dense model stopped where its test
error is least, and differentially private training. Everything that is finished is kept in the folder and not done
again.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedsparse_jax.attacks import threats
from fedsparse_jax.attacks.evaluate import Finding, evaluate_attacks
from fedsparse_jax.attacks.evidence import Shadows, others_than
from fedsparse_jax.attacks.features import feature_cache
from fedsparse_jax.config.build import federation_from_config, load_config
from fedsparse_jax.config.saved_runs import load_run
from fedsparse_jax.config.scans import no_progress
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json, write_json, write_whole
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.reporting.audit_tables import auc_by_sparsity
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.reporting.style import render_figure
from fedsparse_jax.runs.metrics_log import read_records
from fedsparse_jax.runs.run_dir import stored_config
from fedsparse_jax.studies.audit_run import global_snapshot
from fedsparse_jax.studies.intervals import half_width
from fedsparse_jax.studies.shadow_models import read_shadows, train_shadows

PERCENTS, NOISES = ("0", "50", "80", "90", "95", "99"), ("0.02", "0.1", "0.4")
LEAKAGE_HEAD = ("model", "best attacks", "AUC", "age-matched AUC", "TPR at 1 % FPR", "test MAE (y)", "gap (y)")
MATCHED = ("dense, stopped: round", "its test MAE (y)", "its AUC", "AUC, minus stopped dense")


class ModelGroup(NamedTuple):
    """Models that were trained alike, and what they predict for everybody."""

    folder: Path
    models: list[dict[str, np.ndarray]]  # see `shadow_models.write_everybody`

    def errors(self, target: int, place: int) -> tuple[float, float]:
        """Train and test MAE of a target after the round at that place."""
        model = self.models[target]
        errors = np.abs(model["predictions"][place] - model["targets"])
        return float(errors[model["inside"]].mean()), float(errors[~model["inside"]].mean())

    @property
    def ends(self) -> list[int]:
        """The place of each target's last round."""
        return [len(model["rounds"]) - 1 for model in self.models]


class StudyContext(NamedTuple):
    """What does not change from group to group."""

    workdir: Path
    data: Federation
    draws: int
    print_fn: Callable[[str], None]


def study_leakage(
    workdir: Path,
    spec: str,
    *,
    percents=PERCENTS,
    noises=NOISES,
    targets: int = 8,
    form: str = "",
    draws: int = 200,
    print_fn: Callable[[str], None] = print,
    progress=no_progress,
) -> dict:
    """Trains, attacks and writes ``study.json``, ``study.md`` and ``study.png``; returns what is in the first.

    Args:
        workdir: of the study.
        spec: a config file whose forms are sparsities in percent, and ``private``.
        percents: these sparsities; the first one is 0, the dense model that the others are matched with.
        noises: noise multipliers of private training of the dense model.
        targets: models of each group, an even number.
        form: a further form of the config, such as ``smoke``.
        draws: of the bootstrap of each target; the intervals of the study are over targets.
        print_fn: told what goes on.
        progress: shown while scans are read.
    """
    if not percents or percents[0] != "0":
        raise UsageError("The sparsities of a study begin with 0, the dense model.")
    load = lambda *forms: load_config(f"{spec}:{'+'.join(filter(None, (*forms, form)))}")
    train = partial(_train_group, workdir, targets=targets, print_fn=print_fn, progress=progress)
    data, _ = federation_from_config(load("0"), progress)
    context = StudyContext(workdir, data, draws, print_fn)
    about = {"targets": targets, "config": spec, "form": form}
    dense = train(load("0"), "sparsity-0")
    levels = list[dict]()
    defences = [_attack_group(context, dense, dense, "dense, stopped at its least test MAE", early=True)]

    def write():
        write_json(workdir / "study.json", {**about, "levels": levels, "defences": defences})
        write_whole(workdir / "study.md", study_tables(levels, defences))
        write_whole(workdir / "study.png", render_figure(auc_by_sparsity(levels), "png"))

    for percent in percents:
        group = dense if percent == "0" else train(load(percent), f"sparsity-{percent}")
        summary = _attack_group(context, group, dense, f"sparsity {percent} %")
        levels.append({"sparsity": float(percent) / 100, **summary})
        write()
    for noise in noises:
        config = load("0", "private")
        config.privacy.noise = float(noise)
        group = train(config, f"private-{noise}")
        epsilon = read_records(group.folder / "shadow-0")[-1].epsilon
        summary = _attack_group(context, group, dense, f"private, noise {noise} (epsilon {epsilon:.0f})")
        defences.append({"noise": float(noise), "epsilon": epsilon, **summary})
        write()
    return read_json(workdir / "study.json")


def _train_group(workdir: Path, config, name: str, *, targets: int, print_fn, progress) -> ModelGroup:
    config.checkpoint.keep, config.checkpoint.every, config.log.tensorboard = config.rounds, 1, False
    print_fn(name)
    train_shadows(config, workdir / name, targets, print_fn=print_fn, progress=progress)
    return ModelGroup(workdir / name, read_shadows(workdir / name))


def _attack_group(
    context: StudyContext, group: ModelGroup, dense: ModelGroup, name: str, early: bool = False
) -> dict[str, Any]:
    """A group attacked after its last rounds, or ``early``, each where its test error is least."""
    places = [best_round(group, target) for target in range(len(group.models))] if early else group.ends
    records = [_attack_target(context, group, target, place) for target, place in enumerate(places)]
    matched = None
    if group is not dense:
        places = [nearest_round(dense, t, group.errors(t, place)[1]) for t, place in enumerate(places)]
        matched = [_attack_target(context, dense, target, place) for target, place in enumerate(places)]
    return summarize_group(name, records, matched)


def best_round(group: ModelGroup, target: int) -> int:
    """The place of the round after which the target's test MAE is least."""
    places = range(len(group.models[target]["rounds"]))
    return min(places, key=lambda place: group.errors(target, place)[1])


def nearest_round(dense: ModelGroup, target: int, mae: float) -> int:
    """The place of the round after which the dense target's test MAE is nearest to ``mae``, the earliest of equals."""
    places = range(len(dense.models[target]["rounds"]))
    return min(places, key=lambda place: abs(dense.errors(target, place)[1] - mae))


def _attack_target(context: StudyContext, group: ModelGroup, target: int, place: int) -> dict[str, Any]:
    """What every attack finds of one model after one round; from the folder where it stands already."""
    round_, name = int(group.models[target]["rounds"][place]), group.folder.name
    about = [stored_config(group.folder / f"shadow-{target}"), len(group.models), context.draws]
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()
    file = context.workdir / "audits" / f"{name}-round{round_}-target{target}-{digest}.json"
    if not file.exists():
        context.print_fn(f"attack: {name}, round {round_}, target {target + 1} of {len(group.models)}")
        write_json(file, attack_target(group, target, place, context.data, context.draws))
    return read_json(file)


def attack_target(group: ModelGroup, target: int, place: int, data: Federation, draws: int) -> dict[str, Any]:
    """What every attack finds of one model, by an outsider who knows half of the people on either side."""
    inside = group.models[target]["inside"]
    members, outside = [np.flatnonzero(inside)], np.flatnonzero(~inside)
    threat = threats.outsider_attacks(members, outside, seed=target, who=data.person_of_row)
    folder = group.folder / f"shadow-{target}"
    _, network, state = load_run(folder, int(group.models[target]["rounds"][place]))
    models = (global_snapshot(state),)
    observe = feature_cache(network.apply, models, data.inputs, data.targets)
    everybody = np.stack([model["inside"] for model in group.models])
    others = others_than(target, everybody)
    shadows = None
    if len(others):
        shadows = Shadows(np.stack([group.models[t]["predictions"][place] for t in others]), everybody[others])
    evidence = threats.evidence_for(threat, models, observe, data.targets, shadows, data.person_of_row)
    findings = evaluate_attacks(evidence, threat.inside, draws=draws)
    train, test = group.errors(target, place)
    return {
        "round": int(group.models[target]["rounds"][place]),
        "train_mae": train,
        "test_mae": test,
        "attacks": {name: _numbers(finding) for name, finding in findings.items()},
    }


def _numbers(finding: Finding) -> dict[str, Any]:
    if finding.everybody is None:
        return {"refused": finding.refused}
    matched = finding.age_matched
    return {
        "auc": finding.everybody.auc.value,
        "tpr": finding.everybody.tpr["0.01"].value,
        "age_matched_auc": None if matched is None else matched.auc.value,
    }


def best_attack(records: list[dict], target: int) -> str:
    """The attack with the highest mean AUC on the *other* targets, among those that ran on all of them."""
    others = [record["attacks"] for t, record in enumerate(records) if t != target]
    everywhere = [records[target]["attacks"], *others]
    ran = [
        name
        for name in records[target]["attacks"]
        if name != "age_alone" and all("auc" in attacks[name] for attacks in everywhere)
    ]
    if not ran:
        raise UsageError("No attack ran on all targets of the study; train more of them (--targets).")
    return max(ran, key=lambda name: np.mean([attacks[name]["auc"] for attacks in others]))


def over_targets(values) -> dict[str, float] | None:
    """Mean and half the 95 % interval (Student's t over the targets); None where a value is refused.

    >>> {k: round(v, 2) for k, v in over_targets([1.0, 2.0, 3.0]).items()}
    {'mean': 2.0, 'half': 2.48}
    """
    values = list(values)
    if any(value is None for value in values):
        return None
    return {"mean": float(np.mean(values)), "half": half_width(values)}


def summarize_group(name: str, records: list[dict], matched: list[dict] | None) -> dict[str, Any]:
    """One group: means and intervals over the targets, of the best attack and of each."""
    names = [best_attack(records, target) for target in range(len(records))]
    best = [record["attacks"][attack] for record, attack in zip(records, names, strict=True)]
    every = {attack: [record["attacks"][attack].get("auc") for record in records] for attack in records[0]["attacks"]}
    summary = {
        "name": name,
        "best": names,
        "rounds": [record["round"] for record in records],
        "auc": over_targets(one["auc"] for one in best),
        "tpr": over_targets(one["tpr"] for one in best),
        "age_matched_auc": over_targets(one["age_matched_auc"] for one in best),
        "test_mae": over_targets(record["test_mae"] for record in records),
        "gap": over_targets(record["test_mae"] - record["train_mae"] for record in records),
        "attacks": {attack: over_targets(values) for attack, values in every.items()},
    }
    if matched is not None:
        dense_auc = [record["attacks"][best_attack(matched, t)]["auc"] for t, record in enumerate(matched)]
        summary["matched_rounds"] = [record["round"] for record in matched]
        summary["matched_mae"] = over_targets(record["test_mae"] for record in matched)
        summary["matched_auc"] = over_targets(dense_auc)
        summary["difference"] = over_targets(a["auc"] - b for a, b in zip(best, dense_auc, strict=True))
    return summary


def study_tables(levels: list[dict], defences: list[dict]) -> str:
    """All groups as Markdown: mean ± half of the 95 % interval over the targets, then every attack's AUC."""
    groups = levels + defences
    attacks = list(groups[0]["attacks"])
    each = [[group["name"], *(_text(group["attacks"][name], 3) for name in attacks)] for group in groups]
    title = "AUC of every attack (`age_alone` is the control that looks at no model):"
    first = markdown_table(LEAKAGE_HEAD + MATCHED, [_row(group) for group in groups])
    return f"{first}\n{title}\n\n{markdown_table(('model', *attacks), each)}"


def _row(group: dict) -> list[str]:
    row = [group["name"], ", ".join(sorted(set(group["best"])))]
    row += [_text(group[key], 3) for key in ("auc", "age_matched_auc", "tpr")]
    row += [_text(group["test_mae"], 2), _text(group["gap"], 2)]
    rounds = group.get("matched_rounds")
    row.append("–" if rounds is None else f"{min(rounds)} to {max(rounds)}")
    places = (("matched_mae", 2), ("matched_auc", 3), ("difference", 3))
    return row + [_text(group.get(key), digits) for key, digits in places]


def _text(value: dict | None, digits: int) -> str:
    return "–" if value is None else f"{value['mean']:.{digits}f} ± {value['half']:.{digits}f}"

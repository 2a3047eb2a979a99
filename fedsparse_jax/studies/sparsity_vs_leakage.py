"""The claim, tested: does sparsity hide members, or only the accuracy that it costs?

At each sparsity some models are trained on random halves of all people (`shadowing`), and each is the target in its
turn, with the others as its shadows. Beside each target stands the dense model of the same half, stopped in the round
whose test error is nearest. Two defences are measured in the same way: the dense model stopped where its test error is
least, and differentially private training. Everything that is finished is kept in the folder and not done again.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats

from fedsparse_jax.attacks import evaluate, features, threats
from fedsparse_jax.attacks.evidence import Shadows, Snapshot
from fedsparse_jax.config import build
from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.types import UsageError
from fedsparse_jax.data import batching
from fedsparse_jax.reporting import audit_tables, plots
from fedsparse_jax.runs import metrics_log
from fedsparse_jax.studies import shadow_models

PERCENTS, NOISES = ("0", "50", "80", "90", "95", "99"), ("0.02", "0.1", "0.4")
HEAD = ("model", "best attacks", "AUC", "age-matched AUC", "TPR at 1 % FPR", "test MAE (y)", "gap (y)")
MATCHED = ("dense, stopped: round", "its test MAE (y)", "its AUC", "AUC, minus stopped dense")


class Family(NamedTuple):
    """Models that were trained alike, and what they predict for everybody."""

    folder: Path
    found: list[dict[str, np.ndarray]]  # see `shadowing.write_everybody`

    def errors(self, target: int, place: int) -> tuple[float, float]:
        """Train and test MAE of a target after the round at that place."""
        one = self.found[target]
        off = np.abs(one["predictions"][place] - one["targets"])
        return float(off[one["inside"]].mean()), float(off[~one["inside"]].mean())

    @property
    def ends(self) -> list[int]:
        """The place of each target's last round."""
        return [len(one["rounds"]) - 1 for one in self.found]


class Work(NamedTuple):
    """What does not change from family to family."""

    workdir: Path
    data: batching.Federation
    draws: int
    say: Callable[[str], None]


def run(
    workdir: Path,
    spec: str = "configs/audit.py",
    *,
    percents=PERCENTS,
    noises=NOISES,
    targets: int = 8,
    form: str = "",
    draws: int = 200,
    say: Callable[[str], None] = print,
    track=build.plain,
) -> dict:
    """Trains, attacks and writes ``study.json``, ``study.md`` and ``study.png``; returns what is in the first.

    Args:
        workdir: of the study.
        spec: a config file whose forms are sparsities in percent, and ``private``.
        percents: these sparsities; the first one is 0, the dense model that the others are matched with.
        noises: noise multipliers of private training of the dense model.
        targets: models of each family, an even number.
        form: a further form of the config, such as ``smoke``.
        draws: of the bootstrap of each target; the intervals of the study are over targets.
        say: told what goes on.
        track: progress of reading scans.
    """
    if not percents or percents[0] != "0":
        raise UsageError("attack: the sparsities of a study begin with 0, the dense model.")
    load = lambda *forms: build.load(f"{spec}:{'+'.join(filter(None, (*forms, form)))}")
    grow = partial(_family, workdir, targets=targets, say=say, track=track)
    data, _ = build.federation(load("0"), track)
    work, found = Work(workdir, data, draws, say), {"targets": targets, "config": spec, "form": form}
    dense = grow(load("0"), "sparsity-0")
    levels = list[dict]()
    defences = [_level(work, dense, dense, "dense, stopped at its least test MAE", early=True)]

    def keep():
        found.update(levels=levels, defences=defences)
        metrics_log.write_json(workdir / "study.json", found)
        metrics_log.write_text(workdir / "study.md", tables(levels, defences))
        (workdir / "study.png").write_bytes(plots.render(audit_tables.by_sparsity(levels), "png"))

    for percent in percents:
        family = dense if percent == "0" else grow(load(percent), f"sparsity-{percent}")
        one = _level(work, family, dense, f"sparsity {percent} %")
        levels.append({"sparsity": float(percent) / 100, **one})
        keep()
    for noise in noises:
        config = load("0", "private")
        config.privacy.noise = float(noise)
        family = grow(config, f"private-{noise}")
        spent = metrics_log.read(family.folder / "shadow-0")[-1]["epsilon"]
        one = _level(work, family, dense, f"private, noise {noise} (epsilon {spent:.0f})")
        defences.append({"noise": float(noise), "epsilon": spent, **one})
        keep()
    return metrics_log.read_json(workdir / "study.json")


def _family(workdir: Path, config, name: str, *, targets: int, say, track) -> Family:
    config.checkpoint.keep, config.checkpoint.every, config.log.tensorboard = config.rounds, 1, False
    say(name)
    shadow_models.train(config, workdir / name, targets, say=say, track=track)
    return Family(workdir / name, shadow_models.read(workdir / name))


def _level(work: Work, family: Family, dense: Family, name: str, early: bool = False) -> dict:
    """A family attacked after its last rounds, or ``early``, each where its test error is least."""
    places = [least(family, t) for t in range(len(family.found))] if early else family.ends
    records = [_attacked(work, family, t, at) for t, at in enumerate(places)]
    matched = None
    if family is not dense:
        places = [nearest(dense, t, family.errors(t, at)[1]) for t, at in enumerate(places)]
        matched = [_attacked(work, dense, t, at) for t, at in enumerate(places)]
    return level(name, records, matched)


def least(family: Family, target: int) -> int:
    """The place of the round after which the target's test MAE is least."""
    return min(range(len(family.found[target]["rounds"])), key=lambda place: family.errors(target, place)[1])


def nearest(dense: Family, target: int, mae: float) -> int:
    """The place of the round after which the dense target's test MAE is nearest to ``mae``, the earliest of equals."""
    places = range(len(dense.found[target]["rounds"]))
    return min(places, key=lambda place: abs(dense.errors(target, place)[1] - mae))


def _attacked(work: Work, family: Family, target: int, place: int) -> dict:
    """What every attack finds of one model after one round; from the folder where it stands already."""
    round_, name = int(family.found[target]["rounds"][place]), family.folder.name
    file = work.workdir / "audits" / f"{name}-round{round_}-target{target}.json"
    if not file.exists():
        work.say(f"attack: {name}, round {round_}, target {target + 1} of {len(family.found)}")
        file.parent.mkdir(parents=True, exist_ok=True)
        metrics_log.write_json(file, attacked(family, target, place, work.data, work.draws))
    return metrics_log.read_json(file)


def attacked(family: Family, target: int, place: int, data, draws: int) -> dict:
    """What every attack finds of one model, by an outsider who knows half of the people on either side."""
    inside = family.found[target]["inside"]
    threat = threats.outsider([np.flatnonzero(inside)], np.flatnonzero(~inside), seed=target)
    folder = family.folder / f"shadow-{target}"
    _, network, _ = build.trained(folder)
    models = (snapshot(folder, family.found[target]["rounds"][: place + 1].tolist()),)
    observe = features.observer(network.apply, models, data.inputs, data.targets)
    others = [one for t, one in enumerate(family.found) if t != target]
    shadows = Shadows(*(np.stack([pick(one) for one in others]) for pick in (
        lambda one: one["predictions"][place], lambda one: one["inside"])))  # fmt: skip
    held = threats.given(threat, models, observe, data.targets, shadows)
    findings = evaluate.audit(held, threat.inside, draws=draws)
    train, test = family.errors(target, place)
    return {
        "round": int(family.found[target]["rounds"][place]),
        "train_mae": train,
        "test_mae": test,
        "attacks": {name: _numbers(finding) for name, finding in findings.items()},
    }


def _numbers(finding: evaluate.Finding) -> dict:
    if finding.everybody is None:
        return {"refused": finding.refused}
    matched = finding.age_matched
    return {
        "auc": finding.everybody.auc.value,
        "tpr": finding.everybody.tpr["0.01"].value,
        "age_matched_auc": None if matched is None else matched.auc.value,
    }


def snapshot(folder: Path, rounds: list[int]) -> Snapshot:
    """The model after the last of the rounds, with the newest that is denser, or, if none is, that of a round ago."""
    state, before = build.trained(folder, rounds[-1])[2], None
    kept = lambda one: int(masks.kept(one.masks).sum())
    whole = tree.size(state.masks)
    for round_ in reversed(rounds[:-1]):
        older = build.trained(folder, round_)[2]
        denser = kept(older) > kept(state)
        if before is None or denser:
            before = masks.apply(older.masks, older.params)
        if denser or kept(state) == whole:
            break
    return Snapshot(masks.apply(state.masks, state.params), state.masks, before)


# --- over the targets ---------------------------------------------------------------------------


def best(records: list[dict], target: int) -> str:
    """The attack with the highest mean AUC on the *other* targets, among those that ran on all of them."""
    others = [record["attacks"] for t, record in enumerate(records) if t != target]
    ran = [
        n for n in records[target]["attacks"] if n != "age_alone" and all("auc" in one[n] for one in others)
    ]
    ran = [n for n in ran if "auc" in records[target]["attacks"][n]]
    if not ran:
        raise UsageError("attack: no attack ran on all targets.")
    return max(ran, key=lambda n: np.mean([one[n]["auc"] for one in others]))


def spread(values) -> dict | None:
    """Mean and half the 95 % interval (Student's t over the targets); None where a value is refused.

    >>> {k: round(v, 2) for k, v in spread([1.0, 2.0, 3.0]).items()}
    {'mean': 2.0, 'half': 2.48}
    """
    values = list(values)
    if any(value is None for value in values):
        return None
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return {"mean": float(np.mean(values)), "half": float(scipy.stats.t.ppf(0.975, len(values) - 1) * error)}


def level(name: str, records: list[dict], matched: list[dict] | None) -> dict:
    """One family: means and intervals over the targets, of the best attack and of each."""
    names = [best(records, target) for target in range(len(records))]
    ours = [record["attacks"][name] for record, name in zip(records, names, strict=True)]
    every = {n: [record["attacks"][n].get("auc") for record in records] for n in records[0]["attacks"]}
    found = {
        "name": name,
        "best": names,
        "rounds": [record["round"] for record in records],
        "auc": spread(one["auc"] for one in ours),
        "tpr": spread(one["tpr"] for one in ours),
        "age_matched_auc": spread(one["age_matched_auc"] for one in ours),
        "test_mae": spread(record["test_mae"] for record in records),
        "gap": spread(record["test_mae"] - record["train_mae"] for record in records),
        "attacks": {name: spread(values) for name, values in every.items()},
    }
    if matched is not None:
        theirs = [one["attacks"][best(matched, t)]["auc"] for t, one in enumerate(matched)]
        found["matched_rounds"] = [one["round"] for one in matched]
        found["matched_mae"] = spread(one["test_mae"] for one in matched)
        found["matched_auc"] = spread(theirs)
        found["difference"] = spread(a["auc"] - b for a, b in zip(ours, theirs, strict=True))
    return found


def tables(levels: list[dict], defences: list[dict]) -> str:
    """All families as Markdown: mean ± half of the 95 % interval over the targets, then every attack's AUC."""
    rows = levels + defences
    attacks = list(rows[0]["attacks"])
    each = [[one["name"], *(_text(one["attacks"][n], 3) for n in attacks)] for one in rows]
    title = "AUC of every attack (`age_alone` is the control that looks at no model):"
    first = audit_tables.markdown(HEAD + MATCHED, [_row(one) for one in rows])
    return f"{first}\n{title}\n\n{audit_tables.markdown(('model', *attacks), each)}"


def _row(one: dict) -> list[str]:
    row = [one["name"], ", ".join(sorted(set(one["best"])))]
    row += [_text(one[key], 3) for key in ("auc", "age_matched_auc", "tpr")]
    row += [_text(one["test_mae"], 2), _text(one["gap"], 2)]
    rounds = one.get("matched_rounds")
    row.append("–" if rounds is None else f"{min(rounds)} to {max(rounds)}")
    places = (("matched_mae", 2), ("matched_auc", 3), ("difference", 3))
    return row + [_text(one.get(key), digits) for key, digits in places]


def _text(value: dict | None, digits: int) -> str:
    return "–" if value is None else f"{value['mean']:.{digits}f} ± {value['half']:.{digits}f}"

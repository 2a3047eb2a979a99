"""The claim, tested: does sparsity hide members, or only the accuracy that it costs?

At each sparsity some models are trained on random halves of all people (`shadowing`), and each is the target in its
turn, with the others as its shadows. Beside each sparse target stands the dense model of the same half, stopped in
the round whose test error is nearest. Everything that is finished is kept in the folder and not done again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.stats

from fedsparse_jax import build, figures, leaks, log, masks, shadowing, tree
from fedsparse_jax.attacks import audit, features, threats
from fedsparse_jax.attacks.evidence import Shadows, Snapshot
from fedsparse_jax.types import UsageError

PERCENTS = ("0", "50", "80", "90", "95", "99")
HEAD = ("sparsity", "targets", "best attacks", "AUC", "TPR at 1 % FPR", "test MAE (y)", "gap (y)")
MATCHED = ("dense, stopped: round", "its test MAE (y)", "its AUC", "AUC, sparse minus stopped dense")


class Family(NamedTuple):
    """The models of one sparsity and what they predict for everybody."""

    name: str
    folder: Path
    found: list[dict[str, np.ndarray]]  # see `shadowing.write_everybody`

    def errors(self, target: int, place: int) -> tuple[float, float]:
        """Train and test MAE of a target after the round at that place."""
        one = self.found[target]
        off = np.abs(one["predictions"][place] - one["targets"])
        return float(off[one["inside"]].mean()), float(off[~one["inside"]].mean())


def run(
    workdir: Path,
    spec: str = "configs/audit.py",
    *,
    percents=PERCENTS,
    targets: int = 8,
    form: str = "",
    draws: int = 200,
    say: Callable[[str], None] = print,
    track=build.plain,
) -> dict:
    """Trains, attacks and writes ``study.json``, ``study.md`` and ``study.png``; returns what is in the first.

    Args:
        workdir: of the study.
        spec: a config file whose forms are sparsities in percent.
        percents: these sparsities; the first one is 0, the dense model that the others are matched with.
        targets: models at each sparsity, an even number.
        form: a further form of the config, such as ``smoke``.
        draws: of the bootstrap of each target; the intervals of the study are over targets.
        say: told what goes on.
        track: progress of reading scans.
    """
    if not percents or percents[0] != "0":
        raise UsageError("attack: the sparsities of a study begin with 0, the dense model.")
    families = []
    for percent in percents:
        config = build.load(f"{spec}:{'+'.join(filter(None, (percent, form)))}")
        config.checkpoint.keep, config.checkpoint.every, config.log.tensorboard = config.rounds, 1, False
        say(f"sparsity {percent} %")
        folder = workdir / f"sparsity-{percent}"
        shadowing.train(config, folder, targets, say=say, track=track)
        families.append(Family(percent, folder, shadowing.read(folder)))
    data, _ = build.federation(config, track)
    levels = []
    for family in families:
        attacked = [_last(family, t) for t in range(targets)]
        records = [_attacked(workdir, family, t, at, data, draws, say) for t, at in enumerate(attacked)]
        matched = None
        if family.name != "0":
            places = [nearest(families[0], t, family.errors(t, attacked[t])[1]) for t in range(targets)]
            matched = [
                _attacked(workdir, families[0], t, at, data, draws, say) for t, at in enumerate(places)
            ]
        levels.append(level(float(family.name) / 100, records, matched))
        found = {"levels": levels, "targets": targets, "config": f"{spec}:{form}".rstrip(":")}
        log.write_json(workdir / "study.json", found)
        log.write_text(workdir / "study.md", table(levels))
    (workdir / "study.png").write_bytes(figures.render(leaks.by_sparsity(levels), "png"))
    return found


def nearest(dense: Family, target: int, mae: float) -> int:
    """The place of the round after which the dense target's test MAE is nearest to ``mae``, the earliest of equals."""
    places = range(len(dense.found[target]["rounds"]))
    return min(places, key=lambda place: abs(dense.errors(target, place)[1] - mae))


def _last(family: Family, target: int) -> int:
    return len(family.found[target]["rounds"]) - 1


def _attacked(workdir: Path, family: Family, target: int, place: int, data, draws: int, say) -> dict:
    """What every attack finds of one model after one round; from the folder where it stands already."""
    round_ = int(family.found[target]["rounds"][place])
    file = workdir / "audits" / f"sparsity-{family.name}-round{round_}-target{target}.json"
    if file.exists():
        return log.read_json(file)
    say(f"attack: sparsity {family.name} %, round {round_}, target {target + 1} of {len(family.found)}")
    file.parent.mkdir(parents=True, exist_ok=True)
    record = attacked(family, target, place, data, draws)
    log.write_json(file, record)
    return log.read_json(file)


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
    findings = audit.audit(held, threat.inside, draws=draws)
    train, test = family.errors(target, place)
    return {
        "round": int(family.found[target]["rounds"][place]),
        "train_mae": train,
        "test_mae": test,
        "attacks": {name: _numbers(finding) for name, finding in findings.items()},
    }


def _numbers(finding: audit.Finding) -> dict:
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


def level(sparsity: float, records: list[dict], matched: list[dict] | None) -> dict:
    """One sparsity: means and intervals over the targets, of the best attack and of each."""
    names = [best(records, target) for target in range(len(records))]
    ours = [record["attacks"][name] for record, name in zip(records, names, strict=True)]
    every = {n: [record["attacks"][n].get("auc") for record in records] for n in records[0]["attacks"]}
    found = {
        "sparsity": sparsity,
        "targets": len(records),
        "best": names,
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


def table(levels: list[dict]) -> str:
    """All levels as Markdown: mean ± half of the 95 % interval over the targets, then every attack's AUC."""
    rows = []
    for one in levels:
        row = [f"{one['sparsity']:g}", str(one["targets"]), ", ".join(sorted(set(one["best"])))]
        row += [_text(one["auc"], 3), _text(one["tpr"], 3), _text(one["test_mae"], 2), _text(one["gap"], 2)]
        rounds = one.get("matched_rounds")
        row.append("–" if rounds is None else f"{min(rounds)} to {max(rounds)}")
        row += [
            _text(one.get(key), d) for key, d in (("matched_mae", 2), ("matched_auc", 3), ("difference", 3))
        ]
        rows.append(row)
    attacks = list(levels[0]["attacks"])
    each = [[f"{one['sparsity']:g}", *(_text(one["attacks"][n], 3) for n in attacks)] for one in levels]
    title = "AUC of every attack (`age_alone` is the control that looks at no model):"
    return (
        f"{leaks.markdown(HEAD + MATCHED, rows)}\n{title}\n\n{leaks.markdown(('sparsity', *attacks), each)}"
    )


def _text(value: dict | None, digits: int) -> str:
    return "–" if value is None else f"{value['mean']:.{digits}f} ± {value['half']:.{digits}f}"

"""The audit of a finished run: who attacks whom, with the models that the run has kept, and what comes of it.

The run folder is opened as it was trained: data, split and clients come from its ``config.json``, models from its
checkpoints. What a client sent is not stored; it is trained again from the checkpoint before, which gives the same
up to rounding.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fedsparse_jax.attacks import evaluate, features, statistics, threats
from fedsparse_jax.attacks.evidence import Shadows, Snapshot
from fedsparse_jax.attacks.membership import ATTACKS
from fedsparse_jax.config import build
from fedsparse_jax.core import masks
from fedsparse_jax.core.types import ServerState, UsageError
from fedsparse_jax.data import batching
from fedsparse_jax.reporting import audit_tables
from fedsparse_jax.runs import loop, metrics_log
from fedsparse_jax.studies import shadow_models

FILE = "attack.json"
THREATS = ("outsider", "client", "server")
Found = Mapping[str, Mapping[str, evaluate.Finding]]  # by threat, by attack


class Opened(NamedTuple):
    """A run folder, opened for an audit."""

    experiment: loop.Experiment
    compiled: loop.Compiled
    read: Callable
    states: list[ServerState]  # after each kept round, oldest first


class Options(NamedTuple):
    """How an audit is done."""

    known: float = 0.5  # share of the members whom an outsider or the server knows
    models: int = 5  # how many communicated models an attacker keeps, at most
    attacks: tuple[str, ...] = ()  # names; none for all
    draws: int = 1000  # of the bootstrap
    caliper: float = 1.0  # years, of the age-matched control


USUAL = Options()


def open_run(workdir: Path, track=build.plain) -> Opened:
    """Opens a run folder with every checkpoint it holds.

    Raises:
        UsageError: it holds no run, no checkpoint, a shadow, or a classifier.
    """
    config, _, _ = build.trained(workdir)
    if config.task != "regression":
        raise UsageError(f"{workdir} holds a classifier; the attacks are for regressors.")
    if "shadow" in config:
        raise UsageError(f"{workdir} holds a shadow; give the run that it is a shadow of.")
    opened = build.experiment(config, track)
    states = [build.trained(workdir, round_)[2] for round_ in shadow_models.kept(workdir)]
    return Opened(opened, loop.compile_(opened), loop.reader(opened), states)


def community(states: list[ServerState], models: int) -> tuple[Snapshot, ...]:
    """The newest global models, each with the one of the kept round before it, oldest first."""
    params = [masks.apply(state.masks, state.params) for state in states]
    chain = [Snapshot(p, s.masks, b) for p, s, b in zip(params[1:], states[1:], params[:-1], strict=True)]
    return tuple(chain[-models:]) or (Snapshot(params[-1], states[-1].masks),)


def updates(run: Opened, victim: int, models: int) -> tuple[Snapshot, ...]:
    """What a client sent in the rounds after the kept ones, oldest first.

    Raises:
        UsageError: too few checkpoints, or the client took part in none of these rounds.
    """
    sent = []
    for state in run.states[:-1][-models:]:
        round_ = int(state.round) + 1
        if victim not in loop.sample(run.experiment, round_):
            continue
        ids = np.array([victim], np.int32)
        trained = loop.train_clients(run.experiment, run.compiled, run.read, state, round_, ids)
        params, kept = jax.tree.map(lambda leaf: leaf[0], trained.sent[:2])
        sent.append(Snapshot(params, kept, masks.apply(state.masks, state.params)))
    if not sent:
        raise UsageError(
            f"attack: no update of client {victim + 1} can be had from the kept checkpoints; raise checkpoint.keep."
        )
    return tuple(sent)


def untrained(run: Opened, models: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
    """As many fresh networks under the same masks, for the control."""
    made = []
    for place, model in enumerate(models):
        params = run.compiled.init(
            jax.random.fold_in(jax.random.key(run.experiment.seed), 1000 + place)
        ).params
        before = None if model.before is None else params
        made.append(Snapshot(masks.apply(model.masks, params), model.masks, before))
    return tuple(made)


def scenarios(
    run: Opened, threat: str, options: Options
) -> list[tuple[threats.Threat, tuple[Snapshot, ...]]]:
    """Every attacker and victim of a threat model, with the models that reach the attacker."""
    members, test = run.experiment.data.members, run.experiment.data.test
    if threat == "outsider":
        models = community(run.states, 1)
        return [(threats.outsider(members, test, known=options.known), models)]
    if threat == "client":
        if len(members) < 2:
            raise UsageError(
                "attack: this run has one client, who has nobody to attack; try --threat=outsider."
            )
        models = community(run.states, options.models)
        return [(one, models) for one in threats.clients(members, test, models=options.models)]
    if threat != "server":
        raise UsageError(f"attack: there is no threat {threat!r}; it must be one of {', '.join(THREATS)}.")
    known, models_ = options.known, options.models
    return [
        (threats.server(members, test, victim, known=known, models=models_), updates(run, victim, models_))
        for victim in range(len(members))
    ]


def check(options: Options) -> None:
    """Refuses numbers that cannot be."""
    if not 0 <= options.known < 1:
        raise UsageError(f"attack: known is {options.known}: it must be at least 0 and below 1.")
    for name, value in (("models", options.models), ("draws", options.draws)):
        if value < 1:
            raise UsageError(f"attack: {name} is {value}: it must be at least 1.")


def chosen(names: tuple[str, ...]) -> dict:
    """The attacks asked for, and the control by age.

    Raises:
        UsageError: an unknown name.
    """
    everything = evaluate.default_attacks()
    for name in names:
        if name not in everything:
            raise UsageError(f"attack: there is no attack {name!r}; it must be one of {', '.join(ATTACKS)}.")
    return {n: attack for n, attack in everything.items() if not names or n in names or n == "age_alone"}


def attack(
    workdir: Path,
    threat: str = "outsider",
    *,
    shadows: Path | None = None,
    other: Path | None = None,
    options: Options = USUAL,
    say: Callable[[str], None] = print,
    track=build.plain,
) -> dict:
    """Audits a run; returns what ``attack.json`` then holds of this threat, beside those that were tried before.

    Args:
        workdir: a folder of scripts/train.py.
        threat: ``outsider``, ``client`` (all ordered pairs) or ``server`` (every client is a victim).
        shadows: folder of scripts/shadows.py; None refuses the attacks that need them.
        other: a run on the same people with another seed, for a control.
        options: how.
        say: told what goes on.
        track: progress of reading scans.
    """
    check(options)
    attacks, run = chosen(options.attacks), open_run(workdir, track)
    data, began = run.experiment.data, time.monotonic()
    held = None if shadows is None else shadow_models.last(shadows, data.targets)
    played = scenarios(run, threat, options)
    stand_ins = {"untrained": lambda models: untrained(run, models)}
    if other is not None:
        stranger = _stranger(other, data, track)
        stand_ins["other seed"] = lambda models: community(stranger.states, len(models))
    found = _audit(run, played, held, attacks, options, say)
    beside = {
        name: _audit(run, played, held, attacks, options, lambda what, n=name: say(f"{what}, {n}"), stand_in)
        for name, stand_in in stand_ins.items()
    }
    record = {
        "threat": threat,
        "round": int(run.states[-1].round),
        **errors(run),
        **spent(workdir, run),
        "shadows": 0 if held is None else len(held.inside),
        "options": options._asdict(),
        "threats": {name: _plain(findings) for name, findings in found.items()},
        "controls": {k: {name: _plain(one) for name, one in v.items()} for k, v in beside.items()},
        "roc": _curves(found, {one.name: one.inside for one, _ in played}),
        "seconds": round(time.monotonic() - began, 1),
    }
    before = metrics_log.read_json(workdir / FILE) if (workdir / FILE).exists() else {}
    metrics_log.write_json(workdir / FILE, {**before, threat: record})
    return metrics_log.read_json(workdir / FILE)[threat]


def errors(run: Opened) -> dict[str, float]:
    """Train and test MAE of the newest model, and the gap that attacks live on."""
    data, params = run.experiment.data, run.states[-1].params
    mae = []
    for rows in (np.concatenate(data.members), data.test):
        predictions = batching.predict(run.compiled.apply, params, run.read, rows, run.experiment.eval_batch)
        mae.append(float(np.abs(predictions - data.targets[rows]).mean()))
    return {"train_mae": mae[0], "test_mae": mae[1], "gap": mae[1] - mae[0]}


def spent(workdir: Path, run: Opened) -> dict[str, float]:
    """What private training promises, beside what attacks find; nothing where training was not private."""
    logged = [record for record in metrics_log.read(workdir) if record["round"] == int(run.states[-1].round)]
    if not logged or "epsilon" not in logged[0]:
        return {}
    return {"epsilon": logged[0]["epsilon"], "delta": run.experiment.config["privacy"]["delta"]}


def _stranger(workdir: Path, data: batching.Federation, track) -> Opened:
    stranger = open_run(workdir, track)
    theirs = stranger.experiment.data
    if not np.array_equal(theirs.targets, data.targets):
        raise UsageError(f"{workdir} was trained on other people; --other must differ in its seed only.")
    if np.array_equal(np.sort(theirs.test), np.sort(data.test)):
        raise UsageError(f"{workdir} has the same test set; --other must have another seed.")
    return stranger


def _audit(
    run: Opened, played, shadows: Shadows | None, attacks, options: Options, say, stand_in=None
) -> Found:
    """Every attack of every threat; with ``stand_in`` on other models in place of those that reached the attacker."""
    data = run.experiment.data
    observers: dict[int, tuple[tuple[Snapshot, ...], Callable]] = {}
    found: dict[str, Mapping[str, evaluate.Finding]] = {}
    for number, (threat, models) in enumerate(played, 1):
        if len(played) > 1:
            say(f"{threat.name}, {number} of {len(played)}")
        if id(models) not in observers:  # threats that see the same models share what is computed of them
            shown = models if stand_in is None else stand_in(models)
            looks = features.observer(run.experiment.model.apply, shown, data.inputs, data.targets)
            observers[id(models)] = shown, looks
        evidence = threats.given(threat, *observers[id(models)], data.targets, shadows)
        tell = (lambda name: say(f"attack: {name}")) if len(played) == 1 else lambda _: None
        found[threat.name] = evaluate.audit(
            evidence, threat.inside, attacks, caliper=options.caliper, draws=options.draws, say=tell
        )
    return found


def _plain(findings: Mapping[str, evaluate.Finding]) -> dict:
    """Findings as JSON holds them, without the scores of people."""
    return {
        name: {
            "refused": finding.refused,
            "everybody": _outcome(finding.everybody),
            "age_matched": _outcome(finding.age_matched),
        }
        for name, finding in findings.items()
    }


def _outcome(outcome: statistics.Outcome | None) -> dict | None:
    if outcome is None:
        return None
    fields = outcome._asdict()
    plain = lambda value: value._asdict() if isinstance(value, statistics.Estimate) else value
    return {
        k: {fpr: plain(one) for fpr, one in v.items()} if k == "tpr" else plain(v) for k, v in fields.items()
    }


def _curves(found: Found, inside: Mapping[str, np.ndarray]) -> dict:
    """TPR on a grid of FPRs, the mean over the threats; None where non-members are too few for the FPR."""
    curves: dict[str, dict] = {}
    for name in next(iter(found.values())):
        rates = []
        for who, findings in found.items():
            if findings[name].scores is not None:
                members, outsiders = statistics.split(findings[name].scores, inside[who])
                supported = audit_tables.GRID * len(outsiders) >= 1
                at = [statistics.tpr_at(members, outsiders, fpr) for fpr in audit_tables.GRID]
                rates.append(np.where(supported, at, np.nan))
        if rates:
            mean = np.mean(rates, axis=0)
            curves[name] = {
                "fpr": audit_tables.GRID.tolist(),
                "tpr": [None if np.isnan(v) else float(v) for v in mean],
            }
    return curves

"""The audit of a finished run: who attacks whom, with the models that the run has kept, and what comes of it.

The run folder is opened as it was trained: data, split and clients come from its ``config.json``, models from its
checkpoints. What a client sent is not stored; it is trained again from the checkpoint before, and sent through the same
messages, which gives the same up to rounding.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedsparse_jax.attacks import statistics, threats
from fedsparse_jax.attacks.evaluate import Finding, default_attacks, evaluate_attacks
from fedsparse_jax.attacks.evidence import Attack, Shadows, Snapshot
from fedsparse_jax.attacks.features import feature_cache
from fedsparse_jax.attacks.membership import ATTACKS
from fedsparse_jax.communication.transport import load_records
from fedsparse_jax.config.build import experiment_from_config
from fedsparse_jax.config.checks import check_auditable
from fedsparse_jax.config.saved_runs import load_run, saved_rounds, upgrade_config
from fedsparse_jax.config.scans import no_progress
from fedsparse_jax.core import masks
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json, write_json
from fedsparse_jax.core.types import ServerState
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.loading import predict_batches
from fedsparse_jax.runs.faults import Faults
from fedsparse_jax.runs.metrics_log import read_records
from fedsparse_jax.runs.records import UNSENT
from fedsparse_jax.runs.round import Runner, exchange_models, make_runner, sample_cohort
from fedsparse_jax.runs.run_dir import client_records, noise_entropy, stored_config
from fedsparse_jax.studies.shadow_models import last_shadows

FILE = "attack.json"
THREATS = ("outsider", "client", "server")
FPR_GRID = np.logspace(-3, 0, 61)
Findings = Mapping[str, Mapping[str, Finding]]  # by threat, by attack
Attackers = list[tuple[threats.Threat, tuple[Snapshot, ...]]]  # with the models that reach each of them


class LoadedRun(NamedTuple):
    """A run folder, opened for an audit."""

    workdir: Path
    runner: Runner
    states: list[ServerState]  # after each kept round, oldest first

    @property
    def data(self) -> Federation:
        """Who holds what."""
        return self.runner.experiment.federation


class AuditOptions(NamedTuple):
    """How an audit is done."""

    known: float = 0.5  # share of the members whom an outsider or the server knows
    models: int = 5  # how many communicated models an attacker keeps, at most
    attacks: tuple[str, ...] = ()  # names; none for all
    draws: int = 1000  # of the bootstrap
    caliper: float = 1.0  # years, of the age-matched control


def audit_run(
    workdir: Path,
    threat: str = "outsider",
    *,
    shadows: Path | None = None,
    other: Path | None = None,
    round_: int | None = None,
    options: AuditOptions | None = None,
    print_fn: Callable[[str], None] = print,
    progress=no_progress,
) -> dict[str, Any]:
    """Audits a run; returns what ``attack.json`` then holds of this threat, beside those that were tried before.

    Args:
        workdir: a folder of scripts/train.py.
        threat: ``outsider``, ``client`` (all ordered pairs) or ``server`` (every client is a victim).
        shadows: folder of scripts/train_shadows.py; None refuses the attacks that need them.
        other: a run on the same people with another seed, for a control.
        round_: whose model is the last that reaches an attacker; None for the newest.
        options: how; None for the defaults.
        print_fn: told what goes on.
        progress: shown while scans are read.
    """
    options = options or AuditOptions()
    check_options(options)
    attacks, began = choose_attacks(options.attacks), time.monotonic()
    run = load_audited_run(workdir, progress, round_)
    shadow_models = None if shadows is None else last_shadows(shadows, upgrade_config(stored_config(workdir)), run.data)
    who = attackers(run, threat, options)
    stand_ins = {"untrained": lambda models: untrained_snapshots(run, models)}
    if other is not None:
        control = load_control_run(other, run.data, progress)
        stand_ins["other seed"] = lambda models: _snapshots_like(models, control.states)
    attack = lambda print_fn, stand_in=None: _attack_all(run, who, shadow_models, attacks, options, print_fn, stand_in)
    findings = attack(print_fn)
    controls = {
        name: attack(lambda what, name=name: print_fn(f"{what}, {name}"), stand_in)
        for name, stand_in in stand_ins.items()
    }
    record = {
        "threat": threat,
        "round": int(run.states[-1].round),
        **errors_of_run(run),
        **_privacy_spent(workdir, run),
        "shadows": 0 if shadow_models is None else len(shadow_models.inside),
        "options": options._asdict(),
        "threats": {name: _to_json(found) for name, found in findings.items()},
        "controls": {
            control: {name: _to_json(found) for name, found in by_threat.items()}
            for control, by_threat in controls.items()
        },
        "roc": _mean_curves(findings),
        "seconds": round(time.monotonic() - began, 1),
    }
    before = read_json(workdir / FILE) if (workdir / FILE).exists() else {}
    write_json(workdir / FILE, {**before, threat: record})
    return read_json(workdir / FILE)[threat]


# --- the run ------------------------------------------------------------------------------------


def load_audited_run(workdir: Path, progress=no_progress, round_: int | None = None) -> LoadedRun:
    """Opens a run folder with every checkpoint it holds, up to that of ``round_`` if there is one.

    Raises:
        UsageError: it holds no run, no checkpoint, not the one asked for, or a shadow.
    """
    config, _, newest = load_run(workdir, round_)
    rounds = [one for one in saved_rounds(workdir) if round_ is None or one <= int(newest.round)]
    if "shadow" in config:
        raise UsageError(f"{workdir} holds a shadow; give the run that it is a shadow of.")
    check_auditable(config)
    runner = make_runner(experiment_from_config(config, progress, workdir=workdir), noise_entropy(workdir))
    return LoadedRun(workdir, runner, [load_run(workdir, one)[2] for one in rounds])


def load_control_run(workdir: Path, data: Federation, progress) -> LoadedRun:
    """A run on the same people with another split, whose models know nothing of who was in this one."""
    control = load_audited_run(workdir, progress)
    scans = lambda of: [(row["participant_id"], row["session"]) for row in of.people]
    if scans(control.data) != scans(data) or not np.array_equal(control.data.targets, data.targets):
        raise UsageError(f"{workdir} was trained on other people; --other must differ in its seed only.")
    if np.array_equal(np.sort(control.data.test), np.sort(data.test)):
        raise UsageError(f"{workdir} has the same test set; --other must have another seed.")
    return control


def errors_of_run(run: LoadedRun) -> dict[str, Any]:
    """Headline measure of the newest model on train and test people, and the gap that attacks live on, in ``unit``."""
    params, experiment = run.states[-1].params, run.runner.experiment
    task, values = experiment.task, []
    for rows in (np.concatenate(run.data.members), run.data.test):
        predictions = predict_batches(run.runner.apply, params, run.runner.read, rows, experiment.execution.eval_batch)
        values.append(task.measure(predictions, run.data.targets[rows])[task.headline])
    gap = (values[1] - values[0]) * (1 if task.lower_is_better else -1)
    return {f"train_{task.headline}": values[0], f"test_{task.headline}": values[1], "gap": gap, "unit": task.unit}


def _privacy_spent(workdir: Path, run: LoadedRun) -> dict[str, float]:
    """What private training promises, beside what attacks find; nothing where training was not private."""
    last = [record for record in read_records(workdir) if record.round == int(run.states[-1].round)]
    if not last or last[0].epsilon is None:
        return {}
    return {"epsilon": last[0].epsilon, "delta": run.runner.experiment.config["privacy"]["delta"]}


# --- who attacks whom ---------------------------------------------------------------------------


def attackers(run: LoadedRun, threat: str, options: AuditOptions) -> Attackers:
    """Every attacker and victim of a threat model, with the models that reach the attacker.

    Raises:
        UsageError: an unknown threat, or a federation of one client, who has nobody to attack.
    """
    members, test, known, models = run.data.members, run.data.test, options.known, options.models
    who = run.data.person_of_row
    if threat == "outsider":
        outsider = threats.outsider_attacks(members, test, known=known, who=who)
        return [(outsider, (global_snapshot(run.states[-1]),))]
    if threat == "client":
        if len(members) < 2:
            raise UsageError("This run has one client, who has nobody to attack; try --threat=outsider.")
        shared = global_snapshots(run.states, models)
        return [(one, shared) for one in threats.every_pair_of_clients(members, test, models=models, who=who)]
    if threat != "server":
        raise UsageError(f"There is no threat {threat!r}; it must be one of {', '.join(THREATS)}.")
    return [
        (
            threats.server_attacks_client(members, test, victim, known=known, models=models, who=who),
            client_snapshots(run, victim, models),
        )
        for victim in range(len(members))
    ]


def global_snapshot(state: ServerState) -> Snapshot:
    """A global model alone, as somebody outside gets it."""
    return Snapshot(masks.apply(state.masks, state.params), state.masks)


def global_snapshots(states: list[ServerState], models: int) -> tuple[Snapshot, ...]:
    """The newest global models, oldest first, each but the first with the one of the kept round before it."""
    received = [global_snapshot(state) for state in states[-models:]]
    return tuple(
        one._replace(before=earlier.params if earlier else None)
        for one, earlier in zip(received, [None, *received[:-1]], strict=True)
    )


def _snapshots_like(models: tuple[Snapshot, ...], states: list[ServerState]) -> tuple[Snapshot, ...]:
    """The newest global models of another run, in which an attacker sees no more than in ``models``."""
    others = global_snapshots(states, len(models))
    return tuple(other if model.before else other._replace(before=None) for model, other in zip(models, others))


def client_snapshots(run: LoadedRun, victim: int, models: int) -> tuple[Snapshot, ...]:
    """What a client sent in the rounds after the kept ones, oldest first.

    Raises:
        UsageError: too few checkpoints, or nothing arrived of the client in any of these rounds.
    """
    snapshots = []
    logged = {record.round: record for record in read_records(run.workdir)}
    runner = run.runner._replace(experiment=run.runner.experiment._replace(faults=Faults()))  # it arrived: see the log
    for state in run.states[:-1][-models:]:
        round_ = int(state.round) + 1
        silent = {client for reason in UNSENT for client in logged[round_].left_out.get(reason, ())}
        if victim not in sample_cohort(runner.experiment, round_) or victim in silent:
            continue
        known = load_records(client_records(run.workdir), int(state.round), state.masks)
        sent = exchange_models(runner, state, round_, np.array([victim], np.int32), known).received
        params, mask = jax.tree.map(lambda leaf: leaf[0], sent[:2])
        snapshots.append(Snapshot(params, mask, masks.apply(state.masks, state.params)))
    if not snapshots:
        raise UsageError(
            f"No update of client {victim + 1} can be had from the kept checkpoints; raise checkpoint.keep."
        )
    return tuple(snapshots)


def untrained_snapshots(run: LoadedRun, models: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
    """As many fresh networks under the same masks, for the control."""
    fresh = []
    for place, model in enumerate(models):
        key = jax.random.fold_in(jax.random.key(run.runner.experiment.seed), 1000 + place)
        params = run.runner.algorithm.init(key).params
        before = None if model.before is None else params
        fresh.append(Snapshot(masks.apply(model.masks, params), model.masks, before))
    return tuple(fresh)


# --- the attacks --------------------------------------------------------------------------------


def check_options(options: AuditOptions) -> None:
    """Refuses numbers that cannot be."""
    if not 0 <= options.known < 1:
        raise UsageError(f"--known is {options.known}: it must be at least 0 and below 1.")
    for name, value in (("models", options.models), ("draws", options.draws)):
        if value < 1:
            raise UsageError(f"--{name} is {value}: it must be at least 1.")


def choose_attacks(names: tuple[str, ...]) -> dict[str, Attack]:
    """The attacks asked for, and the control by age.

    Raises:
        UsageError: an unknown name.
    """
    everything = default_attacks()
    for name in names:
        if name not in everything:
            raise UsageError(f"There is no attack {name!r}; it must be one of {', '.join(ATTACKS)}.")
    return {n: attack for n, attack in everything.items() if not names or n in names or n == "age_alone"}


def _attack_all(
    run: LoadedRun,
    who: Attackers,
    shadows: Shadows | None,
    attacks: Mapping[str, Attack],
    options: AuditOptions,
    print_fn: Callable[[str], None],
    stand_in: Callable | None = None,
) -> Findings:
    """Every attack of every threat; with ``stand_in`` on other models in place of those that reached the attacker."""
    data, apply = run.data, run.runner.experiment.model.apply
    shown: dict[int, tuple[tuple[Snapshot, ...], Callable]] = {}
    findings: dict[str, Mapping[str, Finding]] = {}
    for number, (threat, models) in enumerate(who, 1):
        if len(who) > 1:
            print_fn(f"{threat.name}, {number} of {len(who)}")
        if id(models) not in shown:  # threats that see the same models share what is computed of them
            seen = models if stand_in is None else stand_in(models)
            shown[id(models)] = seen, feature_cache(apply, seen, data.inputs, data.targets)
        seen, observe = shown[id(models)]
        who_is = data.person_of_row
        evidence = threats.evidence_for(threat, seen, observe, data.targets, shadows, who_is, bool(data.classes))
        tell = (lambda name: print_fn(f"attack: {name}")) if len(who) == 1 else lambda _: None
        findings[threat.name] = evaluate_attacks(
            evidence, threat.inside, attacks, caliper=options.caliper, draws=options.draws, print_fn=tell
        )
    return findings


# --- as JSON ------------------------------------------------------------------------------------


def _to_json(findings: Mapping[str, Finding]) -> dict[str, Any]:
    """Findings as JSON holds them, without the scores of people."""
    return {
        name: {
            "refused": finding.refused,
            "everybody": _outcome_to_json(finding.everybody),
            "age_matched": _outcome_to_json(finding.age_matched),
        }
        for name, finding in findings.items()
    }


def _outcome_to_json(outcome: statistics.Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    plain = lambda value: value._asdict() if isinstance(value, statistics.Estimate) else value
    return {
        name: {fpr: plain(one) for fpr, one in value.items()} if name == "tpr" else plain(value)
        for name, value in outcome._asdict().items()
    }


def _mean_curves(findings: Findings) -> dict[str, Any]:
    """TPR on a grid of FPRs, the mean over the threats; None where non-members are too few for the FPR."""
    curves: dict[str, Any] = {}
    for name in next(iter(findings.values())):
        rates = []
        for by_attack in findings.values():
            scores = by_attack[name].scores
            if scores is not None:
                members, outsiders = statistics.split_scores(scores, by_attack[name].inside)
                supported = FPR_GRID * len(outsiders) >= 1
                tpr = [statistics.tpr_at(members, outsiders, fpr) for fpr in FPR_GRID]
                rates.append(np.where(supported, tpr, np.nan))
        if rates:
            mean = np.mean(rates, axis=0)
            known = [None if np.isnan(value) else float(value) for value in mean]
            curves[name] = {"fpr": FPR_GRID.tolist(), "tpr": known}
    return curves

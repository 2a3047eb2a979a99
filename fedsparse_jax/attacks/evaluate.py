"""Every attack on the same evidence, judged: what an attacker could do, what he lacks, and what age alone does."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedsparse_jax.attacks import controls, features, statistics, threats
from fedsparse_jax.attacks.evidence import Attack, Evidence, MissingEvidence, Snapshot
from fedsparse_jax.attacks.membership import ATTACKS, white_box
from fedsparse_jax.core.types import Masks, Params


class Finding(NamedTuple):
    """One attack: its scores and how good they are, or why it could not be tried."""

    scores: np.ndarray | None  # f64[N], one a scored person
    everybody: statistics.Outcome | None
    age_matched: statistics.Outcome | None  # on pairs of like age; None also where nobody has a partner
    refused: str = ""
    inside: np.ndarray | None = None  # bool[N], the truth about these people


def default_attacks() -> dict[str, Attack]:
    """Every member of ``ATTACKS`` with its defaults, and ``age_alone``, a control that looks at no model."""
    made: dict[str, Attack] = {name: make() for name, make in ATTACKS.items()}
    return {**made, "age_alone": white_box(features=("label",), models=1)}


def evaluate_attacks(
    evidence: Evidence,
    inside,
    attacks: Mapping[str, Attack] | None = None,
    *,
    caliper: float = 1.0,
    seed: int = 0,
    draws: int = 1000,
    print_fn: Callable[[str], None] = lambda _: None,
) -> dict[str, Finding]:
    """Scores by every attack, judged on all scored people and on pairs of like age, or of the same class.

    People are judged, never scans: the score of a person is the mean of his scans' scores, and his age that of the
    first of them.

    Args:
        evidence: what the attacker holds.
        inside: ``bool[N]``, the truth about ``evidence.scored``.
        attacks: by name; None for `default_attacks`.
        caliper: years between the two of a pair.
        seed: of the intervals.
        draws: of the bootstrap.
        print_fn: told the name of each attack before it runs.
    """
    first, person = _people(evidence.people_of(evidence.scored))
    inside = np.asarray(inside, bool)[first]
    caliper = 0.0 if evidence.classified else caliper
    places = controls.age_matched(evidence.targets[evidence.scored][first], inside, caliper).places
    findings = {}
    for name, attack in (default_attacks() if attacks is None else attacks).items():
        print_fn(name)
        try:
            scores = np.bincount(person, attack(evidence)) / np.bincount(person)
        except MissingEvidence as reason:
            findings[name] = Finding(None, None, None, str(reason))
            continue
        judge = lambda at, scores=scores: statistics.judge_scores(scores[at], inside[at], seed=seed, draws=draws)
        findings[name] = Finding(scores, judge(slice(None)), judge(places) if len(places) else None, "", inside)
    return findings


def _people(owners) -> tuple[np.ndarray, np.ndarray]:
    """For each person the first row, in that order; and for each row its place among them."""
    _, first, person = np.unique(owners, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[person]


def log_leakage(
    apply: Callable,
    inputs,
    targets,
    members: Sequence,
    test,
    names: Sequence[str] = ("error_threshold",),
    who=None,
    classified: bool = False,
) -> Callable[[Params, Masks], dict[str, float]]:
    """What a run may log of itself: how well an outsider who knows half of everybody tells members from others.

    Args:
        apply: ``(params, inputs [B, ...]) -> predictions [B]``, or logits ``[B, K]``.
        inputs, targets: of everybody, ``[P, ...]`` and ``f32[P]``.
        members: rows of each client.
        test: rows of the central test set.
        names: members of ``ATTACKS``; one that lacks something, such as shadows, is left out.
        who: ``[P]``, the person of each row; None where every row is a person.
        classified: the targets are classes.

    Returns:
        ``(params, masks) -> {"train_mae", "membership_auc_NAME", ...}``; of a classifier ``train_nll`` in nats.
    """
    threat, attacks = threats.outsider_attacks(members, test, who=who), {name: ATTACKS[name]() for name in names}

    def measure(params: Params, masks: Masks) -> dict[str, float]:
        models = (Snapshot(params, masks),)
        observe = features.feature_cache(apply, models, inputs, targets)
        evidence = threats.evidence_for(threat, models, observe, targets, who=who, classified=classified)
        findings = evaluate_attacks(evidence, threat.inside, attacks, draws=1)
        errors = np.abs(observe(0, ("error",), np.concatenate(members))["error"][:, 0])
        ran = {name: finding.everybody.auc.value for name, finding in findings.items() if finding.everybody}
        aucs = {f"membership_auc_{name}": value for name, value in ran.items() if value is not None}
        return {"train_nll" if classified else "train_mae": float(errors.mean()), **aucs}

    return measure

"""Who attacks whom in a federation, and with what: threat models as plain data.

A threat says which rows the attacker knows to be members and not to be, whom he scores, which models reach him, and,
apart from all that, the truth. Non-members come from the central test set, of which the attacker holds one half and
scores the other. People are divided here, never scans, so that known and scored people never overlap.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedsparse_jax.attacks.evidence import Evidence, Shadows, Snapshot, people_in_order
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.streams import Stream


class Threat(NamedTuple):
    """One attacker, one victim; indices are rows of the federation's data."""

    name: str  # such as L2->L5
    models: int  # how many models reach the attacker, at most; the newest
    members: np.ndarray  # i64[M], known to have been trained on
    outsiders: np.ndarray  # i64[O], known not to have been
    scored: np.ndarray  # i64[N]
    inside: np.ndarray  # bool[N], the truth: for the judge, not for the attack


def server_attacks_client(members: Sequence, test, victim: int, *, known=0.5, models=5, seed=0, who=None) -> Threat:
    """The server attacks a client: it sees the models which that client sends.

    Args:
        members: rows of each client.
        test: rows of the central test set.
        victim: the client's number.
        known: share of the victim's people that the attacker knows to take part; 0 for attacks that learn nothing from
            known members.
        models: how many of the client's models it keeps.
        seed: who is known.
        who: ``[P]``, the person of each row; None where every row is a person.
    """
    mine, theirs = _divide(members[victim], known, [seed, Stream.SERVER_KNOWN_MEMBERS, victim], who)
    known_out, unseen = _divide(test, 0.5, [seed, Stream.SERVER_KNOWN_OUTSIDERS, victim], who)
    return _threat(f"server->L{victim + 1}", models, mine, known_out, theirs, unseen)


def client_attacks_client(members: Sequence, test, attacker: int, victim: int, *, models=5, seed=0, who=None) -> Threat:
    """A client attacks another from the community models of the last rounds: its own people are the known members."""
    if attacker == victim:
        raise UsageError(f"Client {attacker + 1} cannot attack itself; name another victim.")
    known_out, unseen = _divide(test, 0.5, [seed, Stream.CLIENT_KNOWN_OUTSIDERS, attacker], who)
    name, own, theirs = f"L{attacker + 1}->L{victim + 1}", members[attacker], members[victim]
    return _threat(name, models, np.asarray(own), known_out, np.asarray(theirs), unseen)


def every_pair_of_clients(members: Sequence, test, **options) -> list[Threat]:
    """Every ordered pair of clients, 56 among 8; options are those of `client_attacks_client`."""
    count = range(len(members))
    return [client_attacks_client(members, test, i, j, **options) for i in count for j in count if i != j]


def outsider_attacks(members: Sequence, test, *, known=0.5, seed=0, who=None) -> Threat:
    """Somebody outside who got the final model, and knows some of the people who took part, of whatever client."""
    mine, theirs = _divide(np.concatenate(members), known, [seed, Stream.OUTSIDER_KNOWN_MEMBERS], who)
    known_out, unseen = _divide(test, 0.5, [seed, Stream.OUTSIDER_KNOWN_OUTSIDERS], who)
    return _threat("outsider", 1, mine, known_out, theirs, unseen)


def evidence_for(
    threat: Threat,
    models: tuple[Snapshot, ...],
    observe,
    targets,
    shadows: Shadows | None = None,
    who=None,
    classified: bool = False,
) -> Evidence:
    """What the threat's attacker holds, once it is known what reached him; the truth stays behind.

    Args:
        threat: who knows what.
        models: the newest ``threat.models`` of what he sees, oldest first; fewer where there are not so many.
        observe: of these models, by `features.feature_cache`; threats with the same models may share it.
        targets: ``f32[P]``.
        shadows: if he trained any.
        who: ``i64[P]``, the person of each row; None where every row is a person.
        classified: the targets are classes.
    """
    if not 0 < len(models) <= threat.models:
        raise UsageError(
            f"{threat.name}: {len(models)} models are given, but this attacker sees 1 to {threat.models} of them."
        )
    known = threat.members, threat.outsiders
    return Evidence(models, observe, targets, threat.scored, *known, shadows, who, classified)


def _threat(name: str, models: int, known_in, known_out, scored_in, scored_out) -> Threat:
    if not len(scored_in) or not len(scored_out):
        raise UsageError(f"{name}: nobody is left to score; lower the share of people who are known.")
    scored = np.concatenate([scored_in, scored_out])
    inside = np.arange(len(scored)) < len(scored_in)
    return Threat(name, models, known_in, known_out, scored, inside)


def _divide(rows, share: float, seed, who) -> tuple[np.ndarray, np.ndarray]:
    """A share of the people of some rows and all others, each as their rows."""
    rows = np.asarray(rows)
    owners = rows if who is None else np.asarray(who)[rows]
    people = people_in_order(owners)
    order, count = np.random.default_rng(seed).permutation(people), round(share * len(people))
    chosen = np.isin(owners, order[:count])
    return np.sort(rows[chosen]), np.sort(rows[~chosen])

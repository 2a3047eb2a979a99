"""Who attacks whom in a federation, and with what: threat models as plain data.

A threat says which rows the attacker knows to be members and not to be, whom he scores, which models reach him, and,
apart from all that, the truth. Known and scored people never overlap; non-members come from the central test set, of
which the attacker holds one half and scores the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedsparse_jax.attacks.evidence import Evidence, Shadows, Snapshot
from fedsparse_jax.core.types import UsageError


class Threat(NamedTuple):
    """One attacker, one victim; indices are rows of the federation's data."""

    name: str  # such as L2->L5
    attacker: str  # server | client | outsider
    sees: str  # updates: the victim's own models | community: the global ones | final: the last global one
    models: int  # how many of these, the newest
    members: np.ndarray  # i64[M], known to have been trained on
    outsiders: np.ndarray  # i64[O], known not to have been
    scored: np.ndarray  # i64[N]
    inside: np.ndarray  # bool[N], the truth: for the judge, not for the attack


def server(members: Sequence, test, victim: int, *, known=0.5, models=5, seed=0, limit=0) -> Threat:
    """The server attacks a client: it sees the models which that client sends.

    Args:
        members: rows of each client.
        test: rows of the central test set.
        victim: the client's number.
        known: share of the victim's people that the attacker knows to take part; 0 for attacks that learn nothing from
            known members.
        models: how many of the client's models it keeps.
        seed: who is known.
        limit: at most so many people of each kind (known and scored, members and not), 0 for all; the paper's is 1,000.
    """
    mine, theirs = _divide(members[victim], known, [seed, 21, victim])
    held, unseen = _divide(test, 0.5, [seed, 22, victim])
    return _threat(
        f"server->L{victim + 1}", "server", "updates", models, mine, held, theirs, unseen, seed, limit
    )


def client(members: Sequence, test, attacker: int, victim: int, *, models=5, seed=0, limit=0) -> Threat:
    """A client attacks another from the community models of the last rounds: its own people are the known members."""
    if attacker == victim:
        raise UsageError(f"attack: client {attacker + 1} cannot attack itself.")
    held, unseen = _divide(test, 0.5, [seed, 23, attacker])
    name, own = f"L{attacker + 1}->L{victim + 1}", np.asarray(members[attacker])
    return _threat(
        name, "client", "community", models, own, held, np.asarray(members[victim]), unseen, seed, limit
    )


def clients(members: Sequence, test, **options) -> list[Threat]:
    """Every ordered pair of clients, 56 among 8; options are those of `client`."""
    count = range(len(members))
    return [client(members, test, i, j, **options) for i in count for j in count if i != j]


def outsider(members: Sequence, test, *, known=0.5, seed=0, limit=0) -> Threat:
    """Somebody outside who got the final model, and knows some of the people who took part, of whatever client."""
    mine, theirs = _divide(np.concatenate(members), known, [seed, 24])
    held, unseen = _divide(test, 0.5, [seed, 25])
    return _threat("outsider", "outsider", "final", 1, mine, held, theirs, unseen, seed, limit)


def given(
    threat: Threat, models: tuple[Snapshot, ...], observe, targets, shadows: Shadows | None = None
) -> Evidence:
    """What the threat's attacker holds, once it is known what reached him; the truth stays behind.

    Args:
        threat: who knows what.
        models: the newest ``threat.models`` of what he sees, oldest first; fewer where there are not so many.
        observe: of these models, by `features.observer`; threats with the same models may share it.
        targets: ``f32[P]``.
        shadows: if he trained any.
    """
    if not 0 < len(models) <= threat.models:
        raise UsageError(
            f"attack {threat.name}: {len(models)} models given, but it sees 1 to {threat.models} of them."
        )
    return Evidence(models, observe, targets, threat.scored, threat.members, threat.outsiders, shadows)


def _threat(name, attacker, sees, models, known_in, known_out, scored_in, scored_out, seed, limit) -> Threat:
    sets = [known_in, known_out, scored_in, scored_out]
    if limit:
        sets = [np.sort(_order(rows, [seed, 26])[:limit]) for rows in sets]
    known_in, known_out, scored_in, scored_out = sets
    if not len(scored_in) or not len(scored_out):
        raise UsageError(f"attack {name}: nobody is left to score; lower the share of people who are known.")
    scored = np.concatenate([scored_in, scored_out])
    inside = np.arange(len(scored)) < len(scored_in)
    return Threat(name, attacker, sees, models, known_in, known_out, scored, inside)


def _order(rows, seed) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.asarray(rows))


def _divide(rows, share: float, seed) -> tuple[np.ndarray, np.ndarray]:
    order, count = _order(rows, seed), round(share * len(rows))
    return np.sort(order[:count]), np.sort(order[count:])

"""What an attacker holds. Nothing else may enter an attack, and the truth is not in it.

Everybody, member or not, has one number: a row of the inputs, of the targets and of the shadows' predictions.
Which of these rows the attacker knows something about is said by index, so that it can be read and checked.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import logsumexp

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.streams import Stream
from fedsparse_jax.core.types import Masks, Params

NOBODY = np.zeros(0, np.int64)


class Snapshot(NamedTuple):
    """One model as the attacker received it, and, where known, the one that it was pruned from."""

    params: Params  # masked
    masks: Masks
    before: Params | None = None  # denser and earlier: before the pruning, or the community model of a round ago


class Shadows(NamedTuple):
    """Models that the attacker trained on halves of the people, as what they predict."""

    predictions: np.ndarray  # f32[S, P], or logits f32[S, P, K]
    inside: np.ndarray  # bool[S, P], who was in whose half


def people_in_order(owners: np.ndarray) -> np.ndarray:
    """The persons behind some rows, each once, in the order in which they first come.

    >>> people_in_order(np.array([4, 2, 4, 7])).tolist()
    [4, 2, 7]
    """
    return np.array(list(dict.fromkeys(owners.tolist())))


class Evidence(NamedTuple):
    """Everything an attack may use.

    ``observe(k, names, rows)`` gives features of the rows under ``models[k]``, ``{name: f32[len(rows), F]}``; see
    `features.feature_cache`, which makes it of predict, params and data.
    """

    models: tuple[Snapshot, ...]  # oldest first; the last one is the target
    observe: Callable[..., dict[str, np.ndarray]]
    targets: np.ndarray  # f32[P]; read only at the rows below
    scored: np.ndarray  # i64[N], who may or may not be a member
    members: np.ndarray = NOBODY  # i64[M], known to be members, none of them scored
    outsiders: np.ndarray = NOBODY  # i64[O], known not to be, none of them scored
    shadows: Shadows | None = None
    who: np.ndarray | None = None  # i64[P], the person of each row; None where every row is a person
    classified: bool = False  # the models are classifiers, and the targets classes

    def people_of(self, rows: np.ndarray) -> np.ndarray:
        """The persons of some rows, as numbers."""
        return rows if self.who is None else self.who[rows]


class MissingEvidence(UsageError):
    """The attack needs evidence that this attacker does not hold; in a table it is marked, not left out."""


class Attack(Protocol):
    """``ATTACKS`` hold factories of these: the evidence to one score a row, higher where membership is likelier.

    A row is a scan; where a person has several, their scores are averaged when they are judged.

    Contract: float64 ``[N]``, finite, the same for the same evidence; it reads no row that the evidence does not name,
    and the order of the scored people does not matter. AUC within chance on an untrained model and on one that never
    saw any of the people, above .9 on a model that has memorised its members.

    Raises:
        MissingEvidence: the evidence is not enough.
    """

    def __call__(self, evidence: Evidence) -> np.ndarray:  # noqa: D102
        ...


def residuals(evidence: Evidence, rows: np.ndarray, model: int = -1) -> np.ndarray:
    """Prediction minus target, ``f64[len(rows)]``, by one of the models; of a classifier the cross-entropy in nats."""
    place = range(len(evidence.models))[model]
    return evidence.observe(place, ("error",), rows)["error"][:, 0].astype(np.float64)


def shadow_residuals(evidence: Evidence, shadows: Shadows, rows: np.ndarray) -> np.ndarray:
    """The same by each shadow, ``f64[S, len(rows)]``."""
    predictions, targets = shadows.predictions[:, rows].astype(np.float64), evidence.targets[rows]
    return cross_entropies(predictions, targets) if evidence.classified else predictions - targets


def cross_entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the log of the share that logits ``[S, N, K]`` give the labels ``[N]``: ``f64[S, N]``, in nats.

    >>> cross_entropies(np.log([[[0.25, 0.75]]]), np.array([0.0])).round(4).tolist()  # -log .25
    [[1.3863]]
    """
    of_label = logits[:, np.arange(len(labels)), labels.astype(np.int64)]
    return logsumexp(logits, axis=-1) - of_label


def need_known(evidence: Evidence, attack: str, fewest: int = 5) -> None:
    """Refuses to train a classifier without known members and non-members.

    Raises:
        MissingEvidence: fewer than ``fewest`` of either.
    """
    for what, rows in (("members", evidence.members), ("non-members", evidence.outsiders)):
        people = len(np.unique(evidence.people_of(rows)))
        if people < fewest:
            raise MissingEvidence(f"{attack} needs at least {fewest} known {what}; this attacker knows {people}.")


def need_shadows(evidence: Evidence, attack: str, fewest: int = 1, *, inside: bool = False) -> Shadows:
    """The shadows, where everybody scored has enough of them without him (and, for ``inside``, also with him).

    Raises:
        MissingEvidence: no shadows, or somebody with fewer than ``fewest``.
    """
    if evidence.shadows is None:
        raise MissingEvidence(f"{attack} needs shadow models; this attacker has none.")
    within = evidence.shadows.inside[:, evidence.scored]
    least = int((~within).sum(0).min(initial=len(within)))
    if inside:
        least = min(least, int(within.sum(0).min(initial=len(within))))
    if least < fewest:
        kind = "with and without each person" if inside else "without each person"
        raise MissingEvidence(f"{attack} needs at least {fewest} shadow models {kind}; somebody has {least}.")
    return evidence.shadows


def others_than(target: int, inside: np.ndarray) -> np.ndarray:
    """The shadows of one of them as the target: without itself, and without the one that trained on all whom it left.

    `shadow_halves` come in such pairs. Whoever is in how few of all shadows but the target would be known to be in the
    target; without both, everybody is in half of those that are left.

    Args:
        target: its number.
        inside: ``bool[S, P]``.

    Returns:
        Their numbers, ``i64[..]``.

    >>> others_than(0, shadow_halves(6, 4, seed=0)).tolist()
    [2, 3]
    """
    rest = (inside != ~inside[target]).any(1)
    rest[target] = False
    return np.flatnonzero(rest)


def shadow_halves(people: int, shadows: int, seed: int) -> np.ndarray:
    """Random halves, balanced both ways, ``bool[S, P]``.

    Shadows come in pairs, a random half and the rest, so that everybody is in exactly half of them and every model
    trains on half of the people (an odd person more or less). The pairs are drawn one by one: more shadows begin with
    the same ones.

    >>> shadow_halves(5, 4, seed=0).sum(0).tolist()
    [2, 2, 2, 2, 2]
    """
    if shadows < 2 or shadows % 2:
        raise ArgumentError("shadows", shadows, "it must be an even number, at least 2")
    if people < 2:
        raise ArgumentError("people", people, "so few cannot be divided into halves")
    rows = []
    for pair in range(shadows // 2):
        order = np.random.default_rng([seed, Stream.SHADOW_HALVES, pair]).permutation(people)
        inside = np.zeros(people, bool)
        inside[order[: people // 2]] = True
        rows += [inside, ~inside]
    return np.stack(rows)

"""Which clients count in a round, and whether they are enough: nobody who is sick decides for the others.

A hospital can send anything: a diverged model, no number at all, nothing. Such a client is left out of its round as if
it had not been sampled. What is no fault but an attack is for the aggregation rule (`robust`).
"""

from typing import NamedTuple

import jax.numpy as jnp
import optax

from fedsparse_jax.core import tree
from fedsparse_jax.core.types import Absence, Array, Payload, Reports, ServerState
from fedsparse_jax.federated.client_map import ClientMap, map_over_clients


class Limits(NamedTuple):
    """What a client, and a round, must keep to in order to count."""

    explosion: float = 0.0  # how many times the usual loss, or norm of the weights, a client may have; 0 for any
    usual_loss: float = 0.0  # mean loss of a model that knows nothing
    min_clients: int = 1  # a round with fewer sound clients changes nothing


def why_absent(
    limits: Limits,
    server: ServerState,
    received: Payload,
    weights: Array,
    reports: Reports | None = None,
    client_map: ClientMap = "scan",
    cohort: bool = True,
) -> Array:
    """Why each client does not count, ``i32[C]``: an `Absence`, 0 if it does.

    The usual loss is the median of the cohort, but at least ``limits.usual_loss``, so that an easy client makes no hard
    one sick. The usual norm is the median of the cohort, but at least that of the global model.

    Args:
        limits: of the method.
        server: before the round.
        received: of the clients, leaves ``[C, ...]``.
        weights: ``f32[C]``, the examples behind each client.
        reports: of the clients; None where all arrived and nobody told a loss.
        client_map: how clients are executed.
        cohort: whether these clients are compared with one another; else the usual loss is ``limits.usual_loss`` (any
            for 0), and the usual norm that of the global model.
    """

    def examine(params, scores):
        return tree.all_finite((params, scores)), optax.tree.norm(params)

    finite, norms = map_over_clients(examine, client_map)(received.params, received.scores)
    reason = jnp.where(weights > 0, Absence.NONE if reports is None else reports.absent, Absence.NO_DATA)
    reason = jnp.where((reason == Absence.NONE) & ~finite, Absence.NOT_A_NUMBER, reason)
    sound = reason == Absence.NONE
    if limits.explosion:
        usual = lambda values, least: jnp.maximum(_median(values, sound), least) if cohort else least
        exploded = ~(norms <= limits.explosion * usual(norms, optax.tree.norm(server.params)))
        if reports is not None and (cohort or limits.usual_loss):
            exploded |= ~(reports.losses <= limits.explosion * usual(reports.losses, limits.usual_loss))
        reason = jnp.where(sound & exploded, Absence.EXPLODED, reason)
    return reason.astype(jnp.int32)


def has_arrived(reasons):
    """Whether what a client sent reached the server, ``bool[C]``, sick or not; of `Absence` numbers ``i32[C]``."""
    return (reasons == Absence.NONE) | (reasons == Absence.NOT_A_NUMBER) | (reasons == Absence.EXPLODED)


def _median(values: Array, of: Array) -> Array:
    """The lower median of some of the values ``[C]``; infinity for none of them."""
    ordered = jnp.sort(jnp.where(of & ~jnp.isnan(values), values, jnp.inf))
    return ordered[jnp.maximum(of.sum() - 1, 0) // 2]

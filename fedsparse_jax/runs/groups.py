"""A round whose clients are merged as they come: no more of their models are in memory than a run may hold."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedsparse_jax.communication.transport import SharedMasks, Traffic
from fedsparse_jax.core.types import Merging, ServerState, StepInfo
from fedsparse_jax.runs import round as rounds
from fedsparse_jax.runs.round import RoundResult, Runner


class _Group(NamedTuple):
    """What is left of clients who were merged."""

    added: Any
    steps: StepInfo  # leaves [C, 1]
    padding: float
    traffic: Traffic | None


def play_in_groups(
    runner: Runner, server: ServerState, round_: int, ids: np.ndarray, shared_masks: SharedMasks
) -> RoundResult:
    """As `round.play_round`, with no more clients in memory than may be held; each group is merged before the next."""
    held, merging, groups = runner.experiment.execution.clients_held, runner.algorithm.merging, list[_Group]()
    assert merging
    ids, total = np.sort(ids), merging.of_nobody(server)
    for group in np.split(ids, range(held, len(ids), held)):
        total, merged, shared_masks = _merge_group(runner, merging, server, round_, group, shared_masks, total)
        groups.append(merged)
    server, info = merging.update_server(server, total, rounds.joined_clients([group.added for group in groups]))
    info = info._replace(padding=float(np.mean([group.padding for group in groups])))
    steps = rounds.joined_clients([group.steps for group in groups])
    traffic = rounds.joined_traffic([group.traffic for group in groups])
    return RoundResult(server, info, [steps], ids, shared_masks, None, traffic)


def _merge_group(
    runner: Runner,
    merging: Merging,
    server: ServerState,
    round_: int,
    ids: np.ndarray,
    shared_masks: SharedMasks,
    total,
) -> tuple[Any, _Group, SharedMasks]:
    """The sums with the clients ``ids``, whose models are gone then."""
    experiment = runner.experiment
    exchanged = rounds.exchange_models(runner, server, round_, ids, shared_masks)
    trained, weights = exchanged.trained, jnp.asarray(experiment.federation.client_sizes(ids))
    reports = rounds.reports_of(trained.steps, trained.absent)
    total, added = merging.add_clients(server, total, exchanged.received, weights, reports)
    traffic, shared_masks = rounds.traffic_of(experiment, round_, ids, exchanged, shared_masks)
    steps = rounds.whole_training(trained.steps, len(ids))
    return total, _Group(added, steps, rounds.padding_of(experiment, trained.plan), traffic), shared_masks

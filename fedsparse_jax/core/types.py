"""The vocabulary: what the parts of a federated run are called and how they fit together.

Nothing here computes. Each NamedTuple is a pytree of arrays or a bundle of pure functions; each Protocol is an
extension point, and the contract in its docstring is tested over the whole registry of that extension point
(tests/test_contracts.py). The words are explained in docs/glossary.md.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Params = Any  # nested dict of float arrays
Masks = Any  # the tree of Params, bool: True = kept
Key = jax.Array


class Model(NamedTuple):
    """A network as a pair of pure functions; which library built it stays inside ``models/``."""

    init: Callable[[Key], Params]
    apply: Callable[[Params, Array], Array]  # (params, inputs [B, ...]) -> predictions [B], or logits [B, K]


class Chunk(NamedTuple):
    """Consecutive training steps; leading axes ``[C, T, B]`` (clients, steps, batch) or a suffix of them."""

    inputs: Array  # f32[..., *shape]
    targets: Array  # f32[...]; a class is a whole number
    valid: Array  # bool[...]; False marks padding, which changes nothing


class ClientState(NamedTuple):
    """One client during one round. With a leading axis ``[C]`` it is the cohort."""

    id: Array  # i32[], its number in the federation
    params: Params
    masks: Masks
    opt_state: Any
    key: Key  # from (seed, round, client id) alone
    anchor: Params | None = None  # what a proximal term pulls towards
    state: Any = None  # what a hook keeps for the client between rounds
    rate_factor: Array | None = None  # f32[], of the learning rate in this round; None for 1
    augmentation_key: Key | None = None  # of the next step that has an example; None: nothing is augmented
    sent: tuple = ()  # what hooks keep at the server and send beside the model; until the training begins


class ClientMemory(NamedTuple):
    """What clients keep between their rounds: leaves ``[N, ...]`` by client id, None where a method keeps nothing."""

    masks: Masks | None = None  # a mask of the client's own
    opt_state: Any = None
    state: Any = None  # of a hook, see `ClientState`
    params: Params | None = None  # leaves that are not sent, and None in place of the others; see `federated.personal`


class ServerState(NamedTuple):
    """Everything the next round needs, and nothing that only a human wants."""

    round: Array  # i32[], rounds finished so far
    params: Params
    masks: Masks
    opt_state: Any
    key: Key  # from the seed; never advanced
    memory: ClientMemory = ClientMemory()
    hook_state: Params | None = None  # what a hook keeps at the server, and sends to every client
    pace: Any = None  # of a schedule that looks at the training (`sparsity.pacing`)


class StepInfo(NamedTuple):
    """What a local step reports, summed over its valid examples."""

    loss: Array  # f32[], sum of losses
    examples: Array  # i32[], number of valid examples


class RoundInfo(NamedTuple):
    """What a round reports to humans.

    Where clients have masks of their own, ``kept``, ``dead_channels`` and ``drift`` are means over the present clients'
    masks, rounded; else they are those of the global mask.
    """

    round: Array  # i32[], counted from 1
    target_sparsity: Array  # f32[], what the schedule asked for, as a share of all weights
    kept: Array  # i32[L], weights kept in each leaf of the new model
    dead_channels: Array  # i32[L], output channels (last axis) without any kept weight, in each leaf
    drift: Array  # i32[], weights whose mask changed in this round (Hamming distance)
    params_down: Array  # i32[C], weights sent to each client at the start of the round; 0 for an absent client
    params_up: Array  # i32[C], kept weights that each client sent back, and scores that the server asked for
    agreement: Array  # f32[], Jaccard overlap of the clients' masks, pooled over all pairs of present clients
    finite: Array  # bool[], whether every weight of the new global model is a number
    left_out: Array  # i32[C], why a client did not count in this round: an `Absence`, 0 if it did
    void: Array  # bool[], whether too few counted, so that the round changed nothing but its number
    padding: Any = 0.0  # share of computed local steps that no client needed; filled in by the host, who plans them
    client_rate_factor: Array | None = None  # f32[], of the clients' learning rate; None without a schedule
    server_rate_factor: Array | None = None  # f32[], of the server's
    vote_margin: Array | None = None  # f32[], of the clients' votes on the masks; None where they change none


class Absence(enum.IntEnum):
    """Why a client of the cohort does not count in a round."""

    NONE = 0
    NO_DATA = 1  # it has no example
    DROPPED_OUT = 2  # it was sent the model, and sends nothing
    LATE = 3  # what it sends comes after the deadline
    NOT_A_NUMBER = 4  # it sent NaN or infinity
    EXPLODED = 5  # its loss or its weights are beyond all measure
    REFUSED = 6  # what it sent is no message of the round


class Reports(NamedTuple):
    """What the server knows of the clients of a round beside their models."""

    absent: Array  # i32[C], whose model did not arrive and why: an `Absence`, 0 where it did
    losses: Array  # f32[C], mean loss of the local training


class DataNeeds(NamedTuple):
    """Where an algorithm looks at a few of each client's batches, a `Chunk` ``[C, T, B, ...]`` given as ``data``."""

    at_init: str = ""  # batches of "one" client or of "all"; empty for none
    before_training: bool = False
    after_training: bool = False


class Payload(NamedTuple):
    """What crosses the network, in either direction; every leaf ``[C, ...]``, by client.

    Where leaves stay with their client, None stands in their place in every tree.
    """

    params: Params  # 0 where pruned
    masks: Masks
    scores: tuple = ()  # trees like params: down what a hook keeps at the server, up one a hook that asks for scores


class Merging(NamedTuple):
    """How clients are merged as they come, see `federated.sums`."""

    of_nobody: Callable  # (server) -> sums
    add_clients: Callable  # (server, sums, received, weights, reports) -> (sums, added)
    update_server: Callable[..., tuple[ServerState, RoundInfo]]  # (server, sums, added), both of the whole cohort


class FedAlgorithm(NamedTuple):
    """A federated algorithm as pure functions.

    ``init`` and ``prune_at_init`` come before round 1. A round is ``download``, ``start_clients``, ``local_steps`` for
    each chunk of steps, ``upload``, ``update_server``. ``data`` is None unless ``data_needs`` asks for it;
    ``weights [C]`` are the examples behind each client, 0 for one that is not there at all. ``download`` and ``upload``
    say what crosses the network; ``start_clients`` and ``update_server`` call them themselves unless they are given
    what was received.
    """

    init: Callable[[Key], ServerState]
    prune_at_init: Callable[..., ServerState]  # (server, data, weights)
    download: Callable[[ServerState, Array], Payload]  # (server, client_ids [C])
    start_clients: Callable[..., ClientState]  # (server, client_ids [C], data, received, noise_key)
    local_steps: Callable[[ClientState, Chunk], tuple[ClientState, StepInfo]]
    upload: Callable[..., Payload]  # (server, clients, data)
    update_server: Callable[..., tuple[ServerState, RoundInfo]]  # (server, clients, weights, data, received, reports)
    merging: Merging | None = None  # instead of it, where clients are merged as they come
    data_needs: DataNeeds = DataNeeds()
    num_scores: int = 0  # trees of scores in an upload


class Poison(NamedTuple):
    """What a malicious client does otherwise; each function knows one client. ``POISONS`` hold factories of these."""

    change_batches: Callable[[Chunk, Key], Chunk] = lambda chunk, key: chunk  # leaves [T, B, ...]
    change_upload: Callable[[ServerState, Payload], Payload] = lambda server, sent: sent


class Score(Protocol):
    """Which weights matter: the function in a `sparsity.criteria.Criterion`, of which ``CRITERIA`` hold one each.

    Called as ``score(params, key=..., objective=..., apply=..., batch=...)``; it names what it uses and takes the rest
    as ``**unused``. ``objective``, ``apply`` and ``batch`` are given to criteria with ``needs_batch`` only.

    Contract: the scores have the tree and shapes of the params, are float32 and finite; the function is traced once
    under jit.
    """

    def __call__(self, *args: Any, **context: Any) -> Any: ...


class Schedule(Protocol):
    """``SCHEDULES`` hold factories of these: how much is pruned after round ``t`` (counted from 1).

    Contract: float32, within [0, 1], exactly the final sparsity from the last round on, traceable in ``t``.
    """

    def __call__(self, t: Array | int) -> Array: ...


class Scope(Protocol):
    """``SCOPES``: how a sparsity is spread over the leaves.

    Contract: keeps exactly ``n - round(sparsity * n)`` of the ``n`` prunable weights (of each leaf, for a scope
    per leaf) even when all scores tie; never revives a pruned weight; leaves that are not prunable stay whole.
    """

    def __call__(self, scores: Any, masks: Masks, sparsity: Array, prunable: Any) -> Masks: ...


class RegrowthRule(Protocol):
    """``REGROWTH`` hold factories of these: which weights are dropped, and which come back in round ``t``.

    Contract: leaves that are not prunable stay as they are; never denser than ``sparsity`` or, if that is more, than
    before; traced once.
    """

    def __call__(
        self, params: Params, masks: Masks, scores: Any, t: Array, sparsity: Array, prunable: Any
    ) -> Masks: ...


class Aggregator(Protocol):
    """``AGGREGATORS``: many clients' models to one. Leaves come as ``[C, ...]``, weights as ``[C]``.

    Contract: identical clients aggregate to themselves; the order of clients does not matter; a client
    of weight 0 neither counts nor votes.
    """

    def __call__(self, params: Params, masks: Masks, weights: Array) -> tuple[Params, Masks]: ...


class SumRule(Protocol):
    """``SUM_RULES``: an `Aggregator` of what the clients add up to, a `federated.sums.Sums`.

    Contract: gives what the aggregator of the same name gives of the clients themselves, up to rounding.
    """

    def __call__(self, sums: Any) -> tuple[Params, Masks]: ...

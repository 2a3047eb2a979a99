"""The vocabulary: what the parts of a federated run are called and how they fit together.

Nothing here computes. Each NamedTuple is a pytree of arrays or a bundle of pure functions; each
Protocol is an extension point, and the contract in its docstring is tested over the whole registry
of that extension point (tests/test_contracts.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Params = Any  # nested dict of float arrays
Masks = Any  # the tree of Params, bool: True = kept
Key = jax.Array


class UsageError(ValueError):
    """The user can mend this: one sentence that names the file or the key, and the remedy.

    Scripts print the sentence alone and exit with code 2; nothing is written before it is raised.
    """


class Model(NamedTuple):
    """A network as a pair of pure functions; which library built it stays inside ``models/``."""

    init: Callable[[Key], Params]
    apply: Callable[[Params, Array], Array]  # (params, inputs [B, ...]) -> predictions [B], or logits [B, K]


class Chunk(NamedTuple):
    """Consecutive training steps; leading axes ``[T, C, B]`` (steps, clients, batch) or a suffix of them."""

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
    prunings: Any = None  # i32[], rounds in which a client with a mask of its own might prune it


class Memory(NamedTuple):
    """What clients keep between their rounds: leaves ``[N, ...]`` by client id, None where a method keeps nothing."""

    masks: Masks | None = None
    opt_state: Any = None
    prunings: Any = None


class ServerState(NamedTuple):
    """Everything the next round needs, and nothing that only a human wants."""

    round: Array  # i32[], rounds finished so far
    params: Params
    masks: Masks
    opt_state: Any
    key: Key  # from the seed; never advanced
    memory: Memory = Memory()


class StepInfo(NamedTuple):
    """What a local step reports, summed over its valid examples."""

    loss: Array  # f32[], sum of losses
    examples: Array  # i32[], number of valid examples


class RoundInfo(NamedTuple):
    """What a round reports to humans.

    Where clients have masks of their own (``arrival``), ``kept``, ``dead`` and ``drift`` are means over the present
    clients' masks, rounded; else they are those of the global one.
    """

    round: Array  # i32[], counted from 1
    target_sparsity: Array  # f32[], what the schedule asked for, as a share of all weights
    kept: Array  # i32[L], weights kept in each leaf of the new model
    dead: Array  # i32[L], output channels (last axis) without any kept weight, in each leaf
    drift: Array  # i32[], weights whose mask changed in this round (Hamming distance)
    kept_down: Array  # i32[C], weights sent to each client at the start of the round; 0 for an absent client
    kept_up: Array  # i32[C], kept weights that each client sent back, and scores that the server asked for
    agreement: Array  # f32[], Jaccard overlap of the clients' masks, pooled over all pairs of present clients
    finite: Array  # bool[], whether every weight of the new global model is a number
    padding: Any = (
        0.0  # share of the computed local steps that no client needed; the host, who plans them, fills it in
    )


class Wants(NamedTuple):
    """Where an algorithm asks for a few of each client's batches, a `Chunk` ``[C, T, B, ...]`` as ``data``."""

    prepare: str = ""  # batches of "one" client or of "all"; empty for none
    begin: bool = False
    finish: bool = False


class Sent(NamedTuple):
    """What crosses the network, in either direction; every leaf ``[C, ...]``, by client."""

    params: Params  # 0 where pruned
    masks: Masks
    scores: Any = (
        None,
        None,
    )  # up only: for pruning and for growing, trees like params; None where nobody asked


class FedAlgorithm(NamedTuple):
    """A federated algorithm as pure functions: init and prepare start it; a round is address, begin, steps (repeated),
    leave, finish.

    ``data`` is None unless ``wants`` asks for it; ``weights [C]`` are the examples behind each client of it.
    ``address`` and ``leave`` say what crosses the network; ``begin`` and ``finish`` call them themselves unless they
    are given what arrived.
    """

    init: Callable[[Key], ServerState]
    prepare: Callable[..., ServerState]  # (server, data, weights): pruning before round 1
    address: Callable[[ServerState, Array], Sent]  # (server, client_ids [C]): down
    begin: Callable[..., ClientState]  # (server, client_ids [C], data, arrived)
    steps: Callable[[ClientState, Chunk], tuple[ClientState, StepInfo]]
    leave: Callable[..., Sent]  # (server, clients, data): up
    finish: Callable[..., tuple[ServerState, RoundInfo]]  # (server, clients, weights, data, arrived)
    wants: Wants = Wants()


# --- extension points -----------------------------------------------------------------------


class Criterion(Protocol):
    """``CRITERIA``: which weights matter.

    Called as ``criterion(params, key=..., objective=..., apply=..., batch=...)``; it names what it uses
    and takes the rest as ``**unused``. One that names ``batch`` is given data; the others get ``params`` and ``key``.

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


class Regrow(Protocol):
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


class Partition(Protocol):
    """``PARTITIONS``: who holds which person.

    Contract: every person is held by exactly one client, clients are not empty, and the seed alone decides.
    Returns one array of indices into ``ages`` for each client.
    """

    def __call__(self, ages: Any, sites: Any, num_clients: int, seed: int) -> list[Any]: ...

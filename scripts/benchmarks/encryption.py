"""Encrypted sums: bytes, seconds and errors of eight clients' weights, and of their votes, at four sparsities.

Seconds are those of the processor, all threads together, because TenSEAL never waits and a machine is seldom idle.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks.message_speed import SHAPE
from benchmarks.timing import Alternatives, Timing
from fedsparse_jax import communication
from fedsparse_jax.communication import encrypted, message
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Masks, Params
from fedsparse_jax.models import MODELS

CLIENTS = 8
SPARSITIES = (0.0, 0.9, 0.95, 0.99)
WIDER = 1.2  # the mask that clients vote about keeps so many times the weights
NETWORKS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "paper": ("brain_age_cnn", SHAPE, {}),
    "quickstart": ("flat_cnn", (24, 28, 24), {"zero_head": False}),
    "tiny": ("mlp", (4, 4), {"hidden": (8,)}),  # for the tests
}


def encryption(names: str) -> Alternatives:
    """Alternatives that encrypt one client's vector, add those of eight, and decrypt the sum.

    Args:
        names: of ``NETWORKS``, joined by commas.
    """
    if not set(names.split(",")) <= NETWORKS.keys():
        raise UsageError(f"--work is {names!r}: it must be some of {', '.join(NETWORKS)}, joined by commas.")
    works: Alternatives = {}
    for name in names.split(","):
        network, shape, options = NETWORKS[name]
        params = jax.tree.map(np.asarray, MODELS[network](shape, **options).init(jax.random.key(0)))
        for sparsity in SPARSITIES:
            what = f"{name} {100 * sparsity:g} %"
            works |= _of_weights(what, _clients(params, _largest(params, 1 - sparsity)))
            if sparsity:
                known = _largest(params, WIDER * (1 - sparsity))
                works |= _of_votes(f"{what}, votes", _clients(params, known), known)
    return works


def _largest(params: Params, share: float) -> Masks:
    """The mask of so large a share of all weights, those of the largest magnitude."""
    flat = np.concatenate([np.abs(leaf).ravel() for leaf in jax.tree.leaves(params)])
    cut = np.quantile(flat, max(0, 1 - share))
    return jax.tree.map(lambda w: np.abs(w) >= cut, params)


def _clients(params: Params, masks: Masks) -> list[communication.Update]:
    """What eight clients might send that share a mask: weights that differ by a tenth."""
    rng = np.random.default_rng(0)
    weigh = lambda m, w: np.where(m, w * (1 + 0.1 * rng.normal(size=w.shape)), 0).astype(np.float32)
    return [communication.Update(jax.tree.map(weigh, masks, params), masks) for _ in range(CLIENTS)]


def _of_weights(name: str, clients: list[communication.Update]) -> Alternatives:
    context = communication.make_context(clients[0].params, clients[0].masks)
    shares = np.arange(1, CLIENTS + 1) / sum(range(1, CLIENTS + 1))
    weights = [communication.take_weights(one, context).astype(float) for one in clients]
    vectors = [share * own for share, own in zip(shares, weights, strict=True)]
    plain, mean = communication.message_size(clients[0], context), np.sum(vectors, axis=0)
    errors = lambda sums: {"largest error": f"{np.abs(sums - mean).max():.1e}"}
    return _three_steps(name, vectors, plain, encrypted.VALUE_SCALE, errors)


def _of_votes(name: str, clients: list[communication.Update], known: Masks) -> Alternatives:
    """Each client votes for its largest weights of the known mask, all but a sixth."""
    context = communication.make_context(clients[0].params, known)
    weights = [np.abs(communication.take_weights(one, context)) for one in clients]
    votes = [own >= np.quantile(own, 1 - 1 / WIDER) for own in weights]
    masks = communication.place_weights(votes[0], known, context)
    pruned = jax.tree.map(lambda m, w: np.where(m != 0, w, np.float32(0)), masks, clients[0].params)
    update = communication.Update(pruned, jax.tree.map(lambda m: m != 0, masks))
    plain, counts = message.mask_part_size(communication.encode(update, context)), np.sum(votes, axis=0)
    vectors = [communication.pack_votes(own, CLIENTS) for own in votes]
    count = lambda sums: communication.unpack_counts(sums, CLIENTS, counts.size)
    wrong = lambda sums: {"largest error": int(np.abs(count(sums) - counts).max())}
    return _three_steps(name, vectors, plain, encrypted.VOTE_SCALE, wrong, counts.size)


def _three_steps(
    name: str, vectors: list[np.ndarray], plain: int, scale: float, errors: Callable, numbers: int = 0
) -> Alternatives:
    keys = communication.make_keys()
    sent = [communication.encrypt(vector, keys.public, scale) for vector in vectors]
    added, size = communication.add_encrypted(sent, keys.public), sum(map(len, sent[0]))
    columns = {
        "numbers": numbers or vectors[0].size,
        "bytes plain": plain,
        "bytes encrypted": size,
        "times the bytes": round(size / plain, 1),
    }
    return {
        f"{name}: encrypt": _on_processor(lambda: communication.encrypt(vectors[0], keys.public, scale), columns),
        f"{name}: add {CLIENTS}": _on_processor(lambda: communication.add_encrypted(sent, keys.public)),
        f"{name}: decrypt": _on_processor(
            lambda: communication.decrypt(added, keys.secret), errors(communication.decrypt(added, keys.secret))
        ),
    }


def _on_processor(work: Callable[[], object], columns: Mapping[str, Any] | None = None) -> Callable[[], Timing]:
    """An alternative whose seconds are the processor's."""

    def play() -> Timing:
        began = time.process_time()
        work()
        return Timing(time.process_time() - began, columns or {})

    return play

"""Messages as runs send them, and what damage or malice makes of them."""

import struct
from typing import NamedTuple

import jax
import numpy as np
import optax

from fedsparse_jax.communication import (
    VALUE_CODECS,
    Context,
    MessageSettings,
    Update,
    encode,
    make_context,
    message,
    transport,
)
from fedsparse_jax.core import losses
from fedsparse_jax.federated import (
    AGGREGATORS,
    Recipe,
    build_algorithm,
    prune_at_init,
    regrow_on_clients,
    regrow_on_server,
)
from fedsparse_jax.runs import initial_server, make_runner, play_round
from fedsparse_jax.runs.round import sample_cohort
from fedsparse_jax.sparsity import CRITERIA, Pruning, Regrowth, constant, global_, greedy, swap
from tests.helpers import toy_federation

EXTREMES = {
    4: [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 0x7F800000, 0xFF7FFFFF, 0x7FC00001],  # the last three as floats
    8: [0, 1, 2**31, 2**32, 2**60, 2**63, 2**64 - 1],
}
SHAPES = {"a": (30, 4), "b": (9,)}


class Sent(NamedTuple):
    """A message and what its receiver knows."""

    body: bytes
    context: Context


def sealed(body: bytes) -> bytes:
    """A message with its length and its checksum put right."""
    whole = bytearray(body)
    struct.pack_into("<Q", whole, 8, len(whole) + 16)
    return bytes(whole) + message.content_hash(whole)


def _draw(rng, density: float, old=None):
    masks = {name: rng.random(shape) < density for name, shape in SHAPES.items()}
    masks = masks if old is None else jax.tree.map(np.logical_and, masks, old)
    weigh = lambda mask: np.where(mask, rng.normal(0, 0.05, mask.shape), 0).astype(np.float32)
    return jax.tree.map(weigh, masks), masks


def drawn_messages() -> list[Sent]:
    """Small random updates in each mode of the mask and each dtype."""
    rng = np.random.default_rng(4)
    old = _draw(rng, 0.5)[1]
    updates = [_draw(rng, 1.0, old), _draw(rng, 0.6, old), _draw(rng, 0.1)]
    contexts = [make_context(updates[0][0], known) for known in (None, old)]
    made = [Sent(encode(Update(*update), context, values=values), context)
            for update in updates for values in VALUE_CODECS for context in contexts]  # fmt: skip
    assert {sent.body[5] for sent in made} == {message.WHOLE, message.SAME, message.CHANGE}
    return made


def messages_of_runs(monkeypatch) -> list[Sent]:
    """What two rounds of each kind of method send, models and scores, down and up, once more in each dtype."""
    seen: list[tuple[Update, Context]] = []

    def record(update: Update, context: Context, **options) -> bytes:
        seen.append((update, context))
        return encode(update, context, **options)

    pruning = Pruning(CRITERIA["magnitude"], global_, constant(0.5))
    score = CRITERIA["squared_gradient"]
    regrowing = {
        "feddst": (prune_at_init(pruning), regrow_on_clients(pruning, Regrowth(swap(end=3), score, 1, 1, 2))),
        "prunefl": (regrow_on_server(pruning, Regrowth(greedy(), score, 1, 1, 2)),),
    }
    experiments = {name: toy_federation.experiment(placement=name, rounds=3) for name in ("server", "client")}
    for name, hooks in regrowing.items():
        parts = (toy_federation.network(), losses.squared, optax.sgd(1e-3), optax.sgd(1.0), AGGREGATORS["keepers_mean"])
        recipe = Recipe(*parts, hooks=hooks, num_clients=3)
        experiments[name] = toy_federation.experiment()._replace(algorithm=build_algorithm(recipe))
    with monkeypatch.context() as patched:
        patched.setattr(transport.codec, "encode", record)
        for experiment in experiments.values():
            runner = make_runner(experiment._replace(messages=MessageSettings("transmit")))
            server, known = initial_server(runner), {}
            for t in (1, 2):
                result = play_round(runner, server, t, sample_cohort(experiment, t), known)
                server, known = result.server, result.shared_masks
    return [
        Sent(encode(update, context, values=values), context) for update, context in seen for values in VALUE_CODECS
    ]


def wounded(sent: bytes, rng, other: bytes = b"") -> bytes:
    """One to three wounds: bits, bytes, cuts, insertions, doublings, numbers that are absurd, a part of another one."""
    body = bytearray(sent)
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(0, len(body) + 1)), int(rng.integers(1, 9))
        kind = int(rng.integers(0, 9))
        if kind == 0 and at < len(body):
            body[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            body[at : at + length] = rng.bytes(len(body[at : at + length]))
        elif kind == 2:
            del body[at : at + length]
        elif kind == 3:
            body[at:at] = rng.bytes(length)
        elif kind == 4:
            body[at:at] = body[at : at + length]
        elif kind == 5:
            body[at : at + length] = bytes([rng.choice([0, 255])]) * len(body[at : at + length])
        elif kind == 6:
            width = int(rng.choice([4, 8]))
            body[at : at + width] = int(rng.choice(np.array(EXTREMES[width], np.uint64))).to_bytes(width, "little")
        elif kind == 7:
            del body[at:]
        else:
            body[at:] = other[min(len(other), max(0, at + int(rng.integers(-2, 3)))) :]
    return bytes(body)


def forged(sent: Sent, rng, other: bytes = b"") -> bytes:
    """Wounds behind the header, sometimes modes and the length of the mask part in it, and a right checksum."""
    head = bytearray(sent.body[: message.HEADER_SIZE])
    parts = wounded(sent.body[message.HEADER_SIZE : -16], rng, other[message.HEADER_SIZE : -16])
    if rng.random() < 0.2:
        head[5], head[6] = rng.integers(0, 3), rng.integers(0, 4)
        head[40:56] = bytes(16) if head[5] == message.WHOLE else sent.context.known_digest
    if rng.random() < 0.1:
        struct.pack_into("<Q", head, 16, [int(rng.integers(0, len(parts) + 2)), 2**60, 2**64 - 1][rng.integers(3)])
    return sealed(bytes(head) + parts)

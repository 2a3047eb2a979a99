"""What crosses the network in a round, as messages of `wire`: their sizes, or the model itself.

Both sides know a mask of one another: that of the last message between them, in either direction. `Held` is the
host's record of it, by client: a value that nobody changes, since one thread may be keeping a round while another
plays the next. It is kept beside the checkpoints, so that a run that was stopped sends what it would have sent.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax import wire
from fedsparse_jax.types import Masks, Sent, UsageError

MODES = ("off", "measure", "through")
Held = Mapping[int, Masks]  # NumPy; masks that are equal are mostly one object


class Wire(NamedTuple):
    """How a run sends: ``off``; ``measure`` the lossless messages; ``through``, where what arrives is what counts."""

    mode: str = "off"
    dtype: str = "float32"  # a member of `wire.VALUES`
    seed: int = 0


class Traffic(NamedTuple):
    """Bytes of each client's messages in a round, in the order of the cohort."""

    down: list[int]
    up: list[int]


class Crossed(NamedTuple):
    """What came of sending to, or from, each client."""

    sizes: list[int]  # bytes of each client's messages [C]
    arrived: Sent  # leaves [C, ...]
    held: Held  # the masks that both sides know from now on


def check(settings: Wire) -> None:
    """Refuses settings that mean nothing."""
    if settings.mode not in MODES:
        raise UsageError(f"wire.mode is {settings.mode!r}: it must be one of {', '.join(MODES)}.")
    if settings.dtype not in wire.VALUES:
        raise UsageError(f"wire.dtype is {settings.dtype!r}: it must be one of {', '.join(wire.VALUES)}.")
    if settings.dtype != "float32" and settings.mode != "through":
        raise UsageError(
            f"wire.dtype is {settings.dtype!r}, which changes what arrives; set wire.mode to 'through', or "
            "wire.dtype to 'float32'."
        )


def measure(
    settings: Wire, held: Held, round_: int, ids, down: Sent, up: Sent, shared: bool
) -> tuple[Traffic, Held]:
    """The sizes of a round's messages, and what is held after them."""
    received = cross(settings, held, (round_, 0), ids, down, shared=shared)
    returned = cross(settings, received.held, (round_, 1), ids, up)
    return Traffic(received.sizes, returned.sizes), returned.held


def cross(
    settings: Wire, held: Held, when: tuple[int, int], ids, sent: Sent, *, shared: bool = False
) -> Crossed:
    """Sends each client's part.

    Args:
        settings: with mode ``through`` every message is decoded, and what it holds is what arrives.
        held: masks that both sides know.
        when: the round, and 0 for down or 1 for up: the seed of stochastic rounding.
        ids: ``[C]`` clients.
        sent: leaves ``[C, ...]``.
        shared: everybody is sent the same, the only row of ``sent``, so that clients that hold the same mask get the
            same message.
    """
    on_host = jax.tree.map(np.asarray, sent)
    done: dict[tuple[int, int], tuple[int, Sent]] = {}
    sizes, arrived, now = [], [], dict(held)
    for place, client in enumerate(map(int, ids)):
        known = now.get(client)
        key = (id(known), 0 if shared else place)
        if key not in done:
            row, seed = 0 if shared else place, (settings.seed, *when, 0 if shared else client)
            done[key] = _send(settings, known, jax.tree.map(lambda leaf, i=row: leaf[i], on_host), seed)
        size, what = done[key]
        sizes.append(size)
        arrived.append(what)
        now[client] = what.masks
    if settings.mode != "through":
        return Crossed(sizes, sent, now)
    stack = lambda *leaves: jnp.asarray(np.stack(leaves))
    return Crossed(sizes, jax.tree.map(stack, *arrived), now)


def _send(settings: Wire, known: Masks | None, sent: Sent, seed: tuple[int, ...]) -> tuple[int, Sent]:
    """``(bytes, what arrives)``: one message for the model, and one for each tree of scores that is asked for."""
    update = wire.Update(sent.params, sent.masks)
    size, (params, masks) = _message(settings, update, known, values=settings.dtype, seed=seed)
    scores = list[Any]()
    for each in sent.scores:
        if each is not None:
            each = jax.tree.map(lambda leaf: leaf + np.float32(0), each)  # -0 is 0
            given = jax.tree.map(lambda leaf: leaf != 0, each)  # a score of zero need not be sent
            more, (each, _) = _message(settings, wire.Update(each, given))
            size += more
        scores.append(each)
    if known is not None and jax.tree.all(jax.tree.map(np.array_equal, masks, known)):
        masks = known  # one object for equal masks
    else:
        masks = jax.tree.map(np.array, masks)  # not a view of a whole cohort's
    return size, Sent(params, masks, tuple(scores))


def _message(settings: Wire, update: wire.Update, known: Masks | None = None, **options):
    """``(bytes, what arrives)`` of one message, which is made only where what it holds is to be read again."""
    context = wire.context(update.params, known)
    if settings.mode == "measure":
        return wire.size(update, context), update
    message = wire.encode(update, context, **options)
    return len(message), wire.decode(message, context)


# --- beside the checkpoints ---------------------------------------------------------------------


def save(held: Held, folder: Path, round_: int, keep: int) -> None:
    """Writes ``round.npz``, each distinct mask once, packed; leaves the newest ``keep`` files."""
    folder.mkdir(exist_ok=True)
    distinct = list({id(masks): masks for masks in held.values()}.values())
    which = {id(masks): number for number, masks in enumerate(distinct)}
    flat = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(masks)]) for masks in distinct]
    packed = np.packbits(np.stack(flat), axis=1) if flat else np.zeros((0, 0), np.uint8)
    partial = folder / f"{round_}.partial"
    with open(partial, "wb") as file:
        np.savez(file, masks=packed, clients=list(held), which=[which[id(masks)] for masks in held.values()])
    partial.replace(folder / f"{round_}.npz")
    for old in sorted(folder.glob("*.npz"), key=lambda path: int(path.stem))[:-keep]:
        old.unlink()


def restore(folder: Path, round_: int, like: Masks) -> Held:
    """What `save` wrote; nothing where it did not.

    Args:
        like: a tree with the shapes of the masks.
    """
    file = folder / f"{round_}.npz"
    if not file.exists():
        return {}
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])
    with np.load(file) as stored:
        bits = np.unpackbits(stored["masks"], axis=1, count=int(ends[-1])).astype(bool)
        pairs = zip(stored["clients"].tolist(), stored["which"].tolist(), strict=True)
        split = [np.split(row, ends[:-1]) for row in bits]
        shaped = [
            jax.tree.unflatten(
                structure, [part.reshape(leaf.shape) for part, leaf in zip(row, leaves, strict=True)]
            )
            for row in split
        ]
        return {client: shaped[number] for client, number in pairs}

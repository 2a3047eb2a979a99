"""What crosses the network in a round, as messages of `wire`: their sizes, or the model itself.

Both sides know a mask of one another: that of the last message between them, in either direction; and a client may
remember what its lossy messages have not told yet. `Held` is the host's record of that, by client: a value that nobody
changes, since one thread may be keeping a round while another plays the next. It is kept beside the checkpoints, so
that a run that was stopped sends what it would have sent.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax import communication
from fedsparse_jax.core.types import Masks, Params, Sent, UsageError

MODES = ("off", "measure", "through")


class Known(NamedTuple):
    """What is known of one client between two messages; NumPy."""

    masks: Masks  # to both sides; masks that are equal are mostly one object
    owed: Params | None = None  # to the client alone: what its messages have lost, with ``feedback``


Held = Mapping[int, Known]


class Wire(NamedTuple):
    """How a run sends: ``off``; ``measure`` the lossless messages; ``through``, where what arrives is what counts."""

    mode: str = "off"
    dtype: str = "float32"  # a member of `wire.VALUES`
    feedback: bool = False  # up goes the difference from what came down, and what earlier messages lost of it
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
    if settings.dtype not in communication.VALUES:
        raise UsageError(
            f"wire.dtype is {settings.dtype!r}: it must be one of {', '.join(communication.VALUES)}."
        )
    if settings.dtype != "float32" and settings.mode != "through":
        raise UsageError(
            f"wire.dtype is {settings.dtype!r}, which changes what arrives; set wire.mode to 'through', or "
            "wire.dtype to 'float32'."
        )
    if settings.feedback and settings.dtype == "float32":
        raise UsageError(
            "wire.feedback makes good what lossy messages lose, but wire.dtype 'float32' loses nothing; choose another "
            "wire.dtype, or set wire.feedback to False."
        )


def measure(
    settings: Wire, held: Held, round_: int, ids, down: Sent, up: Sent, shared: bool
) -> tuple[Traffic, Held]:
    """The sizes of a round's messages, and what is held after them."""
    received = cross(settings, held, (round_, 0), ids, down, shared=shared)
    returned = cross(settings, received.held, (round_, 1), ids, up)
    return Traffic(received.sizes, returned.sizes), returned.held


def cross(
    settings: Wire,
    held: Held,
    when: tuple[int, int],
    ids,
    sent: Sent,
    *,
    shared: bool = False,
    base: Params | None = None,
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
        base: what the clients had been sent, leaves ``[C, ...]``; with ``feedback`` they send the difference.
    """
    on_host, bases = jax.tree.map(np.asarray, (sent, base if settings.feedback else None))
    done: dict[tuple[int, int], tuple[int, Sent, Params | None]] = {}
    sizes, arrived, now = [], [], dict(held)
    layout = communication.context(jax.tree.map(lambda leaf: leaf[0], on_host.params))
    contexts: dict[int, communication.Context] = {}  # by mask: clients that hold the same one share it
    for place, client in enumerate(map(int, ids)):
        masks, owed = now.get(client, (None, None))
        key = (id(masks), 0 if shared else place)
        if id(masks) not in contexts:
            contexts[id(masks)] = communication.knowing(layout, masks)
        if key not in done:
            row, seed = 0 if shared else place, (settings.seed, *when, 0 if shared else client)
            one, start = jax.tree.map(lambda leaf, i=row: leaf[i], (on_host, bases))
            done[key] = _send(settings, contexts[id(masks)], masks, owed, one, seed, start)
        size, what, lost = done[key]
        now[client] = Known(what.masks, owed if bases is None else lost)
        sizes.append(size)
        arrived.append(what)
    if settings.mode != "through":
        return Crossed(sizes, sent, now)
    stack = lambda *leaves: jnp.asarray(np.stack(leaves))
    return Crossed(sizes, jax.tree.map(stack, *arrived), now)


def _send(
    settings: Wire, context: communication.Context, held, owed, sent: Sent, seed, base: Params | None
) -> tuple[int, Sent, Params | None]:
    """``(bytes, what arrives, what was lost)``: one message for the model, one for each tree of scores asked for."""
    update, masks = communication.Update(sent.params, sent.masks), sent.masks
    if base is None:
        size, (params, masks) = _message(settings, update, context, values=settings.dtype, seed=seed)
    else:
        size, params, owed = _difference(settings, update, context, owed, seed, base)
    plain, scores = communication.knowing(context, None), list[Any]()
    for each in sent.scores:
        if each is not None:
            each = jax.tree.map(lambda leaf: leaf + np.float32(0), each)  # -0 is 0
            given = jax.tree.map(lambda leaf: leaf != 0, each)  # a score of zero need not be sent
            more, (each, _) = _message(settings, communication.Update(each, given), plain)
            size += more
        scores.append(each)
    if held is not None and jax.tree.all(jax.tree.map(np.array_equal, masks, held)):
        masks = held  # one object for equal masks
    else:
        masks = jax.tree.map(np.array, masks)  # not a view of a whole cohort's
    return size, Sent(params, masks, tuple(scores)), owed


def _difference(
    settings: Wire, update: communication.Update, context: communication.Context, owed, seed, base: Params
):
    """``(bytes, weights that arrive, what the message has lost)``: both sides add the difference to ``base``."""
    masked = lambda m, values: np.where(m, values, np.float32(0))
    difference = jax.tree.map(lambda m, w, b: masked(m, w - b), update.masks, update.params, base)
    owed = jax.tree.map(np.zeros_like, base) if owed is None else owed
    message, owed = communication.feedback(
        communication.Update(difference, update.masks), owed, context, values=settings.dtype, seed=seed
    )
    told = communication.decode(message, context).params
    return len(message), jax.tree.map(lambda m, b, d: masked(m, b + d), update.masks, base, told), owed


def _message(settings: Wire, update: communication.Update, context: communication.Context, **options):
    """``(bytes, what arrives)`` of one message, which is made only where what it holds is to be read again."""
    if settings.mode == "measure":
        return communication.size(update, context), update
    message = communication.encode(update, context, **options)
    return len(message), communication.decode(message, context)


# --- beside the checkpoints ---------------------------------------------------------------------


def save(held: Held, folder: Path, round_: int, keep: int) -> None:
    """Writes ``round.npz``, each distinct mask once, packed; leaves the newest ``keep`` files."""
    folder.mkdir(exist_ok=True)
    distinct = list({id(known.masks): known.masks for known in held.values()}.values())
    which = {id(masks): number for number, masks in enumerate(distinct)}
    flat = lambda tree: np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    packed = np.packbits(np.stack([*map(flat, distinct)]), axis=1) if distinct else np.zeros((0, 0), np.uint8)
    numbers = [which[id(known.masks)] for known in held.values()]
    owing = [client for client, known in held.items() if known.owed is not None]
    owed = np.array([flat(held[client].owed) for client in owing], np.float32)
    partial = folder / f"{round_}.partial"
    with open(partial, "wb") as file:
        np.savez(file, masks=packed, clients=list(held), which=numbers, owing=owing, owed=owed)
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

    def shaped(row):
        parts = zip(np.split(row, ends[:-1]), leaves, strict=True)
        return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in parts])

    with np.load(file) as stored:
        masks = [
            shaped(row) for row in np.unpackbits(stored["masks"], axis=1, count=int(ends[-1])).astype(bool)
        ]
        owing = stored["owing"].tolist() if "owing" in stored else []
        owed = (
            {client: shaped(row) for client, row in zip(owing, stored["owed"], strict=True)} if owing else {}
        )
        pairs = zip(stored["clients"].tolist(), stored["which"].tolist(), strict=True)
        return {client: Known(masks[number], owed.get(client)) for client, number in pairs}

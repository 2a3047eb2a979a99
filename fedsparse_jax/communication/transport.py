"""A round's messages: their lengths, or the model sent through them; and the masks that both sides know.

After each message, server and client share its mask, so that the next message sends only the change. With lossy values
a client also keeps the rounding error of its message and adds it to the next one (error feedback). `SharedMasks` is
the host's record of both, by client: a value that nobody changes, since one thread may be keeping a round while another
plays the next. It is kept beside the checkpoints, so that a run that was stopped sends what it would have sent.
"""

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.communication import message as codec
from fedsparse_jax.communication.value_codecs import VALUE_CODECS
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.files import read_npz, write_whole
from fedsparse_jax.core.streams import Stream
from fedsparse_jax.core.types import Masks, Params, Payload

MODES = ("off", "measure", "transmit")


class ClientRecord(NamedTuple):
    """What is known of one client between two messages; NumPy."""

    masks: Masks  # known to both sides; masks that are equal are mostly one object
    residual: Params | None = None  # known to the client alone: what its messages have lost, with ``feedback``


SharedMasks = Mapping[int, ClientRecord]  # by client id


class MessageSettings(NamedTuple):
    """How a run sends: ``off``; ``measure`` the lossless messages; ``transmit``, where what is decoded counts."""

    mode: str = "off"
    dtype: str = "float32"  # a member of ``VALUE_CODECS``
    feedback: bool = False  # up goes the difference from what came down, and the residual of earlier messages
    seed: int = 0


class Traffic(NamedTuple):
    """Bytes of each client's messages in a round, in the order of the cohort."""

    down: list[int]
    up: list[int]


class Transmission(NamedTuple):
    """What came of sending to, or from, each client."""

    sizes: list[int]  # bytes of each client's messages [C]
    received: Payload  # leaves [C, ...]
    shared_masks: SharedMasks  # known to both sides from now on


def check_settings(settings: MessageSettings) -> None:
    """Refuses settings that mean nothing.

    Raises:
        ArgumentError: an unknown mode or dtype, or a lossy dtype or feedback without its counterpart.
    """
    if settings.mode not in MODES:
        raise ArgumentError("mode", settings.mode, f"it must be one of {', '.join(MODES)}")
    if settings.dtype not in VALUE_CODECS:
        raise ArgumentError("dtype", settings.dtype, f"it must be one of {', '.join(VALUE_CODECS)}")
    if settings.dtype != "float32" and settings.mode != "transmit":
        rule = "that changes what is received; set mode to 'transmit', or dtype to 'float32'"
        raise ArgumentError("dtype", settings.dtype, rule)
    if settings.feedback and settings.dtype == "float32":
        rule = (
            "it makes good what lossy messages lose, but dtype 'float32' loses nothing; choose another dtype, or set "
            "feedback to False"
        )
        raise ArgumentError("feedback", settings.feedback, rule)


def measure_round(
    settings: MessageSettings,
    shared_masks: SharedMasks,
    round_: int,
    ids,
    download: Payload,
    upload: Payload,
    same_for_all: bool,
    lost: np.ndarray | None = None,
) -> tuple[Traffic, SharedMasks]:
    """The lengths of a round's messages, and the masks that are shared after them.

    Args:
        settings, shared_masks, ids, same_for_all: see `transmit`.
        round_: counted from 1.
        download, upload: what the clients were sent, and what they sent.
        lost: whose upload does not reach the server, see `transmit`.
    """
    down = transmit(settings, shared_masks, (round_, 0), ids, download, same_for_all=same_for_all)
    up = transmit(settings, down.shared_masks, (round_, 1), ids, upload, lost=lost)
    return Traffic(down.sizes, up.sizes), up.shared_masks


def transmit(
    settings: MessageSettings,
    shared_masks: SharedMasks,
    when: tuple[int, int],
    ids,
    payload: Payload,
    *,
    same_for_all: bool = False,
    base: Params | None = None,
    lost: np.ndarray | None = None,
) -> Transmission:
    """Sends each client's part.

    Args:
        settings: with mode ``transmit`` every message is decoded, and what it holds is what is received.
        shared_masks: masks that both sides know.
        when: the round, and 0 for down or 1 for up: the seed of stochastic rounding.
        ids: ``[C]`` clients.
        payload: leaves ``[C, ...]``.
        same_for_all: everybody is sent the same, the only row of the payload, so that clients that share the same mask
            with the server get the same message.
        base: what the clients had been sent, leaves ``[C, ...]``; with ``feedback`` they send the difference.
        lost: ``bool[C]``, messages that do not arrive: of 0 bytes, and both sides know what they knew before. What is
            then "received" is not to be used.
    """
    on_host, bases = jax.tree.map(np.asarray, (payload, base if settings.feedback else None))
    layout = codec.make_context(jax.tree.map(lambda leaf: leaf[0], on_host.params))
    contexts: dict[int, codec.Context] = {}  # by mask: clients that hold the same one share it
    sent: dict[tuple[int, int], tuple[int, Payload, Params | None]] = {}
    sizes, received, records = [], [], dict(shared_masks)
    for place, client in enumerate(map(int, ids)):
        known, residual = records.get(client, (None, None))
        row, rounding = (0, 0) if same_for_all else (place, client)
        if lost is not None and lost[place]:
            sizes.append(0)
            received.append(jax.tree.map(lambda leaf, i=row: leaf[i], on_host))
            continue
        if id(known) not in contexts:  # ``records`` keeps each mask alive, so that its id stays its own
            contexts[id(known)] = codec.with_known_mask(layout, known)
        if (id(known), row) not in sent:
            own, start = jax.tree.map(lambda leaf, i=row: leaf[i], (on_host, bases))
            seed = (settings.seed, Stream.MESSAGE_ROUNDING, *when, rounding)
            sent[id(known), row] = _send(settings, contexts[id(known)], known, residual, own, seed, start)
        size, decoded, owed = sent[id(known), row]
        records[client] = ClientRecord(decoded.masks, residual if bases is None else owed)
        sizes.append(size)
        received.append(decoded)
    if settings.mode != "transmit":
        return Transmission(sizes, payload, records)
    stack = lambda *leaves: jnp.asarray(np.stack(leaves))
    return Transmission(sizes, jax.tree.map(stack, *received), records)


def _send(
    settings: MessageSettings, context: codec.Context, known, residual, own: Payload, seed, base: Params | None
) -> tuple[int, Payload, Params | None]:
    """``(bytes, what is received, residual)``: one message for the model, one for each tree of scores asked for.

    Weights that are not numbers go as they are, in float32, so that the server can see them and leave the client out.
    """
    update, masks = codec.Update(own.params, own.masks), own.masks
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own.params))
    if base is None or not finite:
        dtype = settings.dtype if finite else "float32"
        size, (params, masks) = _message(settings, update, context, values=dtype, seed=seed)
    else:
        size, params, residual = _send_difference(settings, update, context, residual, seed, base)
    plain, scores = codec.with_known_mask(context, None), list[Any]()
    for tree in own.scores:
        tree = jax.tree.map(lambda leaf: leaf + np.float32(0), tree)  # -0 is 0
        # A score of zero need not be sent, nor a message of none, as in rounds that ask for none.
        nonzero = jax.tree.map(lambda leaf: leaf != 0, tree)
        if any(leaf.any() for leaf in jax.tree.leaves(nonzero)):
            more, (tree, _) = _message(settings, codec.Update(tree, nonzero), plain)
            size += more
        scores.append(tree)
    if known is not None and jax.tree.all(jax.tree.map(np.array_equal, masks, known)):
        masks = known  # one object for equal masks
    else:
        masks = jax.tree.map(np.array, masks)  # not a view of a whole cohort's
    return size, Payload(params, masks, tuple(scores)), residual


def _send_difference(
    settings: MessageSettings, update: codec.Update, context: codec.Context, residual, seed, base: Params
):
    """``(bytes, weights that are received, residual)``: both sides add the difference to ``base``."""
    masked = lambda m, values: np.where(m, values, np.float32(0))
    difference = jax.tree.map(lambda m, w, b: masked(m, w - b), update.masks, update.params, base)
    residual = jax.tree.map(np.zeros_like, base) if residual is None else residual
    message, residual = codec.encode_with_feedback(
        codec.Update(difference, update.masks), residual, context, values=settings.dtype, seed=seed
    )
    decoded = codec.decode(message, context).params
    received = jax.tree.map(lambda m, b, d: masked(m, b + d), update.masks, base, decoded)
    return len(message), received, residual


def _message(settings: MessageSettings, update: codec.Update, context: codec.Context, **options):
    """``(bytes, what is received)`` of one message, which is made only where what it holds is to be read again."""
    if settings.mode == "measure":
        return codec.message_size(update, context), update
    message = codec.encode(update, context, **options)
    return len(message), codec.decode(message, context)


def save_records(shared_masks: SharedMasks, folder: Path, round_: int) -> None:
    """Writes ``round.npz``, each distinct mask once, packed."""
    distinct = list({id(record.masks): record.masks for record in shared_masks.values()}.values())
    number = {id(masks): place for place, masks in enumerate(distinct)}
    flat = lambda tree: np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    packed = np.packbits(np.stack([*map(flat, distinct)]), axis=1) if distinct else np.zeros((0, 0), np.uint8)
    numbers = [number[id(record.masks)] for record in shared_masks.values()]
    owing = [client for client, record in shared_masks.items() if record.residual is not None]
    owed = np.array([flat(shared_masks[client].residual) for client in owing], np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, masks=packed, clients=list(shared_masks), which=numbers, owing=owing, owed=owed)
    write_whole(folder / f"{round_}.npz", buffer.getvalue())


def forget_records(folder: Path, rounds: Collection[int]) -> None:
    """Deletes the records of all rounds but these; a record must not go before its checkpoint, nor stay behind it."""
    for file in folder.glob("*.npz"):
        if int(file.stem) not in rounds:
            file.unlink()


def has_records(folder: Path, round_: int) -> bool:
    """Whether a round's records are there and can be read to the end; each array of the file has a checksum."""
    try:
        return bool(read_npz(folder / f"{round_}.npz"))
    except (OSError, UsageError):
        return False


def load_records(folder: Path, round_: int, like: Masks) -> SharedMasks:
    """What `save_records` wrote; nothing where it did not.

    Args:
        folder, round_: see `save_records`.
        like: a tree with the shapes of the masks.

    Raises:
        UsageError: the file is damaged, or of another model.
    """
    file = folder / f"{round_}.npz"
    if not file.exists():
        return {}
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])

    def shaped(row):
        parts = zip(np.split(row, ends[:-1]), leaves, strict=True)
        return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in parts])

    stored = read_npz(file)
    packed = stored["masks"]
    if len(packed) and packed.shape[1:] != (-(-int(ends[-1]) // 8),):
        raise UsageError(f"{file} holds the masks of another model; put a sound copy in its place.")
    masks = [shaped(row) for row in np.unpackbits(packed, axis=1, count=int(ends[-1])).astype(bool)]
    owing = stored["owing"].tolist() if "owing" in stored else []
    residuals = dict(zip(owing, map(shaped, stored["owed"]), strict=True)) if owing else {}
    pairs = zip(stored["clients"].tolist(), stored["which"].tolist(), strict=True)
    return {client: ClientRecord(masks[place], residuals.get(client)) for client, place in pairs}

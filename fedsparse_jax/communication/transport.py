"""A round's messages: their lengths, or the model sent through them; and the masks that both sides know.

After each message, server and client share its mask, so that the next message sends only the change. With lossy values
a client also keeps the rounding error of its message and adds it to the next one (error feedback). `SharedMasks` is
the host's record of both, by client: a value that nobody changes, since one thread may be keeping a round while another
plays the next. It is kept beside the checkpoints, so that a run that was stopped sends what it would have sent.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.communication import message as codec
from fedsparse_jax.communication.value_codecs import VALUE_CODECS
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.files import npz_bytes, read_npz, write_whole
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
    lost: np.ndarray | None = None,
) -> tuple[Traffic, SharedMasks]:
    """The lengths of a round's messages, and the masks that are shared after them.

    Args:
        settings, shared_masks, ids: see `transmit`.
        round_: counted from 1.
        download, upload: what the clients were sent, of which there is one row if all were sent the same, and what they
            sent.
        lost: whose upload does not reach the server, see `transmit`.
    """
    same_for_all = len(jax.tree.leaves(download)[0]) == 1
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
            seed = rounding_seed(settings, when, rounding)
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
    """``(bytes, what is received, residual)``: one message for the model, one for each tree of scores asked for."""
    if settings.mode == "measure":
        size, received = _measure(context, own)
    else:
        messages, residual = write_messages(settings, context, own, seed, base, residual)
        size, received = sum(map(len, messages)), read_messages(settings, context, messages, base)
    return size, received._replace(masks=one_object(received.masks, known)), residual


def one_object(masks: Masks, known: Masks | None) -> Masks:
    """``known`` itself where ``masks`` are equal to it; else a copy, not a view of a whole cohort's."""
    if known is not None and jax.tree.all(jax.tree.map(np.array_equal, masks, known)):
        return known
    return jax.tree.map(np.array, masks)


def write_messages(
    settings: MessageSettings,
    context: codec.Context,
    own: Payload,
    seed,
    base: Params | None = None,
    residual: Params | None = None,
) -> tuple[list[bytes], Params | None]:
    """The messages of one client's round in one direction: of the model, then one of each tree of scores.

    Weights that are not numbers go as they are, in float32, so that the server can see them and leave the client out.

    Args:
        settings: of the run.
        context: what the receiver knows.
        own: what is sent, NumPy, without the client axis.
        seed: of stochastic rounding, see `rounding_seed`.
        base: with ``feedback`` what had been sent down, from which the difference is sent.
        residual: what earlier messages lost; None before the first.

    Returns:
        ``(messages, residual)``; a tree of scores that are all zero is an empty message.
    """
    update = codec.Update(own.params, own.masks)
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own.params))
    if base is None or not finite:
        messages = [codec.encode(update, context, values=settings.dtype if finite else "float32", seed=seed)]
    else:
        difference = jax.tree.map(lambda m, w, b: _masked(m, w - b), update.masks, update.params, base)
        residual = jax.tree.map(np.zeros_like, base) if residual is None else residual
        message, residual = codec.encode_with_feedback(
            codec.Update(difference, update.masks), residual, context, values=settings.dtype, seed=seed
        )
        messages = [message]
    plain = codec.with_known_mask(context, None)
    for scores in map(_nonzero_scores, own.scores):
        messages.append(codec.encode(scores, plain) if _has_any(scores) else b"")
    return messages, residual


def read_messages(
    settings: MessageSettings, context: codec.Context, messages: Sequence[bytes], base: Params | None = None
) -> Payload:
    """What `write_messages` sent, as the receiver has it.

    Args:
        settings, context: as there.
        messages: from anywhere.
        base: as there; both sides add the difference to it.

    Raises:
        MessageError: a message is damaged, or builds on what this side does not hold.
    """
    params, masks = codec.decode(messages[0], context)
    if base is not None and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        params = jax.tree.map(lambda m, b, d: _masked(m, b + d), masks, base, params)
    plain, scores = codec.with_known_mask(context, None), list[Any]()
    for message in messages[1:]:
        scores.append(codec.decode(message, plain).params if message else jax.tree.map(np.zeros_like, params))
    return Payload(params, masks, tuple(scores))


def rounding_seed(settings: MessageSettings, when: tuple[int, int], client: int) -> tuple[int, ...]:
    """The seed of a message's stochastic rounding; ``when`` as in `transmit`, ``client`` 0 where all get the same."""
    return settings.seed, Stream.MESSAGE_ROUNDING, *when, client


def _measure(context: codec.Context, own: Payload) -> tuple[int, Payload]:
    """``(bytes, what is received)`` of the lossless messages, none of which is made."""
    scores, plain = [*map(_nonzero_scores, own.scores)], codec.with_known_mask(context, None)
    size = codec.message_size(codec.Update(own.params, own.masks), context)
    size += sum(codec.message_size(one, plain) for one in scores if _has_any(one))
    return size, own._replace(scores=tuple(one.params for one in scores))


def _nonzero_scores(scores: Params) -> codec.Update:
    """Scores and which of them are not zero: one of zero need not be sent, nor a message of none."""
    scores = jax.tree.map(lambda leaf: leaf + np.float32(0), scores)  # -0 is 0
    return codec.Update(scores, jax.tree.map(lambda leaf: leaf != 0, scores))


def _has_any(scores: codec.Update) -> bool:
    return any(leaf.any() for leaf in jax.tree.leaves(scores.masks))


def _masked(mask, values):
    return np.where(mask, values, np.float32(0))


def save_records(shared_masks: SharedMasks, folder: Path, round_: int) -> None:
    """Writes ``round.npz``."""
    write_whole(folder / f"{round_}.npz", npz_bytes(records_as_arrays(shared_masks)))


def records_as_arrays(shared_masks: SharedMasks) -> dict[str, Any]:
    """What a file of them holds: each distinct mask once, packed; who has which; and what is owed."""
    distinct = list({id(record.masks): record.masks for record in shared_masks.values()}.values())
    number = {id(masks): place for place, masks in enumerate(distinct)}
    flat = lambda tree: np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    packed = np.packbits(np.stack([*map(flat, distinct)]), axis=1) if distinct else np.zeros((0, 0), np.uint8)
    numbers = [number[id(record.masks)] for record in shared_masks.values()]
    owing = [client for client, record in shared_masks.items() if record.residual is not None]
    owed = np.array([flat(shared_masks[client].residual) for client in owing], np.float32)
    clients, which = np.array(list(shared_masks), np.int64), np.array(numbers, np.int64)
    return {"masks": packed, "clients": clients, "which": which, "owing": np.array(owing, np.int64), "owed": owed}


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
    try:
        return records_of_arrays(read_npz(file), like)
    except ArgumentError as error:
        raise UsageError(f"{file} holds the masks of another model; put a sound copy in its place.") from error


def records_of_arrays(stored: dict[str, np.ndarray], like: Masks) -> SharedMasks:
    """The inverse of `records_as_arrays`.

    Args:
        stored: the arrays.
        like: a tree with the shapes of the masks.

    Raises:
        ArgumentError: they are of another model.
    """
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])

    def shaped(row):
        parts = zip(np.split(row, ends[:-1]), leaves, strict=True)
        return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in parts])

    packed = stored["masks"]
    if len(packed) and packed.shape[1:] != (-(-int(ends[-1]) // 8),):
        raise ArgumentError("like", packed.shape, "the masks are of another model")
    masks = [shaped(row) for row in np.unpackbits(packed, axis=1, count=int(ends[-1])).astype(bool)]
    owing = stored["owing"].tolist() if "owing" in stored else []
    residuals = dict(zip(owing, map(shaped, stored["owed"]), strict=True)) if owing else {}
    pairs = zip(stored["clients"].tolist(), stored["which"].tolist(), strict=True)
    return {client: ClientRecord(masks[place], residuals.get(client)) for client, place in pairs}

"""The frame: what both sides know, what is sent, and the checks before a byte of it is believed."""

import hashlib
import json
import math
import struct
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np

from fedsparse_jax.communication import mask_codec
from fedsparse_jax.communication.byte_reader import ByteReader, MessageError
from fedsparse_jax.communication.value_codecs import VALUE_CODECS, size_float32
from fedsparse_jax.core import tree
from fedsparse_jax.core.types import Masks, Params

MAGIC, VERSION = b"FSJW", 1
HEADER = "<4sBBBBQQ16s16s"  # magic, version, mask, values, zero, length, length of the mask part, layout, known mask
HEADER_SIZE, DIGEST_SIZE = struct.calcsize(HEADER), 16
WHOLE, SAME, CHANGE = range(3)
MASKS = {WHOLE: "whole", SAME: "same", CHANGE: "change"}
FINITE = ("keep", "refuse")


class Update(NamedTuple):
    """What one side sends: weights, and which of them are kept. A pruned weight is +0."""

    params: Params
    masks: Masks


class Context(NamedTuple):
    """What both sides know before the message; made by `make_context`."""

    structure: Any  # of the tree
    shapes: tuple[tuple[int, ...], ...]
    digest: bytes  # of names, types and shapes
    known: tuple[np.ndarray, ...] | None = None  # the leaves of a mask that both hold, flat, or None
    known_digest: bytes = bytes(DIGEST_SIZE)


def make_context(params: Params, known: Masks | None = None) -> Context:
    """What both sides know: the layout of ``params``, whose values do not matter, and perhaps a mask.

    Args:
        params: float32 arrays, or shapes such as from ``jax.eval_shape``.
        known: the mask that both sides hold: that of the last message, or of the model that was sent down.
    """
    leaves, structure = jax.tree.flatten(params)
    names = tree.leaf_names(params)
    for name, leaf in zip(names, leaves, strict=True):
        if leaf.dtype != np.float32 or math.prod(leaf.shape) >= 2**32:
            raise MessageError(f"{name} is {leaf.dtype}{list(leaf.shape)}: only float32 below 2**32 weights is sent.")
    shapes = tuple(tuple(leaf.shape) for leaf in leaves)
    listed = [[name, "float32", list(shape)] for name, shape in zip(names, shapes, strict=True)]
    layout = content_hash(json.dumps(listed, separators=(",", ":")).encode())
    return with_known_mask(Context(structure, shapes, layout), known)


def with_known_mask(context: Context, known: Masks | None) -> Context:
    """The same layout, and a mask that both sides hold, or none."""
    if known is None:
        return context._replace(known=None, known_digest=bytes(DIGEST_SIZE))
    flat = tuple(_flat(known, context, np.bool_, "the known mask"))
    return context._replace(known=flat, known_digest=content_hash(b"".join(map(mask_codec.pack_bits, flat))))


def content_hash(data) -> bytes:
    """BLAKE2b of 16 bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest()


def _flat(tree_, context: Context, dtype, what: str) -> list[np.ndarray]:
    """The leaves on the host, one axis each, where they fit the layout."""
    leaves, structure = jax.tree.flatten(tree_)
    arrays = [np.asarray(leaf) for leaf in leaves]
    shapes = tuple(leaf.shape for leaf in arrays)
    if structure != context.structure or shapes != context.shapes or any(leaf.dtype != dtype for leaf in arrays):
        raise MessageError(f"{what} does not have the names, shapes and types of the context; make one of its own.")
    return [np.ascontiguousarray(leaf).reshape(-1) for leaf in arrays]


def encode(update: Update, context: Context, *, values: str = "float32", seed=0, finite: str = "keep") -> bytes:
    """The shortest message that tells the receiver the update.

    Args:
        update: params and masks, both with the tree of the context.
        context: what the receiver knows.
        values: a member of ``VALUE_CODECS``; only float32 is exact.
        seed: of the stochastic rounding; a number or a sequence of them, such as (seed, round, client).
        finite: what to do where a kept weight is not a finite number: ``keep`` or ``refuse``.

    Raises:
        MessageError: the update does not fit the context, has something else than +0 where its mask prunes, or holds
            what is refused or what ``values`` cannot carry.
    """
    coder = _member(VALUE_CODECS, values, "values")
    _member(FINITE, finite, "finite")
    joined, counts, mode, codings = _parts(update, context)
    if finite == "refuse" and not np.isfinite(joined).all():
        raise MessageError("A weight is not a finite number, which was to be refused.")
    mask_part = b"".join(map(mask_codec.write_bits, codings))
    value_part = coder.pack(joined, counts, np.random.default_rng(seed))
    known = bytes(DIGEST_SIZE) if mode == WHOLE else context.known_digest
    length = HEADER_SIZE + len(mask_part) + len(value_part) + DIGEST_SIZE
    header = struct.pack(HEADER, MAGIC, VERSION, mode, coder.id, 0, length, len(mask_part), context.digest, known)
    body = b"".join((header, mask_part, value_part))
    return body + content_hash(body)


def message_size(update: Update, context: Context) -> int:
    """Bytes of the lossless message that `encode` would make, without making it; errors as there."""
    joined, _, _, codings = _parts(update, context)
    return HEADER_SIZE + sum(coding.size for coding in codings) + size_float32(joined) + DIGEST_SIZE


def take_weights(update: Update, context: Context) -> np.ndarray:
    """The kept weights of all leaves, in leaf order; errors as of `encode`.

    Args:
        update, context: as there.

    Returns:
        ``f32[n]``, as many as the masks keep.
    """
    return _joined(_chosen(update, context)[1])


def place_weights(weights: np.ndarray, masks: Masks, context: Context) -> Params:
    """The inverse of `take_weights`.

    Args:
        weights: ``[n]``.
        masks: those of the update.
        context: as there.

    Raises:
        MessageError: the masks do not fit the context, or keep another number of weights.
    """
    positions = [np.flatnonzero(leaf) for leaf in _flat(masks, context, np.bool_, "the mask of the weights")]
    if len(weights) != sum(part.size for part in positions):
        raise MessageError(f"There are {len(weights)} weights, but the mask keeps {sum(map(len, positions))}.")
    return _placed(np.asarray(weights, np.float32), positions, context).params


def _parts(update: Update, context: Context) -> tuple[np.ndarray, list[int], int, list[mask_codec.Coding]]:
    """The kept weights in leaf order, how many each leaf has, and how the mask is told."""
    chosen, weights = _chosen(update, context)
    counts = [part.size for part in weights]
    return _joined(weights), counts, *_code_mask(chosen, counts, context)


def _chosen(update: Update, context: Context) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The mask and the kept weights of each leaf."""
    chosen = _flat(update.masks, context, np.bool_, "the mask of the update")
    return chosen, _kept(_flat(update.params, context, np.float32, "the update"), chosen)


def _joined(weights: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *weights])


def _member(registry, name: str, key: str):
    if name not in registry:
        raise MessageError(f"{key} is {name!r}: it must be one of {', '.join(registry)}.")
    return registry[name] if isinstance(registry, dict) else name


def _kept(params: list[np.ndarray], masks: list[np.ndarray]) -> list[np.ndarray]:
    """The kept weights of each leaf, where all others are +0."""
    weights = []
    for leaf, mask in zip(params, masks, strict=True):
        kept = leaf if mask.all() else leaf[np.flatnonzero(mask)]
        if np.count_nonzero(leaf.view(np.int32)) != np.count_nonzero(kept.view(np.int32)):
            raise MessageError("The update has weights other than +0 where its mask prunes; apply the mask first.")
        weights.append(kept)
    return weights


def _code_mask(masks: list[np.ndarray], counts: list[int], context: Context) -> tuple[int, list[mask_codec.Coding]]:
    """The shortest of: nothing, what has changed since the known mask, the whole mask."""
    known = context.known
    if known is not None and all(map(np.array_equal, masks, known)):
        return SAME, []
    options = {WHOLE: [mask_codec.plan_coding(mask, count) for mask, count in zip(masks, counts, strict=True)]}
    if known is not None:
        options[CHANGE] = _changes(masks, counts, known)
    mode = min(options, key=lambda mode: sum(coding.size for coding in options[mode]))
    return mode, options[mode]


def _changes(masks, counts: list[int], known) -> list[mask_codec.Coding]:
    """For each leaf what survives of the known mask, then for each leaf what has grown beside it."""
    survived, grown = [], []
    for mask, count, old in zip(masks, counts, known, strict=True):
        inside = mask[np.flatnonzero(old)]
        left = int(np.count_nonzero(inside))
        survived.append(mask_codec.plan_coding(inside, left))
        grown.append(
            mask_codec.Coding(mask_codec.NONE)
            if left == count
            else mask_codec.plan_coding(mask[np.flatnonzero(~old)], count - left)
        )
    return survived + grown


def mask_part_size(message: bytes) -> int:
    """Bytes of the mask part of a message that `encode` made."""
    return struct.unpack_from(HEADER, message)[6]


def known_digest(message: bytes) -> bytes:
    """Of the known mask that a message from anywhere builds on; zeros for a whole one, or what is no message at all."""
    whole = len(message) < HEADER_SIZE + DIGEST_SIZE
    return bytes(DIGEST_SIZE) if whole else struct.unpack_from(HEADER, message)[8]


def decode(message: bytes, context: Context, *, finite: str = "keep") -> Update:
    """The update that was encoded, in NumPy arrays.

    Args:
        message: from anywhere.
        context: what this side knows; it must be what the sender took for known.
        finite: what to do where a weight is not a finite number: ``keep`` or ``refuse``.

    Raises:
        MessageError: the message is damaged, or of another version, model or known mask. Nothing else is raised, and no
            more memory is taken than a few times the tree and the message.
    """
    _member(FINITE, finite, "finite")
    try:
        return _decode(memoryview(message).cast("B"), context, finite)
    except MessageError:
        raise
    except (ValueError, TypeError, IndexError, OverflowError, MemoryError, struct.error, zlib.error) as error:
        raise MessageError(f"The message is damaged: {error}.") from error


def _decode(message: memoryview, context: Context, finite: str) -> Update:
    mode, values, mask_length = _check_frame(message, context)
    body = ByteReader(message[HEADER_SIZE:-DIGEST_SIZE])
    positions = _read_masks(ByteReader(body.take(mask_length)), mode, context)
    counts = [part.size for part in positions]
    joined = values.unpack(body, counts)
    body.end()
    if finite == "refuse" and not np.isfinite(joined).all():
        raise MessageError("A weight in the message is not a finite number, which was to be refused.")
    return _placed(joined, positions, context)


def _placed(joined: np.ndarray, positions: list[np.ndarray], context: Context) -> Update:
    """Each weight at its position, +0 and pruned elsewhere."""
    params, masks, at = [], [], 0
    for shape, where in zip(context.shapes, positions, strict=True):
        leaf, mask = np.zeros(math.prod(shape), np.float32), np.zeros(math.prod(shape), np.bool_)
        leaf[where], mask[where] = joined[at : at + where.size], True
        at += where.size
        params.append(leaf.reshape(shape))
        masks.append(mask.reshape(shape))
    return Update(*(jax.tree.unflatten(context.structure, leaves) for leaves in (params, masks)))


def _check_frame(message: memoryview, context: Context):
    """The mask's mode, the member of ``VALUE_CODECS`` and the mask's length, once everything around them is right."""
    if len(message) < HEADER_SIZE + DIGEST_SIZE:
        raise MessageError(f"The message is cut off: {len(message)} bytes are less than its frame.")
    magic, version, mode, id_, zero, length, mask_length, layout, known = struct.unpack_from(HEADER, message)
    if magic != MAGIC:
        raise MessageError("This is not a message of fedsparse_jax.")
    if version != VERSION:
        raise MessageError(f"The message has version {version}, this side reads {VERSION}; update the older side.")
    if length != len(message):
        raise MessageError(f"The message is cut off or damaged: {len(message)} bytes, {length} are announced.")
    if content_hash(message[:-DIGEST_SIZE]) != message[-DIGEST_SIZE:]:
        raise MessageError("The message is damaged: its checksum is wrong.")
    if layout != context.digest:
        raise MessageError("The message is of another model: names or shapes of its weights differ.")
    coders = {coder.id: coder for coder in VALUE_CODECS.values()}
    if mode not in MASKS or id_ not in coders or zero:
        raise MessageError(f"The message is damaged: mask {mode}, values {id_} and {zero} are not of this version.")
    if mode == WHOLE and any(known):
        raise MessageError("The message is damaged: it names a known mask and sends a whole one.")
    if mode != WHOLE and (context.known is None or known != context.known_digest):
        raise MessageError("The message builds on a mask that this side does not hold; ask for a whole one.")
    return mode, coders[id_], mask_length


def _read_masks(reader: ByteReader, mode: int, context: Context) -> list[np.ndarray]:
    """The positions of the kept weights in each leaf."""
    if mode == WHOLE:
        positions = [mask_codec.read_bits(reader, math.prod(shape)) for shape in context.shapes]
    else:
        assert context.known is not None
        positions = [np.flatnonzero(old) for old in context.known]
    if mode == CHANGE:
        survived = [old[mask_codec.read_bits(reader, old.size)] for old in positions]
        positions = [_with_grown(reader, kept, old) for kept, old in zip(survived, context.known or (), strict=True)]
    reader.end()
    return positions


def _with_grown(reader: ByteReader, kept: np.ndarray, old: np.ndarray) -> np.ndarray:
    grown = mask_codec.read_bits(reader, int(old.size - np.count_nonzero(old)))
    return np.sort(np.concatenate([kept, np.flatnonzero(~old)[grown]])) if grown.size else kept


def encode_with_feedback(update: Update, residual: Params, context: Context, **options) -> tuple[bytes, Params]:
    """A lossy message that makes good what earlier ones lost (Karimireddy et al., arXiv 1901.09847).

    It fits updates that add up, such as differences from the model that was sent down.

    Args:
        update: what should arrive.
        residual: what the earlier messages lost, zeros before the first.
        context: as for `encode`.
        **options: of `encode`.

    Returns:
        ``(message, residual)``: what arrives and the new residual add up to the update and the old residual, where the
        mask keeps; what was lost on a weight that is now pruned is forgotten.
    """
    wanted = jax.tree.map(
        lambda m, w, r: np.where(m, np.asarray(w) + np.asarray(r), np.float32(0)), update.masks, update.params, residual
    )
    message = encode(Update(wanted, update.masks), context, **options)
    received = decode(message, context).params
    return message, jax.tree.map(np.subtract, wanted, received)

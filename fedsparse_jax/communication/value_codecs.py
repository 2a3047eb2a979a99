"""The kept weights as bytes: lossless float32, or shorter and lossy.

Weights of a network differ little in magnitude, so that their exponents, eight bits each, carry about three bits: they
are taken out as a plane of their own and Huffman-coded (DEFLATE without its search for repeats, which finds none).
Signs and fractions are as good as random and travel as they are.
"""

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes
import numpy as np

from fedsparse_jax.communication.byte_reader import ByteReader, MessageError

RAW, DEFLATED = 0, 1
PLANE = "<BQ"  # before a plane: how it is coded, and its length
LARGEST = np.finfo(np.float32).max / np.float32(127)  # scale of int8


class ValueCodec(NamedTuple):
    """A way to send kept weights; ``counts`` are those of each leaf, and the weights are in leaf order."""

    id: int  # in the message; never given to another one
    pack: Callable[[np.ndarray, list[int], np.random.Generator], bytes]
    unpack: Callable[[ByteReader, list[int]], np.ndarray]


def pack_plane(plane: np.ndarray) -> bytes:
    """``u8[n]``, Huffman-coded if that is shorter."""
    short = _squeezed(plane)
    tag, body = (DEFLATED, short) if len(short) < plane.size else (RAW, plane.tobytes())
    return struct.pack(PLANE, tag, len(body)) + body


def _squeezed(plane: np.ndarray) -> bytes:
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return squeeze.compress(plane.data) + squeeze.flush()


def unpack_plane(reader: ByteReader, count: int) -> np.ndarray:
    """``u8[count]``; never more than ``count`` bytes are inflated, whatever the message holds."""
    tag, length = reader.numbers(PLANE[1:])
    body = reader.take(length)
    if tag == DEFLATED:
        inflate = zlib.decompressobj(-15)
        body = memoryview(inflate.decompress(body, count + 1))
        if not inflate.eof or inflate.unused_data:
            raise MessageError("The message is damaged: a compressed plane does not end where it should.")
    if tag not in (RAW, DEFLATED) or len(body) != count:
        raise MessageError(f"The message is damaged: {len(body)} bytes in a plane of {count}.")
    return np.frombuffer(body, np.uint8)


def pack_float32(weights: np.ndarray, counts, rng) -> bytes:
    """Exact: the exponents as a plane; then 24 bits each, the fraction below the sign."""
    bits = weights.view(np.uint32)
    rest = np.where(bits >> 31, bits | 0x800000, bits & 0x7FFFFF)
    return pack_plane(_exponents(weights)) + _bytes_of(rest, 3)


def size_float32(weights: np.ndarray) -> int:
    """Bytes of what `pack_float32` makes; a quarter of its work."""
    plane = _exponents(weights)
    return struct.calcsize(PLANE) + min(len(_squeezed(plane)), plane.size) + 3 * plane.size


def _exponents(weights: np.ndarray) -> np.ndarray:
    return (weights.view(np.uint32) >> 23).astype(np.uint8)


def unpack_float32(reader: ByteReader, counts: list[int]) -> np.ndarray:
    """Inverse of `pack_float32`."""
    count = sum(counts)
    exponent = unpack_plane(reader, count).astype(np.uint32)
    rest = _from_bytes(reader.take(3 * count), 3)
    return (((rest & 0x800000) << 8) | (exponent << 23) | (rest & 0x7FFFFF)).view(np.float32)


def _bytes_of(words: np.ndarray, count: int) -> bytes:
    """The ``count`` lowest bytes of each ``u32``, lowest first."""
    return words.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)[:, :count].tobytes()


def _from_bytes(data: memoryview, count: int) -> np.ndarray:
    words = np.zeros((len(data) // count, 4), np.uint8)
    words[:, :count] = np.frombuffer(data, np.uint8).reshape(-1, count)
    return words.view("<u4").ravel()


def pack_bfloat16(weights: np.ndarray, counts, rng) -> bytes:
    """The upper half of a float32, rounded to nearest: the exponents as a plane, then sign and fraction."""
    bits = _quietly(weights, ml_dtypes.bfloat16).view(np.uint16)
    return pack_plane((bits >> 7).astype(np.uint8)) + ((bits >> 8 & 0x80) | (bits & 0x7F)).astype(np.uint8).tobytes()


def unpack_bfloat16(reader: ByteReader, counts: list[int]) -> np.ndarray:
    """Inverse of `pack_bfloat16`, exact."""
    count = sum(counts)
    exponent = unpack_plane(reader, count).astype(np.uint32)
    rest = np.frombuffer(reader.take(count), np.uint8).astype(np.uint32)
    return (((rest & 0x80) << 24) | (exponent << 23) | ((rest & 0x7F) << 16)).view(np.float32)


def pack_float16(weights: np.ndarray, counts, rng) -> bytes:
    """IEEE half precision, rounded to nearest: the upper bytes as a plane, then the lower bytes."""
    halves = _quietly(weights, np.float16)
    if (np.isinf(halves) & np.isfinite(weights)).any():
        raise MessageError("A weight is beyond 65504, the largest float16; send bfloat16 or float32.")
    bits = halves.view(np.uint16)
    return pack_plane((bits >> 8).astype(np.uint8)) + bits.astype(np.uint8).tobytes()


def unpack_float16(reader: ByteReader, counts: list[int]) -> np.ndarray:
    """Inverse of `pack_float16`, exact."""
    count = sum(counts)
    upper = unpack_plane(reader, count).astype(np.uint16)
    lower = np.frombuffer(reader.take(count), np.uint8)
    return _quietly((upper << 8 | lower).view(np.float16), np.float32)


def _quietly(weights: np.ndarray, dtype) -> np.ndarray:
    with np.errstate(all="ignore"):
        return weights.astype(dtype)


def pack_int8(weights: np.ndarray, counts: list[int], rng: np.random.Generator) -> bytes:
    r"""Whole steps of a scale per leaf, :math:`s = \max|w| / 127`, rounded up or down at random.

    ``floor(w / s + u)`` with ``u`` uniform in [0, 1) is unbiased: what is lost in one message is noise, not a drift.
    """
    if not np.isfinite(weights).all():
        raise MessageError("A weight is not a finite number, which int8 cannot carry; send float32.")
    parts = np.split(weights, np.cumsum(counts, dtype=int)[:-1])
    scales = np.array([np.abs(part).max(initial=0) / np.float32(127) for part in parts], "<f4")
    steps = weights / np.maximum(np.repeat(scales, counts), np.float32(1e-45)).astype(np.float64)
    whole = np.clip(np.floor(steps + rng.random(steps.size)), -127, 127).astype(np.int8)
    return scales.tobytes() + pack_plane(whole.view(np.uint8))


def unpack_int8(reader: ByteReader, counts: list[int]) -> np.ndarray:
    """The steps times their leaf's scale."""
    scales = np.frombuffer(reader.take(4 * len(counts)), "<f4").astype(np.float32)
    if not ((scales >= 0) & (scales <= LARGEST)).all():
        raise MessageError("The message is damaged: a scale is not a finite number.")
    whole = unpack_plane(reader, sum(counts)).view(np.int8)
    if (whole == -128).any():  # no sender rounds to it, and times the largest scale it is beyond float32
        raise MessageError("The message is damaged: a step of -128, where the lowest is -127.")
    return _quietly(whole, np.float32) * np.repeat(scales, counts)


VALUE_CODECS: dict[str, ValueCodec] = {
    "float32": ValueCodec(0, pack_float32, unpack_float32),
    "bfloat16": ValueCodec(1, pack_bfloat16, unpack_bfloat16),
    "float16": ValueCodec(2, pack_float16, unpack_float16),
    "int8": ValueCodec(3, pack_int8, unpack_int8),
}

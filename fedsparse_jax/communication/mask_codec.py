"""Vectors of bits as few bytes: the gaps between the rarer bits, Rice-coded.

A gap ``g`` (the bits of the commoner kind before one of the rarer kind) is split at bit k: its quotient ``g >> k``
goes into a unary stream, as so many zeros and a one, its lower k bits into a second stream. For the gaps of a random
mask this is within about 3 % of their entropy, and with k = 0 the unary stream *is* the plain bit mask, so that no
other coder is needed. Each leaf has a k of its own. Both streams are read and written by whole-array operations.
"""

import struct
from typing import NamedTuple

import numpy as np

from fedsparse_jax.communication.byte_reader import ByteReader, MessageError

NONE, ALL, SET, CLEAR = range(4)  # no bit is 1, all are; the positions of the ones follow, or of the zeros
DENSE = 0.4  # share of the rarer bits above which k = 0 is always the best
MAX_K = 31


class Coding(NamedTuple):
    """How a vector will be coded, and its exact size."""

    tag: int
    k: int = 0
    gaps: np.ndarray | None = None  # i64[count], those of the rarer bits
    high: int = 0  # bytes of the unary stream
    size: int = 1  # bytes in all


def plan_coding(bits: np.ndarray, count: int | None = None) -> Coding:
    """The smallest coding of ``bool[n]``, of which ``count`` are set."""
    count = int(np.count_nonzero(bits)) if count is None else count
    if count in (0, bits.size):
        return Coding(NONE if count == 0 else ALL)
    tag = SET if 2 * count <= bits.size else CLEAR
    positions = np.flatnonzero(bits if tag == SET else ~bits)
    gaps = np.diff(positions, prepend=-1) - 1
    ks: tuple[int, ...] = (0,)
    if gaps.size < DENSE * bits.size:
        best = int(np.log2(max(1.0, np.log(2) * gaps.mean())))
        ks = tuple(range(max(0, best - 1), min(MAX_K, best + 1) + 1))
    return min((_sized(tag, k, gaps) for k in ks), key=lambda coding: coding.size)


def _sized(tag: int, k: int, gaps: np.ndarray) -> Coding:
    high = _bytes(int((gaps >> k).sum()) + gaps.size)
    return Coding(tag, k, gaps, high, 10 + high + _bytes(gaps.size * k))


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def write_bits(coding: Coding) -> bytes:
    """The bytes of a coding: a tag; then k, the number of gaps, the length of the unary stream and both streams."""
    if coding.gaps is None:
        return bytes([coding.tag])
    quotients, count = coding.gaps >> coding.k, coding.gaps.size
    unary = np.zeros(8 * coding.high, np.uint8)
    unary[np.cumsum(quotients + 1) - 1] = 1
    header = struct.pack("<BBII", coding.tag, coding.k, count, coding.high)
    return header + pack_bits(unary) + _pack_low(coding.gaps, coding.k)


def pack_bits(bits: np.ndarray) -> bytes:
    """Eight bits to a byte, the first one lowest; zeros fill the last byte."""
    return np.packbits(bits, bitorder="little").tobytes()


def _pack_low(gaps: np.ndarray, k: int) -> bytes:
    """The lower k bits of each gap, the lowest first."""
    low = np.empty((gaps.size, k), np.uint8)
    for bit in range(k):
        low[:, bit] = (gaps >> bit) & 1
    return pack_bits(low.ravel())


def read_bits(reader: ByteReader, size: int) -> np.ndarray:
    """The positions of the ones, ``i64[count]``, in a vector of ``size`` bits."""
    (tag,) = reader.numbers("B")
    if tag == NONE:
        return np.zeros(0, np.int64)
    if tag == ALL:
        return np.arange(size)
    if tag not in (SET, CLEAR):
        raise MessageError(f"The message is damaged: a mask of kind {tag}.")
    k, count, high = reader.numbers("BII")
    if k > MAX_K or count << k > 2 * size or high > _bytes((size >> k) + count):
        raise MessageError(f"The message is damaged: {count} gaps in a mask of {size}, split at bit {k}.")
    unary = np.unpackbits(np.frombuffer(reader.take(high), np.uint8), bitorder="little")
    ends = np.flatnonzero(unary)
    if ends.size != count:
        raise MessageError(f"The message is damaged: {ends.size} gaps where {count} are announced.")
    if high != _bytes(int(ends[-1]) + 1 if count else 0):
        raise MessageError("The message is damaged: a stream of gaps goes on behind its last gap.")
    low = _unpack_low(reader.take(_bytes(count * k)), count, k)
    gaps = (np.diff(ends, prepend=-1) - 1 << k) | low
    positions = np.cumsum(gaps + 1) - 1
    if count and positions[-1] >= size:
        raise MessageError(f"The message is damaged: position {positions[-1]} in a mask of {size}.")
    if tag == SET:
        return positions
    clear = np.ones(size, bool)
    clear[positions] = False
    return np.flatnonzero(clear)


def _unpack_low(data: memoryview, count: int, k: int) -> np.ndarray:
    every = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if every[count * k :].any():
        raise MessageError("The message is damaged: ones fill the last byte of a mask, where zeros should.")
    bits = every[: count * k].reshape(count, k)
    low = np.zeros(count, np.int64)
    for bit in range(k):
        low |= bits[:, bit].astype(np.int64) << bit
    return low

"""A model as one small file that NumPy and the standard library read: values, masks and the model card.

===================  ===========================================================================================
8 bytes              ``FSSPARSE``
4 bytes              length of the header, lowest byte first
the header           JSON: ``format``, ``leaves`` (name and shape of each, in order), ``size`` (all weights),
                     ``kept`` (those of the mask), ``card`` (any JSON)
the rest             a zlib stream of two groups of ``u32[kept]``, each in four planes of bytes, the lowest first
===================  ===========================================================================================

The first group holds the gaps: how far each kept weight is behind the one before, over all leaves in a row. The second
holds the kept weights as float32, their bits turned left by one, so that the exponent is a plane of its own. Huffman's
code makes gaps and exponents about as short as the message does (`fedsparse_jax.communication`), without a code of our
own. docs/how-to/export.md has the ten lines that read it.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Masks, Params

MARK, FORMAT_VERSION, LENGTH = b"FSSPARSE", 1, 4
TOO_MANY = 2**32  # weights of a file that is believed


class SparseModel(NamedTuple):
    """What a sparse file holds, in NumPy arrays."""

    params: Params
    masks: Masks
    card: Any  # JSON


def sparse_bytes(params: Params, masks: Masks, card: Any) -> bytes:
    """The content of a sparse file.

    Args:
        params: a nested dict of float32 arrays, +0 where pruned.
        masks: its masks.
        card: anything that JSON knows.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    listed = [[name, list(leaf.shape)] for name, leaf in zip(tree.leaf_names(params), leaves, strict=True)]
    weights = np.concatenate([leaf.ravel() for leaf in leaves])
    positions = np.flatnonzero(np.concatenate([np.asarray(mask).ravel() for mask in jax.tree.leaves(masks)]))
    gaps = np.diff(positions, prepend=-1).astype("<u4")
    bits = weights[positions].view(np.uint32)
    words = np.stack([gaps, bits << 1 | bits >> 31]).astype("<u4")
    planes = words.view(np.uint8).reshape(2, -1, 4).transpose(0, 2, 1)
    about = {"format": FORMAT_VERSION, "leaves": listed, "size": weights.size, "kept": positions.size, "card": card}
    header = json.dumps(about, separators=(",", ":")).encode()
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 15, 8, zlib.Z_RLE)
    body = squeeze.compress(planes.tobytes()) + squeeze.flush()
    return MARK + len(header).to_bytes(LENGTH, "little") + header + body


def read_sparse(path: Path) -> SparseModel:
    """The model in a sparse file; no more is inflated than its header announces, and nothing is unpickled.

    Raises:
        UsageError: it is no such file, or a damaged one.
    """
    try:
        return sparse_model(path.read_bytes())
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError, RecursionError, zlib.error) as error:
        raise UsageError(f"{path} is damaged ({error}); put a sound copy in its place.") from error


def sparse_model(content: bytes) -> SparseModel:
    """The model in the content of a sparse file; raises all sorts of errors where it is damaged."""
    start = len(MARK) + LENGTH
    if content[: len(MARK)] != MARK:
        raise ValueError(f"it does not begin with {MARK.decode()}")
    end = start + int.from_bytes(content[len(MARK) : start], "little")
    header = json.loads(content[start:end])
    if header["format"] != FORMAT_VERSION:
        raise ValueError(f"its format is {header['format']}, and this version reads {FORMAT_VERSION}")
    shapes = {str(name): tuple(map(int, shape)) for name, shape in header["leaves"]}
    size, kept = sum(map(math.prod, shapes.values())), int(header["kept"])
    if any(side < 0 for shape in shapes.values() for side in shape) or not 0 <= kept <= size < TOO_MANY:
        raise ValueError("it announces weights that cannot be")
    positions, weights = _read_words(content[end:], kept)
    if kept and positions[-1] >= size:
        raise ValueError("a weight lies behind its last leaf")
    flat, mask = np.zeros(size, np.float32), np.zeros(size, bool)
    flat[positions], mask[positions] = weights, True
    return SparseModel(_as_tree(flat, shapes), _as_tree(mask, shapes), header["card"])


def _read_words(body: bytes, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions ``i64[kept]`` and the weights there."""
    inflate = zlib.decompressobj()
    planes = inflate.decompress(body, 8 * kept + 1)
    if len(planes) != 8 * kept or not inflate.eof or inflate.unused_data:
        raise ValueError("its weights are not as many as it announces")
    gaps, bits = np.frombuffer(planes, np.uint8).reshape(2, 4, -1).transpose(0, 2, 1).copy().view("<u4")[..., 0]
    if not gaps.all():
        raise ValueError("two weights lie in one place")
    return np.cumsum(gaps, dtype=np.int64) - 1, (bits >> 1 | bits << 31).view(np.float32)


def _as_tree(flat: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> dict:
    """The leaves by their names, such as ``conv1/kernel``, as a nested dict."""
    nested: dict = {}
    parts = np.split(flat, np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
    for (name, shape), part in zip(shapes.items(), parts, strict=True):
        *path, last = name.split("/")
        node = nested
        for key in path:
            node = node.setdefault(key, {})
        node[last] = part.reshape(shape)
    return nested

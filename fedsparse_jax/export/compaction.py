"""Channels that the prediction does not depend on are taken out of a network, exactly.

A channel is dead where no weight leads to it, and then it is a constant, or where no weight reads it. Who takes one out
may kill another one, so that this is done until nothing is left to do. What stands for a constant:

- Behind an instance norm it is 0, because a constant minus its mean is 0. It goes without a trace.
- Elsewhere it is ``relu(bias)``. A dense layer that reads it gets it added to its bias. A convolution cannot: it pads
  with zeros, so that the constant adds less at the border than inside. There all constants become a single channel of
  ones, and the kernel that reads it is the sum of theirs times their constants.

One channel stays in a layer that has lost all others. "Exactly" is meant for real numbers; the sums that are left have
another order, and differ by rounding.
"""

import math
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.types import Params
from fedsparse_jax.models.chains import LayerChain


class Pair(NamedTuple):
    """A layer and the layer that reads it."""

    writer: str
    reader: str
    norm: bool  # whether the writer has one
    pads: bool  # whether the reader is a convolution
    divisor: float  # between the two


def drop_dead_channels(chain: LayerChain, params: Params) -> Params:
    """The params of a smaller network of the same chain that predicts the same, in NumPy arrays.

    >>> chain = LayerChain((), average=False, dense=("a", "b"))
    >>> a = {"kernel": np.array([[1.0, 0.0, 2.0]]), "bias": np.array([0.0, 3.0, 0.0])}
    >>> b = {"kernel": np.array([[1.0], [5.0], [0.0]]), "bias": np.array([0.5])}
    >>> small = drop_dead_channels(chain, {"a": a, "b": b})
    >>> small["a"]["kernel"].tolist(), small["b"]["kernel"].tolist(), small["b"]["bias"].tolist()
    ([[1.0]], [[1.0]], [15.5])
    """
    layers = {name: {key: np.array(leaf) for key, leaf in layer.items()} for name, layer in params.items()}
    while any([_drop(layers, pair) for pair in _pairs(chain)]):
        pass
    return layers


def _pairs(chain: LayerChain) -> list[Pair]:
    names = [block.layer for block in chain.blocks] + list(chain.dense)
    norms = [block.norm for block in chain.blocks] + [False] * len(chain.dense)
    blocks = len(chain.blocks)
    return [
        Pair(names[i], names[i + 1], norms[i], i + 1 < blocks, chain.divisor if i + 1 == blocks else 1.0)
        for i in range(len(names) - 1)
    ]


def _drop(layers: Params, pair: Pair) -> bool:
    """Takes channels between two layers out, where they are; whether there was one."""
    writer, reader = layers[pair.writer], layers[pair.reader]
    channels = writer["bias"].size
    reads = _by_channel(reader["kernel"], channels, pair.pads)
    silent = ~writer["kernel"].reshape(-1, channels).any(0)
    constant = np.where(silent & (not pair.norm), np.maximum(writer["bias"], 0), 0)
    keep = reads.any((0, 2)) & ~(silent & (constant == 0))
    constants = np.flatnonzero(keep & silent)
    if not pair.pads:
        reader["bias"] = reader["bias"] + np.einsum("c,pco->o", constant[constants], reads[:, constants]) / pair.divisor
        keep[constants] = False
        reads[:, constants] = 0
    elif len(constants) > 1:
        first, *others = constants
        reads[:, first] = np.einsum("c,pco->po", constant[constants], reads[:, constants])
        writer["bias"][first], keep[others] = 1, False
    keep[0] |= not keep.any()
    *lead, _, out = reader["kernel"].shape
    reader["kernel"] = reads[:, keep].reshape(*lead, -1, out) if pair.pads else reads[:, keep].reshape(-1, out)
    writer.update({key: leaf[..., keep] for key, leaf in writer.items()})
    return not keep.all()


def _by_channel(kernel: np.ndarray, channels: int, pads: bool) -> np.ndarray:
    """A kernel as ``[places, channels, outputs]``, a copy."""
    places = math.prod(kernel.shape[:-2]) if pads else kernel.shape[0] // channels
    return kernel.reshape(places, channels, -1).copy()

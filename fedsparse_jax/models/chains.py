"""Networks as chains of plain steps, for whoever takes them apart: `fedsparse_jax.export`.

Every network of the package is blocks of a convolution, perhaps instance norm, perhaps max-pool, and ReLU; then the
average over space, or all features in a row; then dense layers with ReLU between them. A chain says which of these, by
the names of the params. Widths are those of the params, so that a network that has lost channels is the same chain.
"""

from typing import NamedTuple

import jax

from fedsparse_jax.core.types import Array, Params
from fedsparse_jax.models import layers


class Block(NamedTuple):
    """A convolution and what follows it, before its ReLU."""

    layer: str  # in the params
    norm: bool
    pool: bool


class LayerChain(NamedTuple):
    """A network, but for its weights."""

    blocks: tuple[Block, ...]
    average: bool  # whether the features are averaged over space; else they are put in a row, the channel fastest
    dense: tuple[str, ...]  # in the params
    scale: float | None = None  # the prediction is a number times it; None for logits
    divisor: float = 1.0  # of the features before the dense layers


def apply_chain(chain: LayerChain, params: Params, inputs: Array) -> Array:
    """What the network computes: ``[B, *space, C] -> [B]``, or logits ``[B, K]``."""
    features = inputs
    for block in chain.blocks:
        kernel, bias = params[block.layer]["kernel"], params[block.layer]["bias"]
        if block.norm and block.pool:
            features = layers.normed_pool(features, kernel)
        else:
            features = layers.convolve(features, kernel, bias)
            features = layers.instance_norm(features) if block.norm else features
            features = layers.max_pool(features) if block.pool else features
        features = jax.nn.relu(features)
    space = tuple(range(1, features.ndim - 1))
    features = features.mean(space) if chain.average else features.reshape(features.shape[0], -1)
    features = features / chain.divisor
    for place, name in enumerate(chain.dense):
        features = features if place == 0 else jax.nn.relu(features)
        features = features @ params[name]["kernel"]
        features = features + layers.as_last_axis(params[name]["bias"], features)
    return features if chain.scale is None else chain.scale * features[:, 0]

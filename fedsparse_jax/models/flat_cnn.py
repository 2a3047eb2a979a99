"""A small 3D CNN with a flattened head, for coarse grids and short runs.

Where the paper's network averages the last feature map over the volume, this one flattens it: every place
has a weight of its own. On a coarse phantom it learns in a minute what the average takes an hour for.

The flattened features are divided by a power of their number, so that the head's weights end up of the size
of the kernels': global magnitude pruning compares them, and would otherwise take the whole head first.
"""

import functools
import math

import jax
from flax import nnx

from fedsparse_jax.core.types import Array, Model
from fedsparse_jax.models import layers
from fedsparse_jax.models.chains import Block, LayerChain
from fedsparse_jax.models.from_nnx import from_nnx

GAIN = 0.25  # the flattened features are divided by (their number)**GAIN


def voxels_left(shape, poolings: int) -> int:
    """Voxels of a volume that was halved so many times."""
    return math.prod(side // 2**poolings for side in shape)


class FlatCNN(nnx.Module):
    """``[B, X, Y, Z, C] -> [B]`` years, or ``[B, classes]`` logits."""

    def __init__(
        self, shape, channels_in, widths, poolings, output_mean, output_scale, zero, classes, *, rngs: nnx.Rngs
    ):
        channels = (channels_in, *widths)
        self.depth, self.poolings, self.scale = len(widths), poolings, output_scale
        for i in range(self.depth):
            setattr(self, f"conv{i + 1}", layers.Conv(channels[i], channels[i + 1], 3, rngs=rngs))
        voxels = voxels_left(shape, poolings)
        bias, self.classes = 0.0 if classes else output_mean / output_scale, classes
        self.head = layers.Dense(voxels * widths[-1], classes or 1, rngs=rngs, bias=bias, zero=zero)

    def __call__(self, scans: Array) -> Array:
        features = scans
        for i in range(self.depth):
            conv = getattr(self, f"conv{i + 1}")
            pools = i < self.poolings
            features = conv.normed_pool(features) if pools else layers.instance_norm(conv(features))
            features = jax.nn.relu(features)
        flat = features.reshape(features.shape[0], -1)
        outputs = self.head(flat / flat.shape[1] ** GAIN)
        return outputs if self.classes else self.scale * outputs[:, 0]


def flat_cnn(
    shape, *, channels=1, widths=(8, 16, 16), poolings=2, output_mean=None, output_scale=None, zero_head=True, classes=0
) -> Model:
    """Blocks of convolution 3x3x3, instance norm, max-pool (in the first ``poolings`` blocks) and ReLU.

    Args:
        shape: ``(X, Y, Z)`` voxels of the input; every axis needs at least ``2**poolings``.
        channels: C, images of each head.
        widths: channels of the blocks.
        poolings: how many blocks halve the volume.
        output_mean: prediction in years before any training; a config puts the training ages' mean for None.
        output_scale: years for one unit of the output; a config puts the training ages' SD for None.
        zero_head: whether the head's weights start at zero: faster here, but criteria that look at gradients before
            any training (SNIP, GraSP) then find all weights alike.
        classes: K, logits of the output; 0 for one number.

    Raises:
        ArgumentError: ``shape`` is too small for the poolings.
    """
    layers.check_poolings(shape, poolings)
    mean, scale = output_mean or 0.0, output_scale or 1.0
    make = functools.partial(FlatCNN, tuple(shape), channels, tuple(widths), poolings, mean, scale, zero_head, classes)
    return from_nnx(lambda rngs: make(rngs=rngs))


def flat_chain(shape, *, widths=(8, 16, 16), poolings=2, output_scale=None, classes=0, **unused) -> LayerChain:
    """The network of `flat_cnn` with these options, taken apart."""
    blocks = tuple(Block(f"conv{i + 1}", norm=True, pool=i < poolings) for i in range(len(widths)))
    features = voxels_left(shape, poolings) * widths[-1]
    scale = None if classes else output_scale or 1.0
    return LayerChain(blocks, average=False, dense=("head",), scale=scale, divisor=features**GAIN)

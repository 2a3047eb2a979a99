"""Small classifiers of images: an MLP and a CNN, for the second task."""

import itertools
import math

import jax
from flax import nnx

from fedsparse_jax.core.types import Array, Model
from fedsparse_jax.models import layers
from fedsparse_jax.models.chains import Block, LayerChain
from fedsparse_jax.models.from_nnx import from_nnx


class MLP(nnx.Module):
    """``[B, *shape, C] -> [B, classes]`` logits."""

    def __init__(self, sides, *, rngs: nnx.Rngs):
        self.depth = len(sides) - 1
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sides)):
            setattr(self, f"dense{i + 1}", layers.Dense(inputs, outputs, rngs=rngs))

    def __call__(self, images: Array) -> Array:
        features = images.reshape(images.shape[0], -1)
        for i in range(self.depth - 1):
            features = jax.nn.relu(getattr(self, f"dense{i + 1}")(features))
        return getattr(self, f"dense{self.depth}")(features)


class ImageCNN(nnx.Module):
    """``[B, *shape, C] -> [B, classes]`` logits."""

    def __init__(self, shape, channels, widths, hidden, classes, *, rngs: nnx.Rngs):
        self.depth = len(widths)
        for i, (inputs, outputs) in enumerate(itertools.pairwise((channels, *widths))):
            setattr(self, f"conv{i + 1}", layers.Conv(inputs, outputs, 3, rngs=rngs, dims=len(shape)))
        pixels = math.prod(side // 2**self.depth for side in shape)
        self.dense = layers.Dense(pixels * widths[-1], hidden, rngs=rngs)
        self.head = layers.Dense(hidden, classes, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        features = images
        for i in range(self.depth):
            features = jax.nn.relu(layers.max_pool(getattr(self, f"conv{i + 1}")(features)))
        return self.head(jax.nn.relu(self.dense(features.reshape(features.shape[0], -1))))


def mlp(shape, *, channels=1, hidden=(128,), classes=10) -> Model:
    """Dense layers with ReLU between them; one hidden layer, the default, is the two-layer MLP.

    Args:
        shape: sides of the images.
        channels: C, such as 3 of colour images.
        hidden: units of the hidden layers.
        classes: K, logits of the output.
    """
    sides = (math.prod(shape) * channels, *hidden, classes)
    return from_nnx(lambda rngs: MLP(sides, rngs=rngs))


def image_cnn(shape, *, channels=1, widths=(16, 32), hidden=64, classes=10) -> Model:
    """Blocks of convolution 3x3 (3x3x3 of volumes), max-pool and ReLU; a hidden and an output layer.

    Args:
        shape: sides of the images; every one must survive a halving for each block.
        channels: C, such as 3 of colour images.
        widths: channels of the blocks.
        hidden: units of the hidden layer.
        classes: K, logits of the output.

    Raises:
        ArgumentError: ``shape`` is too small for the poolings.
    """
    layers.check_poolings(shape, len(widths))
    return from_nnx(lambda rngs: ImageCNN(tuple(shape), channels, tuple(widths), hidden, classes, rngs=rngs))


def mlp_chain(shape, *, hidden=(128,), **unused) -> LayerChain:
    """The network of `mlp` with these options, taken apart."""
    return LayerChain((), average=False, dense=tuple(f"dense{i + 1}" for i in range(len(hidden) + 1)))


def image_chain(shape, *, widths=(16, 32), **unused) -> LayerChain:
    """The network of `image_cnn` with these options, taken apart."""
    blocks = tuple(Block(f"conv{i + 1}", norm=False, pool=True) for i in range(len(widths)))
    return LayerChain(blocks, average=False, dense=("dense", "head"))

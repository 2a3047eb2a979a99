"""The paper's 3D CNN for brain age (arXiv 2208.11669; architecture as in Gupta et al., 2021).

Five blocks of convolution 3x3x3, instance norm, max-pool, ReLU; a 1x1x1 convolution with norm and ReLU;
the average of what is left of the volume; a linear output. 2,948,801 weights for one input channel. Without the norms
it is the network that published weights of SFCN fit (`sfcn`).
"""

import jax
from flax import nnx

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array, Model
from fedsparse_jax.models import layers
from fedsparse_jax.models.chains import Block, LayerChain
from fedsparse_jax.models.from_nnx import from_nnx

WIDTHS = (32, 64, 128, 256, 256, 64)
NORMS = ("instance", "none")


class BrainAgeCNN(nnx.Module):
    """``[B, X, Y, Z, C] -> [B]`` years, or ``[B, classes]`` logits."""

    def __init__(self, widths, channels_in, output_mean, output_scale, how, remat, classes, norm, *, rngs: nnx.Rngs):
        *blocks, top = widths
        channels = (channels_in, *blocks)
        self.depth = len(blocks)
        self.scale, self.normed = output_scale, norm == "instance"
        for i in range(self.depth):
            conv = layers.Conv(channels[i], channels[i + 1], 3, rngs=rngs, how=how, remat=remat)
            setattr(self, f"conv{i + 1}", conv)
        self.top = layers.Conv(channels[-1], top, 1, rngs=rngs)
        self.classes = classes
        self.head = layers.Dense(top, classes or 1, rngs=rngs, bias=0.0 if classes else output_mean / output_scale)

    def __call__(self, scans: Array) -> Array:
        features = scans
        for i in range(self.depth):
            conv = getattr(self, f"conv{i + 1}")
            features = jax.nn.relu(conv.normed_pool(features) if self.normed else conv.pool(features))
        features = self.top(features)
        features = jax.nn.relu(layers.instance_norm(features) if self.normed else features)
        outputs = self.head(features.mean((1, 2, 3)))
        return outputs if self.classes else self.scale * outputs[:, 0]


def brain_age_cnn(
    shape,
    *,
    channels=1,
    widths=WIDTHS,
    output_mean=62.68,
    output_scale=1.0,
    convolution="auto",
    remat=False,
    classes=0,
    norm="instance",
) -> Model:
    """The paper's network.

    Args:
        shape: ``(X, Y, Z)`` voxels of the input; every axis must survive one halving for each 3x3x3 block.
        channels: C, images of each head.
        widths: channels of the blocks, then of the 1x1x1 convolution.
        output_mean: prediction in years before any training (the output's bias); the paper's mean age.
        output_scale: years for one unit of the output; 1 is the paper's.
        convolution: ``auto``, ``columns``, ``winograd`` or ``direct``: what a step costs (`layers.convolve`); results
            differ by rounding.
        remat: compute each block again for its gradient instead of keeping its activations.
        classes: K, logits of the output; 0 for one number.
        norm: ``instance``, or ``none`` for a network that starts from weights of SFCN, with the bias of every
            convolution in its place.

    Raises:
        ArgumentError: ``shape`` is too small for the poolings, or ``convolution`` or ``norm`` is unknown.
    """
    layers.check_poolings(shape, len(widths) - 1)
    layers.check_formulation(convolution)
    if norm not in NORMS:
        raise ArgumentError("norm", norm, f"it must be one of {', '.join(NORMS)}")
    how = output_mean, output_scale, convolution, remat, classes, norm
    return from_nnx(lambda rngs: BrainAgeCNN(tuple(widths), channels, *how, rngs=rngs))


def brain_age_chain(shape, *, widths=WIDTHS, output_scale=1.0, classes=0, norm="instance", **unused) -> LayerChain:
    """The network of `brain_age_cnn` with these options, taken apart."""
    normed = norm == "instance"
    blocks = [Block(f"conv{i}", normed, pool=True) for i in range(1, len(widths))]
    top = Block("top", normed, pool=False)
    return LayerChain((*blocks, top), average=True, dense=("head",), scale=None if classes else output_scale)

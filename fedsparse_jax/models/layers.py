"""The layers of a CNN as plain functions of arrays, and the Flax modules that hold their weights.

Convolution is written as matrix products, in one of two formulations that `formulation` chooses between: XLA's own 3D
convolution is slow on CPU when it is differentiated inside a loop, and over per-client kernels (under ``vmap``) it
becomes a grouped convolution, slow on every backend, where a matrix product becomes a batched one. What was
measured stands in docs/performance.md.
"""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from fedsparse_jax.models import winograd
from fedsparse_jax.types import Array, UsageError

MIN_STACKED = 2**17  # positions of one channel, from which stacked copies are faster than copies side by side
MIN_CHANNELS, MIN_TILES = 32, 128  # from which Winograd's convolution is the faster one on CPU


def _shifts(inputs: Array, size: int) -> list[Array]:
    """The ``size**d`` shifted copies of a zero-padded ``[B, *space, C]`` that a SAME convolution reads."""
    space, pad = inputs.shape[1:-1], size // 2
    padded = jnp.pad(inputs, ((0, 0), *[(pad, pad)] * len(space), (0, 0)))
    return [
        padded[(slice(None), *(slice(i, i + n) for i, n in zip(start, space, strict=True)))]
        for start in itertools.product(range(size), repeat=len(space))
    ]


def columns(inputs: Array, kernel: Array) -> Array:
    """SAME convolution as one matrix product of the ``K**d`` shifted copies of the inputs.

    The copies stand side by side; those of a large image of one channel are stacked, whole image by whole image,
    because side by side they would be written a number at a time.
    """
    size, *_, channels, out = kernel.shape
    if size == 1:
        return inputs @ kernel.reshape(-1, out)
    shifted, flat = _shifts(inputs, size), kernel.reshape(-1, out)
    if channels > 1 or inputs.size < MIN_STACKED:
        return jnp.concatenate(shifted, axis=-1) @ flat
    stacked = jnp.stack([copy.reshape(-1) for copy in shifted])
    product = jax.lax.dot_general(stacked, flat, (((0,), (0,)), ((), ())))
    return product.reshape(*inputs.shape[:-1], out)


FORMULATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "columns": columns,
    "winograd": winograd.convolve,
}


def formulation(inputs: Array, kernel: Array) -> str:
    """The fastest member of ``FORMULATIONS`` for these shapes, as measured; see docs/performance.md.

    Winograd's needs a kernel of side 3. It pays where there are channels enough to spend its savings on, and tiles
    enough to share the transformed kernel among.
    """
    size, *_, channels, _ = kernel.shape
    tiles = inputs.shape[0] * math.prod(-(-side // 2) for side in inputs.shape[1:-1])
    worth = size == 3 and channels >= MIN_CHANNELS and tiles >= MIN_TILES
    return "winograd" if worth and jax.default_backend() == "cpu" else "columns"


def convolve(inputs: Array, kernel: Array, bias: Array, how: str = "auto") -> Array:
    """SAME convolution with stride 1, of an odd kernel of equal sides, in any number of dimensions.

    Args:
        inputs: ``[B, *space, I]``.
        kernel: ``[K, ..., K, I, O]``.
        bias: ``[O]``.
        how: a member of ``FORMULATIONS``, or ``"auto"`` for the choice of `formulation`.

    Returns:
        ``[B, *space, O]``.
    """
    chosen = formulation(inputs, kernel) if how == "auto" or kernel.shape[0] != 3 else how
    return FORMULATIONS[chosen](inputs, kernel) + bias


def max_pool(inputs: Array) -> Array:
    """Maximum over blocks of side 2; an odd last plane is left out (VALID).

    Strided slices, because the gradient of ``reduce_window`` is about ten times slower on CPU.
    """
    pooled = inputs
    for axis, size in enumerate(inputs.shape[1:-1], 1):
        whole = jax.lax.slice_in_dim(pooled, 0, size // 2 * 2, axis=axis)
        even = jax.lax.slice_in_dim(whole, 0, None, stride=2, axis=axis)
        odd = jax.lax.slice_in_dim(whole, 1, None, stride=2, axis=axis)
        pooled = jnp.maximum(even, odd)
    return pooled


def instance_norm(inputs: Array, epsilon: float = 1e-3) -> Array:
    """Zero mean and unit variance for each sample and channel; no scale, no shift, no state.

    ``epsilon`` is the default of the library that the paper's authors used.
    """
    axes = tuple(range(1, inputs.ndim - 1))
    mean = inputs.mean(axes, keepdims=True)
    variance = jnp.square(inputs - mean).mean(axes, keepdims=True)
    return (inputs - mean) * jax.lax.rsqrt(variance + epsilon)


def check_poolings(shape, poolings: int) -> None:
    """Refuses a shape of which an axis falls below one voxel."""
    if min(shape) < 2**poolings:
        raise UsageError(
            f"data.shape {tuple(shape)} does not survive {poolings} poolings by 2: every axis needs at least "
            f"{2**poolings} voxels; choose a finer grid, or a model with fewer poolings (model.widths)."
        )


def check_formulation(how: str) -> None:
    """Refuses a formulation that there is not."""
    if how not in ("auto", *FORMULATIONS):
        raise UsageError(f"model.convolution is {how!r}: it must be one of auto, {', '.join(FORMULATIONS)}.")


class Conv(nnx.Module):
    """SAME convolution of a kernel of equal sides; Glorot-uniform weights, a constant bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        rngs: nnx.Rngs,
        bias=0.0,
        dims: int = 3,
        how: str = "auto",
    ):
        self.how = how
        glorot = nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(glorot(rngs.params(), (*[size] * dims, inputs, outputs)))
        self.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        return convolve(inputs, self.kernel[...], self.bias[...], self.how)


class Dense(nnx.Module):
    """Affine map of the last axis; weights zero or Glorot-uniform, a constant bias."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, bias: float = 0.0, zero: bool = False):
        init = nnx.initializers.zeros if zero else nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        return inputs @ self.kernel[...] + self.bias[...]

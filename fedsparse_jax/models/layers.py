"""The layers of a CNN as plain functions of arrays, and the Flax modules that hold their weights.

Convolution is written as matrix products: XLA's own 3D convolution is slow on CPU when it is differentiated
inside a loop, and over per-client kernels (under ``vmap``) it becomes a grouped convolution, slow on every
backend, where a matrix product becomes a batched one.
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from fedsparse_jax.types import Array, UsageError


def _shifts(inputs: Array, size: int) -> list[Array]:
    """The ``size**d`` shifted copies of a zero-padded ``[B, *space, C]`` that a SAME convolution reads."""
    space, pad = inputs.shape[1:-1], size // 2
    padded = jnp.pad(inputs, ((0, 0), *[(pad, pad)] * len(space), (0, 0)))
    return [
        padded[(slice(None), *(slice(i, i + n) for i, n in zip(start, space, strict=True)))]
        for start in itertools.product(range(size), repeat=len(space))
    ]


def convolve(inputs: Array, kernel: Array, bias: Array) -> Array:
    """SAME convolution with stride 1, of an odd kernel of equal sides, in any number of dimensions.

    Args:
        inputs: ``[B, *space, I]``.
        kernel: ``[K, ..., K, I, O]``.
        bias: ``[O]``.

    Returns:
        ``[B, *space, O]``.
    """
    size, *_, out = kernel.shape
    columns = inputs if size == 1 else jnp.concatenate(_shifts(inputs, size), axis=-1)
    return columns @ kernel.reshape(-1, out) + bias


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


class Conv(nnx.Module):
    """SAME convolution of a kernel of equal sides; Glorot-uniform weights, a constant bias."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs, bias: float = 0.0, dims: int = 3
    ):
        glorot = nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(glorot(rngs.params(), (*[size] * dims, inputs, outputs)))
        self.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        return convolve(inputs, self.kernel[...], self.bias[...])


class Dense(nnx.Module):
    """Affine map of the last axis; weights zero or Glorot-uniform, a constant bias."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, bias: float = 0.0, zero: bool = False):
        init = nnx.initializers.zeros if zero else nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        return inputs @ self.kernel[...] + self.bias[...]

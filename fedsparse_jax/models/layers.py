"""The layers of a 3D CNN as plain functions of arrays, and the Flax modules that hold their weights.

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
    """The ``size**3`` shifted copies of a zero-padded ``[B, X, Y, Z, C]`` that a SAME convolution reads."""
    pad = size // 2
    padded = jnp.pad(inputs, ((0, 0), *[(pad, pad)] * 3, (0, 0)))
    x, y, z = inputs.shape[1:4]
    return [
        padded[:, i : i + x, j : j + y, k : k + z] for i, j, k in itertools.product(range(size), repeat=3)
    ]


def conv3d(inputs: Array, kernel: Array, bias: Array) -> Array:
    """SAME convolution with stride 1, of an odd cubic kernel.

    Args:
        inputs: ``[B, X, Y, Z, I]``.
        kernel: ``[K, K, K, I, O]``.
        bias: ``[O]``.

    Returns:
        ``[B, X, Y, Z, O]``.
    """
    size, *_, out = kernel.shape
    columns = inputs if size == 1 else jnp.concatenate(_shifts(inputs, size), axis=-1)
    return columns @ kernel.reshape(-1, out) + bias


def max_pool(inputs: Array) -> Array:
    """Maximum over blocks of 2 x 2 x 2; an odd last plane is left out (VALID).

    Strided slices, because the gradient of ``reduce_window`` is about ten times slower on CPU.
    """
    x, y, z = (n // 2 * 2 for n in inputs.shape[1:4])
    pooled = inputs[:, :x, :y, :z]
    for axis in (1, 2, 3):
        even = jax.lax.slice_in_dim(pooled, 0, None, stride=2, axis=axis)
        odd = jax.lax.slice_in_dim(pooled, 1, None, stride=2, axis=axis)
        pooled = jnp.maximum(even, odd)
    return pooled


def instance_norm(inputs: Array, epsilon: float = 1e-3) -> Array:
    """Zero mean and unit variance for each sample and channel; no scale, no shift, no state.

    ``epsilon`` is the default of the library that the paper's authors used.
    """
    axes = (1, 2, 3)
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
    """SAME convolution of a cubic kernel; Glorot-uniform weights, a constant bias."""

    def __init__(self, inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs, bias: float = 0.0):
        glorot = nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(glorot(rngs.params(), (size, size, size, inputs, outputs)))
        self.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        return conv3d(inputs, self.kernel[...], self.bias[...])


class Dense(nnx.Module):
    """Affine map of the last axis; weights zero or Glorot-uniform, a constant bias."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, bias: float = 0.0, zero: bool = False):
        init = nnx.initializers.zeros if zero else nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        return inputs @ self.kernel[...] + self.bias[...]

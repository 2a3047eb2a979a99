"""The layers of a CNN as plain functions of arrays, and the Flax modules that hold their weights.

Convolution is written as matrix products, in one of the formulations that `formulation` chooses between: XLA's own 3D
convolution is slow on CPU when it is differentiated inside a loop, and over per-client kernels (under ``vmap``) it
becomes a grouped convolution, slow on every backend, where a matrix product becomes a batched one. What was
measured stands in docs/results/performance.md.
"""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array
from fedsparse_jax.models.conv import tiles, winograd

MIN_CHANNELS, MIN_TILES = 32, 128  # from which Winograd's convolution is the faster one on CPU
MAX_DIRECT = 2  # channels up to which the direct formulation by tiles is the faster one on CPU


def _shifts(inputs: Array, size: int) -> list[Array]:
    """The ``size**d`` shifted copies of a zero-padded ``[B, *space, C]`` that a SAME convolution reads."""
    space, pad = inputs.shape[1:-1], size // 2
    padded = jnp.pad(inputs, ((0, 0), *[(pad, pad)] * len(space), (0, 0)))
    return [
        padded[(slice(None), *(slice(i, i + n) for i, n in zip(start, space, strict=True)))]
        for start in itertools.product(range(size), repeat=len(space))
    ]


def columns(inputs: Array, kernel: Array) -> Array:
    """SAME convolution as one matrix product of the ``K**d`` shifted copies of the inputs, side by side."""
    size, *_, out = kernel.shape
    flat = kernel.reshape(-1, out)
    return inputs @ flat if size == 1 else jnp.concatenate(_shifts(inputs, size), axis=-1) @ flat


def _untiled(by_tiles: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """A convolution in the layout of `tiles`, with its outputs as an image."""
    return lambda inputs, kernel: tiles.untile(by_tiles(inputs, kernel), inputs.shape[1:-1])


FORMULATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "columns": columns,
    "winograd": _untiled(winograd.tiled),
    "direct": _untiled(tiles.direct),
}


def formulation(inputs: Array, kernel: Array) -> str:
    """The fastest member of ``FORMULATIONS`` for `normed_pool` at these shapes, see docs/results/performance.md.

    Winograd's pays where there are channels enough to spend its savings on, and tiles enough to share the transformed
    kernel among; the direct one where there are few channels. Both need a kernel of side 3.
    """
    size, *_, channels, _ = kernel.shape
    batch = inputs.shape[0] if isinstance(inputs.shape[0], int) else 1  # a symbol, in a program for any batch
    count = batch * math.prod(tiles.counts(inputs.shape[1:-1]))
    if size != 3 or count < MIN_TILES or jax.default_backend() != "cpu":
        return "columns"
    if channels <= MAX_DIRECT:
        return "direct"
    return "winograd" if channels >= MIN_CHANNELS else "columns"


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
    chosen = _chosen(inputs, kernel, how)
    if how == "auto" and chosen == "direct":  # its layout pays only where it is pooled in
        chosen = "columns"
    outputs = FORMULATIONS[chosen](inputs, kernel)
    return outputs + as_last_axis(bias, outputs).astype(outputs.dtype)


def as_last_axis(values: Array, outputs: Array) -> Array:
    """``values [O]`` with as many axes as ``outputs [..., O]``."""
    return values.reshape((1,) * (outputs.ndim - 1) + (-1,))


def _chosen(inputs: Array, kernel: Array, how: str) -> str:
    return formulation(inputs, kernel) if how == "auto" or kernel.shape[0] != 3 else how


def normed_pool(inputs: Array, kernel: Array, how: str = "auto") -> Array:
    """A block of a network, ``max_pool(instance_norm(convolve(inputs, kernel, bias)))``; its bias has no effect.

    The norm is increasing, so that the maximum may be taken before it, and then eight times less is normalised; where
    the convolution works by tiles, its outputs are pooled in that layout.

    Args:
        inputs: ``[B, *space, I]``.
        kernel: ``[K, ..., K, I, O]``.
        how: see `convolve`.

    Returns:
        ``[B, *(space // 2), O]``.
    """
    space, chosen = inputs.shape[1:-1], _chosen(inputs, kernel, how)
    if chosen == "columns":
        return max_pool(instance_norm(columns(inputs, kernel)))
    if chosen == "direct":
        outputs, statistics = tiles.direct(inputs, kernel), tiles.moments_of_inputs(inputs, kernel)
    else:
        outputs = winograd.tiled(inputs, kernel)
        statistics = tiles.moments(outputs, space)
    return _normalise(tiles.pool_tiles(outputs, space), *statistics)


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


EPSILON = 1e-3  # the default of the library that the paper's authors used


def instance_norm(inputs: Array) -> Array:
    """Zero mean and unit variance for each sample and channel; no scale, no shift, no state."""
    axes = tuple(range(1, inputs.ndim - 1))
    mean = inputs.mean(axes, keepdims=True)
    return _normalise(inputs, mean, jnp.square(inputs - mean).mean(axes, keepdims=True))


def _normalise(inputs: Array, mean: Array, variance: Array) -> Array:
    return ((inputs.astype(mean.dtype) - mean) * jax.lax.rsqrt(variance + EPSILON)).astype(inputs.dtype)


def check_poolings(shape, poolings: int) -> None:
    """Refuses a shape of which an axis falls below one voxel."""
    if min(shape) < 2**poolings:
        rule = (
            f"that does not survive {poolings} poolings by 2: every axis needs at least {2**poolings} voxels; choose a "
            "finer grid, or a model with fewer poolings (widths)"
        )
        raise ArgumentError("shape", tuple(shape), rule)


def check_formulation(how: str) -> None:
    """Refuses a formulation that there is not."""
    if how not in ("auto", *FORMULATIONS):
        raise ArgumentError("convolution", how, f"it must be one of auto, {', '.join(FORMULATIONS)}")


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
        remat: bool = False,
    ):
        self.how, self.remat = how, remat
        glorot = nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(glorot(rngs.params(), (*[size] * dims, inputs, outputs)))
        self.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        return convolve(inputs, self.kernel[...], self.bias[...], self.how)

    def normed_pool(self, inputs: Array) -> Array:
        """The convolution with instance norm and max-pool; with ``remat`` only its inputs are kept for the gradient."""
        block = functools.partial(normed_pool, how=self.how)
        return (jax.checkpoint(block) if self.remat else block)(inputs, self.kernel[...])


class Dense(nnx.Module):
    """Affine map of the last axis; weights zero or Glorot-uniform, a constant bias."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, bias: float = 0.0, zero: bool = False):
        init = nnx.initializers.zeros if zero else nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.full((outputs,), bias, jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        kernel = self.kernel[...]
        narrow = inputs.astype(kernel.dtype)  # sums and bias keep the bias's precision
        outputs = jnp.matmul(narrow, kernel, preferred_element_type=self.bias[...].dtype)
        return outputs + as_last_axis(self.bias[...], outputs)

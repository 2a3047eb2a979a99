r"""Winograd's convolution F(2, 3) in any number of dimensions, as one batch of matrix products.

A tile of 4 inputs gives 2 outputs along each axis with 4 products instead of 6 (Lavin and Gray, arXiv 1509.09308):

.. math:: y = A^\top [(G k) \odot (B^\top x)]

so that in three dimensions 64 products do the work of 216, and the transformed input is 8 times the input where
columns for a plain matrix product are 27 times as large. Both gradients are written out with the same pieces: the
input's is a convolution again, the kernel's is the product of transformed input and transformed gradient. All
transforms are sums of strided reads, which XLA fuses; nothing scatters.

Layout: the 4**d products are the leading axis, their index counting the last spatial axis slowest.
"""

import itertools

import jax
import jax.numpy as jnp

from fedsparse_jax.types import Array


@jax.custom_vjp
def convolve(inputs: Array, kernel: Array) -> Array:
    """SAME convolution with stride 1 of a kernel of side 3.

    Args:
        inputs: ``[B, *space, I]``.
        kernel: ``[3, ..., 3, I, O]``.

    Returns:
        ``[B, *space, O]``.
    """
    tiles = _tiles(inputs)
    products = jnp.matmul(_transform_inputs(inputs, tiles), _transform_kernel(kernel))
    return _outputs(products, inputs.shape[:-1], tiles)


def _forward(inputs: Array, kernel: Array):
    return convolve(inputs, kernel), (inputs, kernel)


def _backward(saved, gradient: Array):
    inputs, kernel = saved
    tiles = _tiles(inputs)
    mirrored = jnp.flip(kernel, range(kernel.ndim - 2)).swapaxes(-1, -2)
    transformed = _transform_gradient(gradient, tiles)
    over_tiles = (((1,), (1,)), ((0,), (0,)))
    products = jax.lax.dot_general(_transform_inputs(inputs, tiles), transformed, over_tiles)
    return convolve(gradient, mirrored), _untransform_kernel(products, kernel.ndim - 2)


convolve.defvjp(_forward, _backward)


def _tiles(inputs: Array) -> tuple[int, ...]:
    """Tiles of two outputs along each spatial axis."""
    return tuple(-(-side // 2) for side in inputs.shape[1:-1])


def _every_axis(array: Array, function) -> list[Array]:
    """``function`` (an array and an axis to four arrays) along each spatial axis, the last one first."""
    parts = [array]
    for axis in reversed(range(1, array.ndim - 1)):
        parts = [piece for part in parts for piece in function(part, axis)]
    return parts


def _flat(parts: list[Array]) -> Array:
    """``4**d`` arrays ``[B, *tiles, C]`` as one ``[4**d, T, C]``."""
    return jnp.stack([part.reshape(-1, part.shape[-1]) for part in parts])


def _transform_inputs(inputs: Array, tiles) -> Array:
    """B^T x."""
    sides = zip(tiles, inputs.shape[1:-1], strict=True)
    padded = jnp.pad(inputs, ((0, 0), *[(1, 2 * n + 1 - side) for n, side in sides], (0, 0)))

    def along(part, axis):
        length = part.shape[axis] - 2
        a, b, c, d = (jax.lax.slice_in_dim(part, i, i + length - 1, stride=2, axis=axis) for i in range(4))
        return a - c, b + c, c - b, b - d

    return _flat(_every_axis(padded, along))


def _transform_gradient(gradient: Array, tiles) -> Array:
    """A y, the transpose of the outputs' transform."""
    sides = zip(tiles, gradient.shape[1:-1], strict=True)
    padded = jnp.pad(gradient, ((0, 0), *[(0, 2 * n - side) for n, side in sides], (0, 0)))

    def along(part, axis):
        even = jax.lax.slice_in_dim(part, 0, None, stride=2, axis=axis)
        odd = jax.lax.slice_in_dim(part, 1, None, stride=2, axis=axis)
        return even, even + odd, even - odd, -odd

    return _flat(_every_axis(padded, along))


def _transform_kernel(kernel: Array) -> Array:
    """G k, ``[4**d, I, O]``."""
    dims = kernel.ndim - 2
    for axis in range(dims):
        a, b, c = (jax.lax.index_in_dim(kernel, i, axis, keepdims=True) for i in range(3))
        kernel = jnp.concatenate([a, (a + b + c) / 2, (a - b + c) / 2, c], axis)
    slowest_last = (*reversed(range(dims)), dims, dims + 1)
    return kernel.transpose(slowest_last).reshape(4**dims, *kernel.shape[-2:])


def _untransform_kernel(products: Array, dims: int) -> Array:
    """The transpose of `_transform_kernel`."""
    slowest_last = (*reversed(range(dims)), dims, dims + 1)
    kernel = products.reshape(*[4] * dims, *products.shape[1:]).transpose(slowest_last)
    for axis in range(dims):
        a, b, c, d = (jax.lax.index_in_dim(kernel, i, axis, keepdims=True) for i in range(4))
        kernel = jnp.concatenate([a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d], axis)
    return kernel


def _outputs(products: Array, shape, tiles) -> Array:
    """A^T of the products ``[4**d, T, O]``, tiles put side by side: ``[B, *space, O]``."""
    dims, out = len(tiles), products.shape[-1]
    parts = products.reshape(*[4] * dims, shape[0], *tiles, out)

    def halves(part):
        return part[0] + part[1] + part[2], part[1] - part[2] - part[3]

    level = [parts]
    for _ in range(dims):
        level = [half for part in level for half in halves(part)]
    whole = jnp.stack(level).reshape(*[2] * dims, shape[0], *tiles, out)
    spread = itertools.chain.from_iterable((dims + 1 + i, dims - 1 - i) for i in range(dims))
    merged = whole.transpose(dims, *spread, 2 * dims + 1)
    full = merged.reshape(shape[0], *[2 * n for n in tiles], out)
    return full[(slice(None), *(slice(side) for side in shape[1:]))]

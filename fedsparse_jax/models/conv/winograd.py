r"""Winograd's convolution F(2, 3) in any number of dimensions, as one batch of matrix products.

A tile of 4 inputs gives 2 outputs along each axis with 4 products instead of 6 (Lavin and Gray, arXiv 1509.09308):

.. math:: y = A^\top [(G k) \odot (B^\top x)]

so that in three dimensions 64 products do the work of 216, and the transformed input is 8 times the input where
columns for a plain matrix product are 27 times as large. Both gradients are the transposes of the same pieces, written
out, so that the transformed output gradient serves both. All transforms are sums of strided reads, which XLA fuses.
"""

import jax
import jax.numpy as jnp

from fedsparse_jax.core.types import Array
from fedsparse_jax.models.conv import tiles

OVER_TILES = (((1,), (1,)), ((0,), (0,)))  # contraction of two [4**d, T, *]


@jax.custom_vjp
def tiled(inputs: Array, kernel: Array) -> Array:
    """SAME convolution with stride 1 of a kernel of side 3, in the layout of `tiles`.

    Args:
        inputs: ``[B, *space, I]``.
        kernel: ``[3, ..., 3, I, O]``.

    Returns:
        ``[B, *tiles, 2**d, O]``.
    """
    products = jnp.matmul(_transform_inputs(inputs), _transform_kernel(kernel))
    return _outputs(products, (inputs.shape[0], *tiles.counts(inputs.shape[1:-1])))


def _forward(inputs: Array, kernel: Array):
    return tiled(inputs, kernel), (inputs, kernel)


def _backward(saved, gradient: Array):
    inputs, kernel = saved
    transformed = _transform_gradient(gradient)
    products = jax.lax.dot_general(_transform_inputs(inputs), transformed, OVER_TILES)
    by_input = jnp.matmul(transformed, _transform_kernel(kernel).swapaxes(1, 2))
    return _untransform_inputs(by_input, inputs.shape), _untransform_kernel(products, kernel.ndim - 2)


tiled.defvjp(_forward, _backward)


def _every_axis(parts: list[Array], side: int, function, dims: int) -> list[Array]:
    """``function`` of ``side`` arrays to some, along each axis of a grid of ``side**dims`` arrays in product order.

    The slowest axis is taken, and its results put as the fastest; after ``dims`` times the order is the old one.
    """
    for _ in range(dims):
        step = len(parts) // side
        parts = [piece for i in range(step) for piece in function(*parts[i::step])]
    return parts


def _flat(parts: list[Array]) -> Array:
    """Arrays ``[B, *tiles, C]`` as one ``[4**d, T, C]``."""
    return jnp.stack([part.reshape(-1, part.shape[-1]) for part in parts])


def _transform_inputs(inputs: Array) -> Array:
    """B^T x, ``[4**d, T, I]``, one axis after the other: all in one fused pass takes three times as long on CPU."""
    parts = tiles.pad(inputs)[jnp.newaxis]
    for axis in range(2, inputs.ndim):
        end = parts.shape[axis] - 2
        read = (jax.lax.slice_in_dim(parts, i, i + end - 1, stride=2, axis=axis) for i in range(4))
        a, b, c, d = read
        four = jnp.stack([a - c, b + c, c - b, b - d], 1)
        parts = jax.lax.optimization_barrier(four.reshape(-1, *a.shape[1:]))
    return parts.reshape(len(parts), -1, inputs.shape[-1])


def _untransform_inputs(products: Array, shape) -> Array:
    """The transpose of `_transform_inputs`: ``[4**d, T, I]`` to ``[B, *space, I]``."""
    batch, *space, channels = shape
    parts = list(products.reshape(-1, batch, *tiles.counts(space), channels))
    parts = _every_axis(parts, 4, lambda a, b, c, d: (a, b - c + d, b + c - a, -d), len(space))
    for axis in range(1, len(space) + 1):
        parts = _every_axis(parts, 4, lambda a, b, c, d, axis=axis: [_overlap(a, b, c, d, axis)], 1)
    return parts[0][(slice(None), *(slice(1, 1 + side) for side in space))]


def _overlap(a: Array, b: Array, c: Array, d: Array, axis: int) -> Array:
    """Adds up tiles of 4 that overlap by 2 along ``axis``; the four places of all tiles come one by one."""
    widths = lambda before, after: [(before, after) if i == axis else (0, 0) for i in range(a.ndim)]
    even = jnp.pad(a, widths(0, 1)) + jnp.pad(c, widths(1, 0))
    odd = jnp.pad(b, widths(0, 1)) + jnp.pad(d, widths(1, 0))
    both = jnp.stack([even, odd], axis + 1)
    return both.reshape(*a.shape[:axis], -1, *a.shape[axis + 1 :])


def _outputs(products: Array, lead) -> Array:
    """A^T of the products ``[4**d, T, O]``, in tile layout with the leading axes ``lead``."""
    transform = lambda a, b, c, d: (a + b + c, b - c - d)
    parts = _every_axis(list(products), 4, transform, len(lead) - 1)
    return jnp.stack(parts, 1).reshape(*lead, len(parts), -1)


def _transform_gradient(gradient: Array) -> Array:
    """The transpose of `_outputs`, ``[4**d, T, O]``."""
    parts = [gradient[..., place, :] for place in range(gradient.shape[-2])]
    return _flat(_every_axis(parts, 2, lambda a, b: (a, a + b, a - b, -b), gradient.ndim - 3))


def _transform_kernel(kernel: Array) -> Array:
    """G k, ``[4**d, I, O]``."""
    parts = list(kernel.reshape(-1, *kernel.shape[-2:]))
    transform = lambda a, b, c: (a, (a + b + c) / 2, (a - b + c) / 2, c)
    return jnp.stack(_every_axis(parts, 3, transform, kernel.ndim - 2))


def _untransform_kernel(products: Array, dims: int) -> Array:
    """The transpose of `_transform_kernel`."""
    transform = lambda a, b, c, d: (a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d)
    parts = _every_axis(list(products), 4, transform, dims)
    return jnp.stack(parts).reshape(*[3] * dims, *products.shape[1:])

"""Convolution in the layout that pooling reads: the outputs of each block of side 2 stand beside one another.

A *tile* is such a block of ``2**d`` outputs; it reads ``4**d`` inputs. In the layout ``[B, *tiles, 2**d, O]`` a
max-pool is a maximum over one axis and a norm a sum over the others, without a strided read, forward or backward.
Where a side is odd its last tile hangs over the edge, and what it holds beyond is not an output.

`direct` is for inputs of few channels: a tile's inputs are copied once instead of 27 times, one matrix product gives
its 8 outputs, and `moments_of_inputs` finds mean and variance of the outputs without reading them. `winograd` gives
the same layout where there are many channels.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.core.types import Array


def counts(space) -> tuple[int, ...]:
    """Tiles along each axis of ``space``."""
    return tuple(-(-side // 2) for side in space)


def pad(inputs: Array) -> Array:
    """Zeros around ``[B, *space, I]``: one before each axis, and one or two behind, so that the tiles are full."""
    widths = [(1, 2 * -(-side // 2) + 1 - side) for side in inputs.shape[1:-1]]
    return jnp.pad(inputs, ((0, 0), *widths, (0, 0)))


def reads(inputs: Array) -> list[Array]:
    """The ``4**d`` strided copies of `pad`'s image that all tiles read, each ``[B, *tiles, I]``."""
    tiles, padded = counts(inputs.shape[1:-1]), pad(inputs)
    return [
        padded[(slice(None), *(slice(i, i + 2 * n - 1, 2) for i, n in zip(start, tiles, strict=True)))]
        for start in itertools.product(range(4), repeat=len(tiles))
    ]


def untile(outputs: Array, space) -> Array:
    """``[B, *tiles, 2**d, O]`` as the image ``[B, *space, O]``."""
    dims, (batch, *tiles, _, out) = len(space), outputs.shape
    parts = outputs.reshape(batch, *tiles, *[2] * dims, out)
    places = itertools.chain.from_iterable((1 + i, 1 + dims + i) for i in range(dims))
    image = parts.transpose(0, *places, 2 * dims + 1).reshape(batch, *[2 * n for n in tiles], out)
    return image[(slice(None), *(slice(side) for side in space))]


@jax.custom_vjp
def _maximum(outputs: Array) -> Array:
    return outputs.max(-2)


def _maximum_forward(outputs: Array):
    top = _maximum(outputs)
    return top, (outputs, top)


def _maximum_backward(saved, gradient: Array):
    outputs, top = saved
    hits = outputs == top[..., None, :]
    return (jnp.where(hits, (gradient / hits.sum(-2, dtype=gradient.dtype))[..., None, :], 0),)


_maximum.defvjp(_maximum_forward, _maximum_backward)


def pool_tiles(outputs: Array, space) -> Array:
    """Maximum of every tile that lies inside, ``[B, *(space // 2), O]``; its gradient is shared among equals."""
    whole = (slice(None), *(slice(side // 2) for side in space))
    return _maximum(outputs)[whole]


def moments(outputs: Array, space) -> tuple[Array, Array]:
    """Mean and variance over the image, ``[B, 1, ..., 1, O]`` each, with as many axes as an image."""
    axes = tuple(range(1, outputs.ndim - 1))
    shape = (outputs.shape[0], *[1] * len(space), outputs.shape[-1])
    inside = _inside(space)
    total = lambda values: jnp.where(inside, values, 0).sum(axes, keepdims=True) / math.prod(space)
    mean = total(outputs)
    return mean.reshape(shape), total(jnp.square(outputs - mean)).reshape(shape)


def _inside(space) -> np.ndarray:
    """``bool[*tiles, 2**d, 1]``: which outputs of the tiles lie inside the image; of one element if all do."""
    if all(side % 2 == 0 for side in space):
        return np.ones((1,) * (len(space) + 2), bool)
    flags = np.zeros([2 * n for n in counts(space)], bool)
    flags[tuple(slice(side) for side in space)] = True
    dims, tiles = len(space), counts(space)
    split = flags.reshape(*itertools.chain.from_iterable((n, 2) for n in tiles))
    return split.transpose(*range(0, 2 * dims, 2), *range(1, 2 * dims, 2)).reshape(*tiles, 2**dims, 1)


@jax.custom_vjp
def direct(inputs: Array, kernel: Array) -> Array:
    """SAME convolution of a kernel of side 3 as one matrix product, all outputs of a tile at once.

    Args:
        inputs: ``[B, *space, I]``.
        kernel: ``[3, ..., 3, I, O]``.

    Returns:
        ``[B, *tiles, 2**d, O]``.
    """
    return _direct(inputs, kernel)


def _direct(inputs: Array, kernel: Array) -> Array:
    patches, placed = _patches(inputs), _place_kernel(kernel)
    flat = placed.reshape(len(placed), -1)
    outputs = jax.lax.dot_general(patches, flat, (((0,), (0,)), ((), ())))
    return outputs.reshape(inputs.shape[0], *counts(inputs.shape[1:-1]), *placed.shape[1:])


def _patches(inputs: Array) -> Array:
    """What each tile reads, ``[4**d * I, tiles of all images]``."""
    copies = jnp.stack([copy.reshape(-1, copy.shape[-1]) for copy in reads(inputs)])
    return copies.swapaxes(1, 2).reshape(-1, copies.shape[1])


def _place_kernel(kernel: Array) -> Array:
    """The kernel at each of the ``2**d`` places of a tile, ``[4**d * I, 2**d, O]``; zero where none reads."""
    dims = kernel.ndim - 2
    places = itertools.product(range(2), repeat=dims)
    moved = [jnp.pad(kernel, [*((i, 1 - i) for i in place), (0, 0), (0, 0)]) for place in places]
    return jnp.stack(moved, -2).reshape(-1, 2**dims, kernel.shape[-1])


direct.defvjp(lambda *args: jax.vjp(_direct, *args), lambda pullback, gradient: pullback(gradient))


def moments_of_inputs(inputs: Array, kernel: Array) -> tuple[Array, Array]:
    r"""Mean and variance of `direct`'s image, as `moments`, from the inputs alone.

    An output is a linear form of what its tile reads, so that its mean and mean square over the image are a linear and
    a quadratic form in the means and the mean products of the inputs' copies. Cheap for few channels. The inputs should
    be near zero on average: the variance is a difference of two numbers.
    """
    wide = np.promote_types(inputs.dtype, np.float32)
    inputs, kernel = inputs.astype(wide), kernel.astype(wide)
    space, forms = inputs.shape[1:-1], _place_kernel(kernel)
    sums, products = _sums(_patches(inputs).reshape(len(forms), inputs.shape[0], *counts(space)), space)
    voxels = math.prod(space)
    mean = jnp.einsum("pbi,ipo->bo", sums, forms) / voxels
    square = jnp.einsum("pbij,ipo,jpo->bo", products, forms, forms) / voxels
    shape = (inputs.shape[0], *[1] * len(space), kernel.shape[-1])
    return mean.reshape(shape), jnp.maximum(square - mean**2, 0).reshape(shape)


def _sums(patches: Array, space) -> tuple[Array, Array]:
    """Sums ``[2**d, B, R]`` and sums of products ``[2**d, B, R, R]`` of the copies, over the tiles that hold an output.

    At a place that is second along an odd axis the last tile holds none. Sums without it are those over all tiles minus
    those over the last ones, by inclusion and exclusion over the odd axes.

    Args:
        patches: ``[R, B, *tiles]``.
    """
    odd = [axis for axis, side in enumerate(space) if side % 2]

    def over(last):
        cut = (slice(None), slice(None), *(slice(-1, None) if a in last else slice(None) for a in range(len(space))))
        flat = patches[cut].reshape(*patches.shape[:2], -1)
        return flat.sum(-1).T, jnp.einsum("ibt,jbt->bij", flat, flat)

    subsets = [frozenset(s) for size in range(len(odd) + 1) for s in itertools.combinations(odd, size)]
    found = {last: over(last) for last in subsets}
    each = []
    for place in itertools.product(range(2), repeat=len(space)):
        beyond = {axis for axis in odd if place[axis]}
        terms = [((-1) ** len(last), found[last]) for last in subsets if last <= beyond]
        each.append([sum(sign * term[i] for sign, term in terms) for i in range(2)])
    return jnp.stack([sums for sums, _ in each]), jnp.stack([products for _, products in each])

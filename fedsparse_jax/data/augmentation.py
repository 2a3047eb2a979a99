"""Random changes of the examples of a local step: pure functions ``(key, inputs [B, ...]) -> inputs`` on the device.

Inputs are volumes ``[B, X, Y, Z, C]``, the first axis from left to right, or images ``[B, rows, columns, C]``. Each
example draws from the key and its place in the batch alone, so that what stands beside it changes nothing. What moves
in from outside repeats the edge, since the value of the background depends on how scans were normalised.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array, Key

Augmentation = Callable[[Key, Array], Array]


def random_shift(voxels: int = 2) -> Augmentation:
    """Moves each example by whole voxels, up to ``voxels`` each way along each axis, all equally likely.

    Args:
        voxels: 0 for none.
    """
    _require(voxels == int(voxels) and voxels >= 0, "voxels", voxels, "it must be a whole number, not negative")

    def of_example(key: Key, example: Array) -> Array:
        axes = example.ndim - 1
        steps = jax.random.randint(key, (axes,), -int(voxels), int(voxels) + 1)
        for axis in range(axes):
            size = example.shape[axis]
            example = jnp.take(example, jnp.clip(jnp.arange(size) - steps[axis], 0, size - 1), axis=axis)
        return example

    return _each(of_example)


def random_flip(chance: float = 0.5) -> Augmentation:
    """Mirrors left and right: the first axis of a volume, the columns of an image.

    Args:
        chance: that an example is mirrored.
    """
    _require(0 <= chance <= 1, "chance", chance, "it lies between 0 and 1")

    def of_example(key: Key, example: Array) -> Array:
        across = 0 if example.ndim == 4 else 1
        return jnp.where(jax.random.bernoulli(key, chance), jnp.flip(example, across), example)

    return _each(of_example)


def random_intensity(scale: float = 0.1, offset: float = 0.1) -> Augmentation:
    """Multiplies each channel by a factor, and adds a number to it.

    Args:
        scale: the factor is uniform within 1 - scale and 1 + scale.
        offset: the number is uniform within -offset and offset, in the units of the normalised intensities.
    """
    _require(0 <= scale <= 1, "scale", scale, "it lies between 0 and 1")
    _require(0 <= offset < np.inf, "offset", offset, "it must not be negative")

    def of_example(key: Key, example: Array) -> Array:
        of_channels = (1,) * (example.ndim - 1) + example.shape[-1:]
        draws = jax.random.uniform(key, (2, *of_channels), minval=-1.0)
        return (example * (1 + scale * draws[0]) + offset * draws[1]).astype(example.dtype)

    return _each(of_example)


def gaussian_noise(std: float = 0.05) -> Augmentation:
    """Adds independent normal noise to every voxel.

    Args:
        std: its standard deviation, in the units of the normalised intensities.
    """
    _require(0 <= std < np.inf, "std", std, "it must not be negative")

    def of_example(key: Key, example: Array) -> Array:
        return (example + std * jax.random.normal(key, example.shape)).astype(example.dtype)

    return _each(of_example)


def random_rotation(degrees: float = 5.0) -> Augmentation:
    """Turns each example about its centre, with linear interpolation between voxels.

    The axis of a volume's turn is uniform on the sphere. Voxels count as cubes.

    Args:
        degrees: the angle is uniform within -degrees and degrees.
    """
    _require(0 <= degrees <= 180, "degrees", degrees, "it lies between 0 and 180")

    def of_example(key: Key, example: Array) -> Array:
        key_angle, key_axis = jax.random.split(key)
        angle = jnp.deg2rad(degrees) * jax.random.uniform(key_angle, minval=-1.0)
        axes = example.ndim - 1
        turn = _turn_of_plane(angle) if axes == 2 else _turn_of_space(angle, jax.random.normal(key_axis, (3,)))
        return turn_example(example, turn)

    return _each(of_example)


def turn_example(example: Array, turn: Array) -> Array:
    """``example [X, ..., C]`` turned about its centre by an orthogonal matrix; voxels outside repeat the edge."""
    size = example.shape[:-1]
    centre = jnp.array([(n - 1) / 2 for n in size], jnp.float32)
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in size), indexing="ij"))
    offsets = grid - centre.reshape(-1, *(1,) * len(size))
    with jax.default_matmul_precision("highest"):
        source = jnp.tensordot(turn.T, offsets, 1) + centre.reshape(-1, *(1,) * len(size))
    with jax.numpy_dtype_promotion("standard"):
        sample = lambda channel: jax.scipy.ndimage.map_coordinates(channel, list(source), order=1, mode="nearest")
        return jnp.stack([sample(example[..., i]) for i in range(example.shape[-1])], -1).astype(example.dtype)


def basic_augmentation(
    shift: int = 2,
    flip: float = 0.5,
    scale: float = 0.1,
    offset: float = 0.1,
    noise: float = 0.05,
    rotation: float = 0.0,
) -> Augmentation:
    """Several changes one after another: rotation, shift, flip, intensity, noise. One that is 0 is left out.

    Args:
        shift: see `random_shift`, voxels.
        flip: see `random_flip`, chance.
        scale, offset: see `random_intensity`.
        noise: see `gaussian_noise`, standard deviation.
        rotation: see `random_rotation`, degrees; it costs most.
    """
    _require(shift == int(shift) and shift >= 0, "shift", shift, "it must be a whole number, not negative")
    _require(0 <= flip <= 1, "flip", flip, "it is a chance, between 0 and 1")
    _require(0 <= noise < np.inf, "noise", noise, "it must not be negative")
    _require(0 <= rotation <= 180, "rotation", rotation, "it lies between 0 and 180 degrees")
    steps = (
        (rotation, random_rotation(rotation)),
        (shift, random_shift(shift)),
        (flip, random_flip(flip)),
        (scale or offset, random_intensity(scale, offset)),
        (noise, gaussian_noise(noise)),
    )

    def augment(key: Key, inputs: Array) -> Array:
        for i, (amount, change) in enumerate(steps):
            if amount:
                inputs = change(jax.random.fold_in(key, i), inputs)
        return inputs

    return augment


def _each(of_example: Callable[[Key, Array], Array]) -> Augmentation:
    """``(key, example [...]) -> example`` for every example of a batch, with a key by its place."""

    def augment(key: Key, inputs: Array) -> Array:
        keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(len(inputs)))
        return jax.vmap(of_example)(keys, inputs)

    return augment


def _turn_of_plane(angle: Array) -> Array:
    return jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])


def _turn_of_space(angle: Array, direction: Array) -> Array:
    """The turn about an axis, by Rodrigues' formula."""
    x, y, z = direction / jnp.linalg.norm(direction)
    zero = jnp.zeros(())
    cross = jnp.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
    with jax.default_matmul_precision("highest"):
        return jnp.eye(3) + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * (cross @ cross)


def _require(holds: bool, argument: str, value: float, rule: str) -> None:
    if not holds:
        raise ArgumentError(argument, value, rule)


AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    "basic": basic_augmentation,
    "shift": random_shift,
    "flip": random_flip,
    "intensity": random_intensity,
    "noise": gaussian_noise,
    "rotation": random_rotation,
}

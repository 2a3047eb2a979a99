"""From a Flax NNX module to ``Model(init, apply)``: params are a plain nested dict of arrays."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array, Key, Model, Params

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def from_nnx(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """The pure functions of the module that ``build(rngs)`` makes; the module may hold ``nnx.Param`` only."""
    graphdef = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))[0]

    def init(key: Key) -> Params:
        state = nnx.state(build(nnx.Rngs(key)), nnx.Param)
        return jax.tree.map(lambda leaf: leaf, nnx.to_pure_dict(state))

    def apply(params: Params, inputs: Array) -> Array:
        return nnx.merge(graphdef, params)(inputs)

    return Model(init, apply)


def in_precision(model: Model, name: str) -> Model:
    """The model with its products and activations in a member of ``PRECISIONS``; params, their gradients, biases and
    predictions stay float32, so that small updates are not lost.

    Raises:
        ArgumentError: another name.
    """
    if name not in PRECISIONS:
        raise ArgumentError("precision", name, f"it must be one of {', '.join(PRECISIONS)}")
    if name == "float32":
        return model
    dtype = PRECISIONS[name]

    def apply(params: Params, inputs: Array) -> Array:
        kernels = jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, params)
        return model.apply(kernels, inputs.astype(dtype)).astype(jnp.float32)

    return Model(model.init, apply)

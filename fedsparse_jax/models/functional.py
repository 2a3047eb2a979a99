"""From a Flax NNX module to ``Model(init, apply)``: params are a plain nested dict of arrays."""

from collections.abc import Callable

import jax
from flax import nnx

from fedsparse_jax.types import Array, Key, Model, Params


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """The pure functions of the module that ``build(rngs)`` makes; the module may hold ``nnx.Param`` only."""
    graphdef = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))[0]

    def init(key: Key) -> Params:
        state = nnx.state(build(nnx.Rngs(key)), nnx.Param)
        return jax.tree.map(lambda leaf: leaf, nnx.to_pure_dict(state))

    def apply(params: Params, inputs: Array) -> Array:
        return nnx.merge(graphdef, params)(inputs)

    return Model(init, apply)

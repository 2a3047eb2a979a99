"""A network as StableHLO, for whoever has JAX and not this package: weights and operations in one file.

`jax.export` writes it. The batch is a symbol, so that one file takes any number of examples. Convolutions are written
in the formulation that is fastest on the backend of this machine (`models.layers`); the file runs on ``PLATFORMS``.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax import export

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Array

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def stablehlo_bytes(predict: Callable[[Array], Array], shape) -> bytes:
    """The content of a StableHLO file, as `jax.export.deserialize` reads it.

    Args:
        predict: a network with its weights, ``f32[B, *shape]`` to predictions.
        shape: of one example, channels included.

    Raises:
        UsageError: the package ``flatbuffers``, which `jax.export` needs, is not installed.
    """
    inputs = jax.ShapeDtypeStruct((*export.symbolic_shape("b"), *shape), np.float32)
    exported = export.export(jax.jit(predict), platforms=PLATFORMS)(inputs)
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise UsageError(
            "StableHLO needs the package flatbuffers, which is missing: pip install -e '.[stablehlo]'."
        ) from error


def stablehlo_predictor(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """What such a file computes: inputs to predictions."""
    call = jax.jit(export.deserialize(bytearray(content)).call)
    return lambda inputs: np.asarray(call(inputs))

"""What one prediction costs: floating-point operations, counted from the network's own trace.

Counted are the multiply-adds of matrix products and convolutions, two operations each, and each is credited to the
weight that it multiplies; so the count of a pruned network is a sum over its kept weights. Additions of biases,
norms, pooling and activations are left out: about a percent of a dense network, and more beside a pruned one. A
convolution that is computed by a faster algorithm (Winograd's) counts as what it computes, so that the count is a
property of the network.
"""

import math
from collections.abc import Callable

import jax
import jax.extend.core
import numpy as np

from fedsparse_jax.core.types import Params

MOVES = {"reshape", "transpose", "convert_element_type", "squeeze", "broadcast_in_dim", "copy", "expand_dims", "rev"}


def multiply_adds_per_weight(apply: Callable, params: Params, shape) -> np.ndarray:
    """How many multiply-adds one prediction spends on one weight of each leaf, ``f64[L]`` in leaf order.

    Args:
        apply: ``(params, inputs [B, *shape]) -> predictions``.
        params: arrays or their shapes.
        shape: of one example, channels included.

    >>> dense = lambda p, x: x @ p["w"] + p["b"][None]
    >>> leaves = {"b": jax.ShapeDtypeStruct((3,), "float32"), "w": jax.ShapeDtypeStruct((4, 3), "float32")}
    >>> multiply_adds_per_weight(dense, leaves, (4,)).tolist()
    [0.0, 1.0]
    """
    example = jax.ShapeDtypeStruct((1, *shape), np.float32)
    closed = jax.make_jaxpr(apply)(params, example)
    leaves = jax.tree.leaves(params)
    products = np.zeros(len(leaves))
    _walk(closed.jaxpr, [*range(len(leaves)), None], products, 1)
    return products / [leaf.size for leaf in leaves]


def flops_per_example(kept, multiply_adds: np.ndarray | None) -> float | None:
    """Floating-point operations of one prediction with ``kept [L]`` weights in each leaf.

    Args:
        kept: weights in each leaf.
        multiply_adds: of one prediction on a weight of each leaf, from `multiply_adds_per_weight`; None where nobody
            has counted them, and then there is no answer.
    """
    if multiply_adds is None:
        return None
    return float(2 * np.dot(np.asarray(kept, np.float64), multiply_adds))


def _walk(jaxpr, origins, products: np.ndarray, times: int) -> list:
    """Adds the multiply-adds of a program to ``products``, by the leaf that its variables come from.

    Args:
        jaxpr: the program.
        origins: for each input the leaf that it is a rearrangement of, or None.
        products: ``f64[L]``, added to.
        times: how often the program runs.

    Returns:
        The origins of its outputs.
    """
    known = dict(zip(jaxpr.invars, origins, strict=True))
    origin = lambda var: None if isinstance(var, jax.extend.core.Literal) else known.get(var)
    for eqn in jaxpr.eqns:
        name, sources = eqn.primitive.name, [origin(var) for var in eqn.invars]
        inner, repeats = _inner(eqn)
        if _is_convolution(eqn):
            inputs, kernel = (var.aval for var in eqn.invars)
            if sources[1] is not None:  # else the kernel is computed, and no leaf's
                products[sources[1]] += times * inputs.size // inputs.shape[-1] * kernel.size
        elif name in ("dot_general", "conv_general_dilated"):
            for source in sources:
                if source is not None:
                    products[source] += times * _multiply_adds(eqn)
        elif inner is not None and len(inner.invars) == len(sources):
            known.update(zip(eqn.outvars, _walk(inner, sources, products, times * repeats), strict=False))
        elif name in MOVES:
            known[eqn.outvars[0]] = sources[0]
    return [origin(var) for var in jaxpr.outvars]


def _is_convolution(eqn) -> bool:
    """Whether the equation is a SAME convolution with a gradient of its own: a function of ``[B, *space, I]`` and
    ``[K, .., I, O]`` whose result, in whatever layout, has ``O`` channels."""
    if eqn.primitive.name != "custom_vjp_call" or len(eqn.invars) != 2:
        return False
    inputs, kernel, out = (var.aval.shape for var in (*eqn.invars, eqn.outvars[0]))
    return len(inputs) == len(kernel) > 2 and inputs[-1] == kernel[-2] and out[-1] == kernel[-1]


def _inner(eqn):
    """The program that an equation calls, if it does, and how often."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in eqn.params:
            return getattr(eqn.params[key], "jaxpr", eqn.params[key]), eqn.params.get("length", 1)
    return None, 1


def _multiply_adds(eqn) -> int:
    left, right, out = eqn.invars[0].aval, eqn.invars[1].aval, eqn.outvars[0].aval
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return out.size * math.prod(left.shape[i] for i in contracted)
    features = right.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
    return out.size * right.size // features

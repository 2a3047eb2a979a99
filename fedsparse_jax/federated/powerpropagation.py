r"""Weights that are powers, as in SparsyFed (Guastella et al., ICLR 2025, arXiv 2504.05153), after Powerpropagation
(Schwarz et al., NeurIPS 2021, arXiv 2110.00296).

A weight stands for :math:`w = \mathrm{sign}(v) |v|^\beta`, and the optimizer moves v:

.. math:: \partial L / \partial v = \beta \, |v|^{\beta - 1} \, \partial L / \partial w.

Large weights move fast and small ones slowly, so that few carry the function, and what is zero stays zero. Here w is
what is stored, sent, merged and pruned (w and v have the same order); only the optimizer knows v.
"""

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array, Params
from fedsparse_jax.federated.hooks import Hook
from fedsparse_jax.sparsity.pruning import Pruning


def signed_power(values: Array, exponent: float) -> Array:
    """``sign(x) |x|^exponent``.

    >>> signed_power(jnp.array([-4.0, 0.0, 9.0]), 0.5).tolist()
    [-2.0, 0.0, 3.0]
    """
    return jnp.sign(values) * jnp.abs(values) ** exponent


def on_roots(tx: optax.GradientTransformation, pruning: Pruning, exponent: float) -> optax.GradientTransformation:
    """An optimizer whose steps are taken on v, for the prunable leaves of w."""

    def roots(params: Params) -> Params:
        to_root = lambda weight, flag: signed_power(weight, 1 / exponent) if flag else weight
        return jax.tree.map(to_root, params, pruning.prunable(params))

    def update(gradient, state, params=None):
        flags, root = pruning.prunable(params), roots(params)

        def slope_of_root(slope, value, flag):
            return slope * exponent * jnp.abs(value) ** (exponent - 1) if flag else slope

        def step_of_weight(step, value, weight, flag):
            return signed_power(value + step, exponent) - weight if flag else step

        steps, state = tx.update(jax.tree.map(slope_of_root, gradient, root, flags), state, root)
        return jax.tree.map(step_of_weight, steps, root, params, flags), state

    return optax.GradientTransformation(tx.init, update)


def powerpropagation(pruning: Pruning, *, exponent: float = 1.25) -> Hook:
    """Local steps on the roots of the prunable leaves; what prunes is another hook.

    Args:
        pruning: says which leaves.
        exponent: beta, from 1 (plain steps) on.

    Raises:
        ArgumentError: an exponent below 1.
    """
    if not exponent >= 1:
        raise ArgumentError("exponent", exponent, "it is a power from 1 on")
    return Hook(wrap_optimizer=lambda tx: on_roots(tx, pruning, exponent))

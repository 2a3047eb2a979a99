"""What is done with an optimizer of optax: one step, and the state of weights that are pruned."""

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core.types import Params


def optimizer_step(tx: optax.GradientTransformation, gradient: Params, opt_state, params: Params):
    """``(params, opt_state)`` after a step; optax relies on implicit promotion of dtypes, which is off elsewhere."""
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state


def mask_optimizer_state(tx: optax.GradientTransformation, opt_state, mask):
    """An optimizer's state without the moments of pruned weights: what grows back later starts afresh.

    Statistics that are not kept weight by weight (Adafactor's rows and columns) stay as they are.
    """

    def masked(moment, kept):
        return jnp.where(kept, moment, jnp.zeros((), moment.dtype)) if moment.shape == kept.shape else moment

    return optax.tree_utils.tree_map_params(tx, masked, opt_state, mask)

"""What is done with an optimizer of optax: one step, its rate, weight decay, and the state of pruned weights."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core.types import Array, Params


def optimizer_step(
    tx: optax.GradientTransformation, gradient: Params, opt_state, params: Params, rate_factor: Array | None = None
):
    """``(params, opt_state)`` after a step; optax relies on implicit promotion of dtypes, which is off elsewhere.

    Args:
        tx: the optimizer.
        gradient, opt_state, params: of the step.
        rate_factor: ``f32[]`` by which the whole step is multiplied, which is what the learning rate multiplies (in
            optax also momentum and weight decay); None for 1.
    """
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(gradient, opt_state, params)
        if rate_factor is not None:
            updates = jax.tree.map(lambda update: rate_factor * update, updates)
        return optax.apply_updates(params, updates), opt_state


def rate_factor_of_round(schedule: Callable, t: Array | int) -> Array:
    """``f32[]``: what a schedule of optax gives for round ``t``, counted from 1; optax counts from 0."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.asarray(schedule(t - 1), jnp.float32)


def with_weight_decay(tx: optax.GradientTransformation, share: float) -> optax.GradientTransformation:
    """An optimizer each of whose steps also takes a share off every weight, apart from gradient and momentum.

    Decoupled weight decay (Loshchilov & Hutter, 2019, arXiv 1711.05101). A pruned weight is 0, and stays so.

    Args:
        tx: the optimizer.
        share: of a weight, in each step; the learning rate times the weight decay.
    """
    return optax.chain(tx, optax.add_decayed_weights(-share))


def mask_optimizer_state(tx: optax.GradientTransformation, opt_state, mask):
    """An optimizer's state without the moments of pruned weights: what grows back later starts afresh.

    Statistics that are not kept weight by weight (Adafactor's rows and columns) stay as they are.
    """

    def masked(moment, kept):
        return jnp.where(kept, moment, jnp.zeros((), moment.dtype)) if moment.shape == kept.shape else moment

    return optax.tree_utils.tree_map_params(tx, masked, opt_state, mask)

"""LotteryFL style: every client finds a mask of its own, and rewinds (Li et al., arXiv 2008.03371).

The whole method is the hook in this file: masks that clients keep, and what a client does before it trains.
"""

import jax
import jax.numpy as jnp

from fedsparse_jax.core import losses, masks, tree
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.optimizers import mask_optimizer_state
from fedsparse_jax.core.types import Array, Chunk, ClientState, DataNeeds, Params
from fedsparse_jax.federated.hooks import Hook, HookContext
from fedsparse_jax.federated.mask_ownership import CLIENTS_OWN
from fedsparse_jax.sparsity.pruning import Pruning


def lottery_tickets(pruning: Pruning, *, min_accuracy: float = 0.0, reset_to_initial: bool = True) -> Hook:
    """Before it trains, a client that predicts well enough prunes its own mask and begins again.

    The schedule is read at the client's own count of rounds in which it might prune, the hook's ``state``.

    Args:
        pruning: the rule; its schedule counts a client's own prunings.
        min_accuracy: least share of right predictions, on a few of its batches, with which a client prunes; 0 for
            always. Of a classifier only.
        reset_to_initial: whether a client that has pruned begins again from the initial weights, within its new mask.

    Raises:
        ArgumentError: an impossible share.
    """
    if not 0 <= min_accuracy <= 1:
        raise ArgumentError("min_accuracy", min_accuracy, "it is a share of right predictions, from 0 to 1")

    def before_training(context: HookContext, client: ClientState, chunk) -> ClientState:
        t = client.state + 1
        scores = context.scorer(pruning.criterion)(client.params, context.key, chunk)
        pruned = pruning.select(scores, client.masks, pruning.schedule(t))
        is_open = jnp.asarray(True)
        if min_accuracy > 0:
            is_open = accuracy_on(context.apply, client.params, chunk) >= min_accuracy
        prunes = is_open & (masks.hamming(pruned, client.masks) > 0)
        mask = tree.where(prunes, pruned, client.masks)
        params = client.params
        opt_state = mask_optimizer_state(context.client_tx, client.opt_state, mask)
        if reset_to_initial:
            params = tree.where(prunes, context.initial_params, params)
            opt_state = tree.where(prunes, context.client_tx.init(context.initial_params), opt_state)
        state = jnp.where(is_open, t, client.state)
        return client._replace(params=masks.apply(mask, params), masks=mask, opt_state=opt_state, state=state)

    return Hook(
        before_training=before_training,
        init_state=lambda params: jnp.zeros((), jnp.int32),
        target_sparsity=lambda t, state, pace=None: pruning.schedule(state),
        prunable=pruning.prunable,
        needs=DataNeeds(before_training=pruning.criterion.needs_batch or min_accuracy > 0),
        mask_ownership=CLIENTS_OWN,
    )


def accuracy_on(apply, params: Params, chunk: Chunk) -> Array:
    """Share of right predictions among the valid examples of ``chunk [T, B, ...]``."""

    def count(_, batch: Chunk):
        correct = losses.is_correct(apply(params, batch.inputs), batch.targets)
        return None, (jnp.where(batch.valid, correct, 0).sum(), batch.valid.sum())

    _, (correct, valid) = jax.lax.scan(count, None, chunk)
    return correct.sum() / jnp.maximum(valid.sum(), 1).astype(jnp.float32)

"""FLASH: the clients' warm-up says how dense each layer is, and clients may have budgets (Babakniya et al., TMLR 2023,
arXiv 2208.13092).

Before round 1 every client trains a little and prunes its model. How much of each leaf is left, as a mean over the
clients, is the leaf's density; which weights, is drawn at random. From then on the mask stays. A client with a budget
below 1 trains the largest of these weights in each leaf, chosen anew in each round, and sends no others.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.optimizers import mask_optimizer_state
from fedsparse_jax.core.types import Array, Chunk, ClientState, DataNeeds, Masks, ServerState
from fedsparse_jax.federated.client_map import map_over_clients
from fedsparse_jax.federated.client_step import make_local_step
from fedsparse_jax.federated.hooks import Hook, HookContext
from fedsparse_jax.federated.mask_ownership import CLIENTS_TAKE_PARTS, SERVER_OWNS
from fedsparse_jax.sparsity.criteria import random
from fedsparse_jax.sparsity.pruning import Pruning
from fedsparse_jax.sparsity.scopes import keep_count, whole_counts
from fedsparse_jax.sparsity.selection import share_of


def flash(pruning: Pruning, *, passes: int = 5, budgets: tuple[float, ...] = ()) -> Hook:
    """Densities of the leaves from a warm-up before round 1, a random mask with them, and parts of it by budgets.

    Args:
        pruning: by whose rule a client prunes after its warm-up, to what the schedule asks for in round 0.
        passes: how often a client trains on its scored batches in the warm-up.
        budgets: shares of the mask's weights that the clients train, in turn: client k has number k modulo their count;
            none for the whole mask.

    Raises:
        ArgumentError: no pass, or a budget that is no share.
    """
    if passes < 1:
        raise ArgumentError("passes", passes, "it must be at least 1")
    if any(not 0 < budget <= 1 for budget in budgets):
        raise ArgumentError("budgets", budgets, "each is a share of the mask's weights, above 0 and up to 1")

    def at_init(context: HookContext, server: ServerState, data: Chunk, weights: Array) -> ServerState:
        left = lambda chunk: _counts_after_warm_up(context, pruning, server, chunk, passes)
        counts = tree.weighted_mean(map_over_clients(left, context.client_map)(data), weights)
        mask = _random_mask(context, pruning, server.masks, counts)
        return server._replace(params=masks.apply(mask, server.params), masks=mask)

    def take_part(context: HookContext, client: ClientState, chunk) -> ClientState:
        share = jnp.asarray(budgets, jnp.float32)[client.id % len(budgets)]

        def largest(weight, mask, flag):
            return keep_count(jnp.abs(weight), mask, share_of(share, mask.sum(dtype=jnp.int32))) if flag else mask

        mask = jax.tree.map(largest, client.params, client.masks, pruning.prunable(client.params))
        opt_state = mask_optimizer_state(context.client_tx, client.opt_state, mask)
        return client._replace(params=masks.apply(mask, client.params), masks=mask, opt_state=opt_state)

    return Hook(
        at_init=at_init,
        before_training=take_part if budgets else None,
        target_sparsity=lambda t, state, pace=None: pruning.schedule(0),
        prunable=pruning.prunable,
        needs=DataNeeds(at_init="all"),
        mask_ownership=CLIENTS_TAKE_PARTS if budgets else SERVER_OWNS,
    )


def _counts_after_warm_up(context: HookContext, pruning: Pruning, server: ServerState, chunk: Chunk, passes: int):
    """How many weights of each leaf a client keeps that has trained and pruned, ``f32[L]``."""
    step, opt_state = make_local_step(context.objective, context.client_tx), context.client_tx.init(server.params)
    client = ClientState(jnp.int32(0), server.params, server.masks, opt_state, context.key)
    trained = jax.lax.fori_loop(0, passes, lambda _, state: jax.lax.scan(step, state, chunk)[0], client)
    scores = context.scorer(pruning.criterion)(trained.params, context.key, chunk)
    return masks.count_kept(pruning.select(scores, trained.masks, pruning.schedule(0))).astype(jnp.float32)


def _random_mask(context: HookContext, pruning: Pruning, mask: Masks, counts: Array) -> Masks:
    """A mask with about ``counts f32[L]`` weights in each leaf, and exactly the sparsity as a whole."""
    leaves, treedef = jax.tree.flatten(mask)
    chosen = [i for i, flag in enumerate(jax.tree.leaves(pruning.prunable(mask))) if flag]
    sizes = np.array([leaves[i].size for i in chosen], np.int32)
    total = int(sizes.sum()) - share_of(pruning.schedule(0), int(sizes.sum()))
    scores = jax.tree.leaves(random(mask, key=context.key))
    for i, count in zip(chosen, whole_counts(counts[np.array(chosen)], sizes, total), strict=True):
        leaves[i] = keep_count(scores[i], leaves[i], count)
    return jax.tree.unflatten(treedef, leaves)

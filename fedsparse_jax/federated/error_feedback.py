r"""FedDIP: dynamic pruning with error feedback, and a penalty that rises (Long et al., ICDM 2023, arXiv 2309.06805).

A client computes with the pruned model :math:`m \odot w`, and its steps move all of w, pruned weights too:

.. math:: w \leftarrow w - \eta \, (\nabla L(m \odot w) + \lambda_t \, (m \odot w) / \lVert m \odot w \rVert),

the norm being that of each prunable leaf. Here the client's params are the kept part of w, and what its optimizer adds
up is the rest, which begins at 0 in each round. In every so many rounds clients send w whole, so that the server, when
it prunes, may take weights back that have grown large. The hook is in this file; who prunes is another one.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Array, ClientState, Params
from fedsparse_jax.federated.hooks import Hook, HookContext
from fedsparse_jax.sparsity.pruning import Pruning


class FeedbackState(NamedTuple):
    """Of the clients' optimizer."""

    inner: Any  # of the optimizer itself
    moved: Params  # sum of this round's steps
    penalty: Array  # f32[], lambda of this round


def with_feedback(tx: optax.GradientTransformation, pruning: Pruning) -> optax.GradientTransformation:
    """An optimizer that adds the gradient of the penalty, and remembers the sum of its steps."""

    def init(params: Params) -> FeedbackState:
        return FeedbackState(tx.init(params), optax.tree.zeros_like(params), jnp.zeros((), jnp.float32))

    def update(gradient, state: FeedbackState, params=None):
        def pulled(slope, weight, flag):
            norm = jnp.maximum(jnp.sqrt(jnp.square(weight).sum()), 1e-12)
            return slope + state.penalty * weight / norm if flag else slope

        gradient = jax.tree.map(pulled, gradient, params, pruning.prunable(params))
        updates, inner = tx.update(gradient, state.inner, params)
        return updates, FeedbackState(inner, jax.tree.map(jnp.add, state.moved, updates), state.penalty)

    return optax.GradientTransformation(init, update)


def penalty_of_round(t: Array | int, penalty: float, steps: int, end: int) -> Array:
    """``f32[]``: lambda in round ``t``, from 0 to ``penalty`` in so many steps of equal length.

    >>> [round(float(penalty_of_round(t, 0.3, steps=4, end=8)), 3) for t in (1, 2, 3, 7, 8, 9)]
    [0.0, 0.0, 0.1, 0.3, 0.3, 0.3]
    """
    step = jnp.minimum((jnp.asarray(t, jnp.int32) - 1) * steps // end, steps - 1)
    return jnp.float32(penalty / (steps - 1)) * step.astype(jnp.float32)


def error_feedback(pruning: Pruning, *, every: int = 1, penalty: float = 1e-3, steps: int = 20, end: int = 40) -> Hook:
    """Pruned weights move along, and are sent every so many rounds; a hook after this one prunes on the server.

    Momentum and clipping see the gradients of pruned weights as well.

    Args:
        pruning: says which leaves the penalty is on.
        every: rounds between two in which clients send all weights; the schedule should prune in the same ones.
        penalty: lambda in the last rounds; 0 for none.
        steps: of equal length, in which it gets there; it is 0 in the first.
        end: round after which it rises no more.

    Raises:
        ArgumentError: a number below what makes sense.
    """
    for name, value, least in (("every", every, 1), ("penalty", penalty, 0), ("steps", steps, 2), ("end", end, 1)):
        if value < least:
            raise ArgumentError(name, value, f"it must be at least {least}")

    def before_training(context: HookContext, client: ClientState, chunk) -> ClientState:
        strength = penalty_of_round(context.t, penalty, steps, end)
        nothing = tree.zeros_like(client.opt_state.moved)
        return client._replace(opt_state=client.opt_state._replace(moved=nothing, penalty=strength))

    def after_training(context: HookContext, client: ClientState, chunk) -> ClientState:
        factor = jnp.float32(1) if client.rate_factor is None else client.rate_factor
        due = context.t % every == 0
        whole = lambda weight, mask, moved: jnp.where(mask, weight, jnp.where(due, factor * moved, 0))
        params = jax.tree.map(whole, client.params, client.masks, client.opt_state.moved)
        return client._replace(params=params, masks=jax.tree.map(lambda mask: mask | due, client.masks))

    return Hook(
        before_training=before_training,
        after_training=after_training,
        wrap_optimizer=lambda tx: with_feedback(tx, pruning),
        dense_gradient=True,
        regrows=True,
    )

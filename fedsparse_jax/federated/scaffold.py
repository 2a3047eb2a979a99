r"""SCAFFOLD: control variates against the drift of clients (Karimireddy et al., ICML 2020, arXiv 1910.06378).

Every client adds :math:`c - c_k` to its gradients, the mean of all clients' usual gradients minus its own. After its K
steps its control variate is, by option II of the paper,

.. math:: c_k^+ = c_k - c + \frac{\theta - w}{K \eta} = \frac 1 K \sum_j g_k(w_j),

the mean of the gradients that it met. The right side is what is computed; it needs neither the rate nor plain steps.
The client sends :math:`c_k^+ - c_k` beside its model, and the server adds the sum over the round's clients, divided by
the number of all clients, to :math:`c`. The whole method is the hook in this file. All is kept within the masks.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.types import Array, ClientState, Params
from fedsparse_jax.federated.hooks import Hook, HookContext
from fedsparse_jax.sparsity.pruning import Pruning


class ControlledState(NamedTuple):
    """Of the clients' optimizer; its two trees are shaped as the params."""

    inner: Any  # of the optimizer itself
    correction: Params  # what is added to every gradient of this round
    total: Params  # sum of this round's gradients
    steps: Array  # i32[], how many


def with_correction(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimizer that adds a correction to every gradient, and remembers the sum of the gradients."""

    def init(params: Params) -> ControlledState:
        nothing = optax.tree.zeros_like(params)
        return ControlledState(tx.init(params), nothing, nothing, jnp.zeros((), jnp.int32))

    def update(gradient, state: ControlledState, params=None):
        updates, inner = tx.update(jax.tree.map(jnp.add, gradient, state.correction), state.inner, params)
        total = jax.tree.map(jnp.add, state.total, gradient)
        return updates, ControlledState(inner, state.correction, total, state.steps + 1)

    return optax.GradientTransformation(init, update)


def scaffold(pruning: Pruning) -> Hook:
    """Control variates of clients and server; what prunes, if anything does, are other hooks.

    Args:
        pruning: not used.
    """

    def before_training(context: HookContext, client: ClientState, chunk) -> ClientState:
        (server_control,) = client.sent

        def difference(own, of_server, mask):  # nothing corrects a leaf that stays with its client
            return jnp.zeros_like(own) if of_server is None else jnp.where(mask, of_server - own, 0)

        correction = jax.tree.map(difference, client.state, server_control, client.masks)
        nothing = tree.zeros_like(correction)
        state = client.opt_state._replace(correction=correction, total=nothing, steps=client.opt_state.steps * 0)
        return client._replace(opt_state=state)

    def remember(client: ClientState) -> Params:
        """The control variate after the training; as before where no step was taken."""
        steps = client.opt_state.steps
        mean = jax.tree.map(lambda total: total / jnp.maximum(steps, 1).astype(total.dtype), client.opt_state.total)
        return tree.where(steps > 0, masks.apply(client.masks, mean), client.state)

    def upload_scores(context: HookContext, client: ClientState, chunk):
        change = jax.tree.map(jnp.subtract, remember(client), client.state)
        return masks.apply(client.masks, change)

    def update_server_state(context: HookContext, control: Params, changes, present: Array) -> Params:
        total = tree.weighted_sum(changes, present.astype(jnp.float32))
        return jax.tree.map(lambda c, change: c + change / context.num_clients, control, total)

    return Hook(
        before_training=before_training,
        upload_scores=upload_scores,
        init_state=optax.tree.zeros_like,
        remember=remember,
        init_server_state=optax.tree.zeros_like,
        update_server_state=update_server_state,
        wrap_optimizer=with_correction,
    )

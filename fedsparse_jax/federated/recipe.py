"""A method as a choice of parts: network, loss, optimizers, aggregation, and hooks for what it does to masks."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.types import Aggregator, DataNeeds, Masks, Model, Params, SumRule
from fedsparse_jax.federated.client_map import ClientMap
from fedsparse_jax.federated.client_step import PrivateSteps
from fedsparse_jax.federated.hooks import Hook
from fedsparse_jax.federated.mask_ownership import SERVER_OWNS, MaskOwnership
from fedsparse_jax.federated.personal import Personal
from fedsparse_jax.federated.sound_clients import Limits
from fedsparse_jax.sparsity.pacing import Paced
from fedsparse_jax.sparsity.scopes import everything

ANCHORS = ("global", "zero")


class Recipe(NamedTuple):
    """A method: its parts, and how clients are executed. Without hooks nothing is pruned.

    >>> import optax
    >>> from fedsparse_jax.core.losses import squared
    >>> from fedsparse_jax.federated import Recipe, mean, prune_on_server
    >>> from fedsparse_jax.sparsity import CRITERIA, Pruning, global_, gradual
    >>> from fedsparse_jax.models import flat_cnn
    >>> rule = Pruning(CRITERIA["magnitude"], global_, gradual(final=0.95, end=40))
    >>> fedsparsify = Recipe(
    ...     flat_cnn((8, 8, 8)), squared, optax.sgd(1e-3), optax.sgd(1.0), mean, hooks=(prune_on_server(rule),)
    ... )
    """

    model: Model
    loss: Callable  # (predictions, targets [B]) -> f32[B]
    client_tx: optax.GradientTransformation  # of the local steps, on the masked gradient
    server_tx: optax.GradientTransformation  # on the pseudo-gradient, global model minus aggregate; sgd(1) is FedAvg
    aggregate: Aggregator
    hooks: tuple[Hook, ...] = ()  # in the order in which they act
    proximal: float = 0.0  # mu of FedProx, see `client_step.make_local_step`
    proximal_anchor: str = "global"  # what it pulls towards: the "global" model, or, as in a published code, "zero"
    private: PrivateSteps | None = None  # differentially private local steps; None for none
    client_rate: Callable | None = None  # schedule of optax: rounds before this one -> factor of the clients' rate
    server_rate: Callable | None = None  # the same of the server's
    augment: Callable | None = None  # (key, inputs [B, ...]) -> inputs, in local steps only; None for none
    keep_opt_state: bool = False  # a client's optimizer goes on where it stopped in its last round
    norm_bound: float = 0.0  # an update's largest norm, as a multiple of the median one; 0 for none, see `robust`
    limits: Limits = Limits()  # which clients count in a round, and how many it needs
    personal: Personal | None = None  # leaves that stay with their client, see `personal`; None for none
    initial_masks: Masks | None = None  # of weights that are pruned before any training; None keeps everything
    num_clients: int = 1  # of the federation; matters where clients keep something between rounds
    client_map: ClientMap = "scan"
    devices: int = 1
    of_sums: SumRule | None = None  # ``aggregate`` as one of `sums.SUM_RULES`, where clients are merged as they come

    @property
    def mask_ownership(self) -> MaskOwnership:
        """Whose masks outlive a round."""
        return next((hook.mask_ownership for hook in self.hooks if hook.mask_ownership != SERVER_OWNS), SERVER_OWNS)

    @property
    def clients_change_masks(self) -> bool:
        """Whether a client's mask, when it uploads, may be another than the one that it was sent, or the server's."""
        return any(hook.before_training or hook.after_training for hook in self.hooks)

    @property
    def clients_may_regrow(self) -> bool:
        """Whether a client may send a weight that it was not sent."""
        return self.mask_ownership.clients_keep or any(hook.regrows and hook.after_training for hook in self.hooks)

    @property
    def dense_gradient(self) -> bool:
        """Whether the optimizer of the local steps is given the gradients of pruned weights, too."""
        return any(hook.dense_gradient for hook in self.hooks)

    def personal_flags(self, params: Params) -> object | None:
        """Which leaves stay with their client, as a tree of bool; None where all are sent."""
        return self.personal(params) if self.personal else None

    @property
    def data_needs(self) -> DataNeeds:
        """Where the method looks at data."""
        needs = [hook.needs for hook in self.hooks]
        return DataNeeds(
            at_init=next((need.at_init for need in needs if need.at_init), ""),
            before_training=any(need.before_training for need in needs),
            after_training=any(need.after_training for need in needs),
        )

    @property
    def paced(self) -> Paced | None:
        """The schedule that looks at the training, if there is one."""
        return next((hook.paced for hook in self.hooks if hook.paced), None)

    def prunable(self, params: Params) -> object:
        """Which leaves the hooks may prune, as a tree of bool."""
        return next((hook.prunable for hook in self.hooks if hook.prunable), everything)(params)


def check_recipe(recipe: Recipe) -> None:
    """Refuses parts that do not go together.

    Raises:
        ArgumentError: an unknown anchor.
        UsageError: private steps beside hooks that look at data or at gradients of pruned weights, hooks of the server
            beside masks of the clients, more than one hook that keeps a state, a hook's state at the server beside
            regrowth, leaves that stay with their client and are all there are, or may be pruned, or clients who are
            merged as they come where the method needs more of them than sums.
    """
    if recipe.proximal_anchor not in ANCHORS:
        rule = f"it must be one of {', '.join(ANCHORS)}"
        raise ArgumentError("proximal_anchor", recipe.proximal_anchor, rule)
    if recipe.private and any(recipe.data_needs):
        raise UsageError(
            "Private local steps hide what training does with data, but this method also looks at data when it prunes "
            "or grows; choose a criterion such as 'magnitude', or train without private steps."
        )
    if recipe.private and recipe.dense_gradient:
        raise UsageError(
            "Private local steps give out the gradients of kept weights alone, but error feedback needs those of "
            "pruned ones; leave out one of the two."
        )
    if recipe.mask_ownership.clients_keep and any(hook.after_aggregation for hook in recipe.hooks):
        raise UsageError(
            "In this method every client has a mask of its own, so that the server has none to prune or to regrow; "
            "leave out what does so on the server."
        )
    if sum(hook.init_state is not None for hook in recipe.hooks) > 1:
        raise UsageError("More than one hook keeps a state for each client; join them into one hook.")
    if any(hook.init_server_state for hook in recipe.hooks) and any(hook.regrows for hook in recipe.hooks):
        raise UsageError("SCAFFOLD knows nothing of weights that come back; leave out the regrowth.")
    if recipe.personal:
        _check_personal(recipe)
    if recipe.of_sums:
        _check_sums(recipe)


def _check_personal(recipe: Recipe) -> None:
    params = jax.eval_shape(recipe.model.init, jax.random.key(0))
    flags = jax.tree.leaves(recipe.personal_flags(params))
    if not any(flags) or all(flags):
        rule = f"some leaves, but not all, must match it; there are {', '.join(tree.leaf_names(params))}"
        raise ArgumentError("personal", "a pattern of " + ("all leaves" if all(flags) else "no leaf"), rule)
    if any(hook.prunable for hook in recipe.hooks):
        prunable = jax.tree.leaves(recipe.prunable(params))
        if any(own and may for own, may in zip(flags, prunable, strict=True)):
            raise UsageError("Leaves that stay with their client cannot be pruned; leave them out of what is prunable.")


def _check_sums(recipe: Recipe) -> None:
    owner_keeps, hooks_keep = recipe.mask_ownership.clients_keep, any(hook.init_state for hook in recipe.hooks)
    if owner_keeps or hooks_keep or recipe.personal or recipe.keep_opt_state:
        raise UsageError(
            "In this method clients keep something between rounds, and so they cannot be merged as they come; set "
            "execution.clients_held to 0."
        )
    if recipe.norm_bound:
        raise UsageError(
            "server.norm_bound compares the clients with one another, and so they cannot be merged as they come; set "
            "it or execution.clients_held to 0."
        )

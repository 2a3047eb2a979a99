"""One federated round: clients, server, methods. Aggregation rules and hooks go here."""

from fedsparse_jax.federated.aggregation import (
    AGGREGATORS, QUORUMS, capped_vote, elect, keepers_mean, krum, majority_vote, mean, median, multi_krum, trimmed_mean,
    vote_keepers,
)  # fmt: skip
from fedsparse_jax.federated.algorithm import build_algorithm
from fedsparse_jax.federated.client_map import map_over_clients
from fedsparse_jax.federated.client_step import PrivateSteps, make_local_step, make_objective
from fedsparse_jax.federated.hooks import (
    Hook, HookContext, prune_at_init, prune_on_clients, prune_on_server, regrow_on_clients, regrow_on_server,
)  # fmt: skip
from fedsparse_jax.federated.lottery import lottery_tickets
from fedsparse_jax.federated.mask_ownership import CLIENTS_OWN, SERVER_OWNS, MaskOwnership
from fedsparse_jax.federated.poisoning import poisoned
from fedsparse_jax.federated.privacy_accounting import epsilon_spent, most_rounds
from fedsparse_jax.federated.recipe import Recipe
from fedsparse_jax.federated.robust import bound_updates
from fedsparse_jax.federated.sound_clients import Limits

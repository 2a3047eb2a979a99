"""Hooks that a config names by ``hooks.name``, each in a file of its own; a further one is a line here."""

from collections.abc import Callable

from fedsparse_jax.federated.error_feedback import error_feedback
from fedsparse_jax.federated.flash import flash
from fedsparse_jax.federated.hooks import Hook
from fedsparse_jax.federated.lottery import lottery_tickets
from fedsparse_jax.federated.powerpropagation import powerpropagation
from fedsparse_jax.federated.scaffold import scaffold

HOOKS: dict[str, Callable[..., Hook]] = {
    "lottery_tickets": lottery_tickets,
    "scaffold": scaffold,
    "error_feedback": error_feedback,
    "flash": flash,
    "powerpropagation": powerpropagation,
}

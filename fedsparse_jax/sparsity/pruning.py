"""What a method prunes by: a choice of criterion, scope and schedule, and scores on the batches of a client."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedsparse_jax.core.types import Array, Chunk, Key, Masks, Params, Schedule, Scope
from fedsparse_jax.sparsity.criteria import Criterion
from fedsparse_jax.sparsity.pacing import Pace, Paced
from fedsparse_jax.sparsity.scopes import everything


class Pruning(NamedTuple):
    """What a method prunes by; who prunes, and where in the round, is said by its hooks (`federated.hooks`)."""

    criterion: Criterion
    scope: Scope
    schedule: Schedule
    prunable: Callable[[Params], object] = everything  # which leaves, a member of ``PRUNABLE``

    @property
    def paced(self) -> Paced | None:
        """The schedule, if it looks at the training."""
        return self.schedule if isinstance(self.schedule, Paced) else None

    def sparsity(self, t: Array | int, pace: Pace | None = None) -> Array:
        """What the schedule asks for after round ``t``; ``pace`` is the server's before it."""
        return self.paced(t, pace) if self.paced else self.schedule(t)

    def select(self, scores, masks: Masks, sparsity: Array) -> Masks:
        """The masks with ``sparsity`` reached."""
        return self.scope(scores, masks, sparsity, self.prunable(masks))


def make_scorer(criterion: Criterion, objective: Callable, apply: Callable) -> Callable:
    """``(params, key, chunk) -> scores``: a criterion on the batches of one client.

    Args:
        criterion: scores one batch, or needs none.
        objective: ``(params, batch) -> f32[]``, the mean loss of the valid examples.
        apply: the network.

    Returns:
        The score of the batches ``[T, B, ...]`` joined, or the mean over those that hold a valid example, as the
        criterion says; without data, the criterion itself.
    """
    if not criterion.needs_batch:
        return lambda params, key, chunk: criterion.score(params, key=key)

    def score_joined(params: Params, key: Key, chunk: Chunk):
        batch = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), chunk)
        return criterion.score(params, key=key, objective=objective, apply=apply, batch=batch)

    def score(params: Params, key: Key, chunk: Chunk):
        def add(total, batch):
            scores = criterion.score(params, key=key, objective=objective, apply=apply, batch=batch)
            present = batch.valid.any()
            return jax.tree.map(lambda a, b: a + jnp.where(present, b, 0), total, scores), present

        total, present = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), chunk)
        count = jnp.maximum(present.sum(), 1)
        return jax.tree.map(lambda leaf: leaf / count.astype(leaf.dtype), total)

    return score_joined if criterion.joined else score

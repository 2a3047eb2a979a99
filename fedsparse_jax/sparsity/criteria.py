"""Which weights matter: params to scores, the larger the more worth keeping.

A score knows one model and one batch. A `Criterion` says beside it whether it looks at data, and how the batches of a
client count: `pruning.make_scorer` joins them into one, or averages their scores. The server averages over clients by
their size. All score the very params that are trained, pruned weights being zero in them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedsparse_jax.core.types import Chunk, Key, Params, Score


class Criterion(NamedTuple):
    """Which weights matter, and whether that is asked of data."""

    score: Score
    needs_batch: bool = False  # scored on batches, with ``objective``, ``apply`` and ``batch``
    joined: bool = False  # a client's batches are scored as one: the score is of the mean loss, not a mean of scores


def magnitude(params: Params, **unused):
    """Score ``|w|``: keep the large weights (FedSparsify, arXiv 2208.11669)."""
    return jax.tree.map(jnp.abs, params)


def lamp(params: Params, **unused):
    r"""Score :math:`w^2 / \sum_{|v| \ge |w|} v^2`, the sum over the weights of the same leaf: keep what its layer could
    not replace by its larger weights (LAMP, arXiv 2010.07611).

    Within a leaf the order is that of `magnitude`. Between leaves the scores compare as magnitudes do not: a leaf of
    few weights, or of small ones, stays denser, and the largest weight of each leaf has the score 1.
    """

    def score(leaf):
        squares = jnp.square(leaf.ravel())
        order = jnp.argsort(-squares)
        sorted_squares = squares[order]
        at_least = jnp.cumsum(sorted_squares)
        ratios = jnp.where(sorted_squares > 0, sorted_squares / at_least, 0)
        return jnp.zeros_like(squares).at[order].set(ratios).reshape(leaf.shape)

    return jax.tree.map(score, params)


def random(params: Params, *, key: Key, **unused):
    """One fixed uniform score a weight: the baseline that any criterion must beat.

    The scores depend on ``key`` alone, so masks of rising sparsity nest when the key stays the same.
    """
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    scores = [jax.random.uniform(k, w.shape, jnp.float32) for k, w in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, scores)


def snip(params: Params, *, objective: Callable, batch: Chunk, **unused):
    r"""Score :math:`|w\,\partial L/\partial w|`: how much the loss feels the connection (SNIP, arXiv 1810.02340).

    ``snip`` takes the gradient of the mean loss of all batches, as its paper does; ``salient_grads`` is the mean of the
    batches' scores, and over clients the saliency of SalientGrads (arXiv 2304.07488).
    """
    gradient = jax.grad(objective)(params, batch)
    return jax.tree.map(lambda w, g: jnp.abs(w * g), params, gradient)


def grasp(params: Params, *, objective: Callable, batch: Chunk, **unused):
    r"""Score :math:`w \cdot (H g)`: keep what gradient flow rests on (GraSP, arXiv 2002.07376).

    Removing a weight changes :math:`g^\top g` by about :math:`-2\,w\,(Hg)`, so that a weight of negative score
    hinders training. H is the Hessian of the loss, g its gradient; no temperature. H g is half the gradient of
    :math:`g^\top g`, in reverse mode because the layers' own gradients know no other.
    """

    def squared_norm(p):
        return sum(jnp.vdot(g, g) for g in jax.tree.leaves(jax.grad(objective)(p, batch)))

    return jax.tree.map(lambda w, curved: w * curved / 2, params, jax.grad(squared_norm)(params))


def synflow(params: Params, *, apply: Callable, batch: Chunk, **unused):
    r"""Score :math:`|w\,\partial R/\partial w|`, R the summed output for an input of ones through the network of
    :math:`|w|` (SynFlow, arXiv 2006.05467).

    Of the batch only the shape is used. Meant to be repeated while pruning (100 ``iterations`` in the paper); a
    normalization in the network, which it has no notion of, blunts it.
    """
    ones = jnp.ones_like(batch.inputs[:1])
    positive = jax.tree.map(jnp.abs, params)
    gradient = jax.grad(lambda p: apply(p, ones).sum())(positive)
    return jax.tree.map(lambda w, g: jnp.abs(w * g), positive, gradient)


def squared_gradient(params: Params, *, objective: Callable, batch: Chunk, **unused):
    r"""Score :math:`(\partial L/\partial w)^2`, also of pruned weights: what may grow back (PruneFL, arXiv
    1909.12326; on one batch it orders as the ``|gradient|`` of FedDST, arXiv 2112.09824)."""
    return jax.tree.map(jnp.square, jax.grad(objective)(params, batch))


def signed_gradient(params: Params, *, objective: Callable, batch: Chunk, **unused):
    r"""Score :math:`\partial L/\partial w`, signed, also of pruned weights: over batches and clients the mean is the
    gradient of the common loss, by whose size weights grow back (RigL, arXiv 1911.11134; see `regrowth.swap`)."""
    return jax.grad(objective)(params, batch)


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(magnitude),
    "lamp": Criterion(lamp),
    "random": Criterion(random),
    "snip": Criterion(snip, needs_batch=True, joined=True),
    "salient_grads": Criterion(snip, needs_batch=True),
    "grasp": Criterion(grasp, needs_batch=True, joined=True),
    "synflow": Criterion(synflow, needs_batch=True),
    "squared_gradient": Criterion(squared_gradient, needs_batch=True),
    "signed_gradient": Criterion(signed_gradient, needs_batch=True),
}

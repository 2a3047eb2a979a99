"""Which weights matter: params to scores, the larger the more worth keeping."""

import jax
import jax.numpy as jnp

from fedsparse_jax.types import Key, Params


def magnitude(params: Params, **unused):
    """Score ``|w|``: keep the large weights (FedSparsify, arXiv 2208.11669)."""
    return jax.tree.map(jnp.abs, params)


def random(params: Params, *, key: Key, **unused):
    """One fixed uniform score a weight: the baseline that any criterion must beat.

    The scores depend on ``key`` alone, so masks of rising sparsity nest when the key stays the same.
    """
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    scores = [jax.random.uniform(k, w.shape, jnp.float32) for k, w in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, scores)


CRITERIA = {
    "magnitude": magnitude,
    "random": random,
}

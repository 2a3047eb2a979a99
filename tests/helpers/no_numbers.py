"""A site's reply whose weights are not numbers."""

import jax
import numpy as np

from fedsparse_jax.communication import Update, encode, make_context
from fedsparse_jax.deploy.envelope import seal, unseal


def with_no_numbers(reply: bytes, network) -> bytes:
    """The reply, with NaN for every weight of the network."""
    like = jax.eval_shape(network.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, np.float32), like)
    update = Update(params, jax.tree.map(np.isnan, params))
    return seal(unseal(reply)._replace(messages=(encode(update, make_context(params)),)))

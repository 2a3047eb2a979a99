"""What bounds a client who lies, before any rule merges it: its mask within what it was sent, its update within a norm.

Rules of aggregation that bear liars (`aggregation.median`, `trimmed_mean`, `krum`, `multi_krum`, `capped_vote`) see
only the clients' models; what stands here also knows the model that the clients were sent.
"""

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core import masks as mask_algebra
from fedsparse_jax.core import tree
from fedsparse_jax.core.types import Array, Masks, Params
from fedsparse_jax.federated.client_map import ClientMap, map_over_clients


def within_sent_mask(sent: Masks, params: Params, masks: Masks) -> tuple[Params, Masks]:
    """The clients' models without weights that the mask ``sent`` to them had pruned, so that nobody revives one.

    Args:
        sent: the global mask, without the client axis.
        params, masks: of the clients, leaves ``[C, ...]``.
    """
    masks = jax.tree.map(lambda mask, allowed: mask & allowed[jnp.newaxis], masks, sent)
    return mask_algebra.apply(masks, params), masks


def bound_updates(
    start: Params, params: Params, masks: Masks, present: Array, factor: float, client_map: ClientMap = "scan"
) -> Params:
    """The clients' models with every update scaled down to at most ``factor`` times the median norm of all updates.

    A fixed bound is that of Sun et al. (2019, arXiv 1911.07963, norm bounding); the median of the round makes it follow
    the training, and bears liars as long as they are fewer than half.

    Args:
        start: the model that the clients were sent.
        params, masks: of the clients, leaves ``[C, ...]``; what a client's mask prunes stays 0, and does not count.
        present: ``bool[C]``; the others do not count in the median.
        factor: of the median.
        client_map: how clients are executed.
    """

    def update(weights, mask):
        return mask_algebra.apply(mask, jax.tree.map(jnp.subtract, weights, start))

    norms = map_over_clients(lambda weights, mask: optax.tree.norm(update(weights, mask)), client_map)(params, masks)
    bound = factor * jnp.nanmedian(jnp.where(present, norms, jnp.nan))
    scales = jnp.where(norms > bound, bound / norms, 1)

    def scaled(weights, mask, scale):
        moved = jax.tree.map(lambda a, b: a + scale * b, start, update(weights, mask))
        return tree.where(scale < 1, mask_algebra.apply(mask, moved), weights)

    return map_over_clients(scaled, client_map)(params, masks, scales)

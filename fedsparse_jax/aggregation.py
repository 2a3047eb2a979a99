"""Many clients' models to one: every rule reduces the leading client axis and knows nothing else.

Leaves come as ``[C, ...]``, already masked; ``weights[C]`` are the examples behind each client, and weight 0
marks an absent client, which neither counts nor votes.
"""

import jax

from fedsparse_jax import masks as mask_algebra
from fedsparse_jax import tree
from fedsparse_jax.types import Array, Masks, Params


def mean(params: Params, masks: Masks, weights: Array) -> tuple[Params, Masks]:
    r"""Weighted mean, zeros of pruned weights included: :math:`\sum_k p_k \theta_k` (FedAvg, McMahan et al., 2017).

    The mask is the union of the clients' masks.
    """
    shares = weights / weights.sum()
    union = jax.tree.map(lambda v: v > 0, mask_algebra.votes(masks, weights > 0))
    return tree.weighted_sum(params, shares), union


def majority_vote(
    params: Params, masks: Masks, weights: Array, *, quorum: float = 0.5
) -> tuple[Params, Masks]:
    """Weighted mean of the clients, on connections that enough clients kept (FedSparsify-Local).

    A client that pruned a kept connection contributes its zero.

    Args:
        params: leaves ``[C, ...]``, already masked.
        masks: the same tree, bool.
        weights: ``[C]`` examples behind each client; 0 marks an absent client.
        quorum: share of the present clients that must keep a connection; exactly meeting it counts as kept.

    Returns:
        ``(params, masks)`` without the client axis.
    """
    present = weights > 0
    needed = quorum * present.sum()
    elected = jax.tree.map(lambda v: (v >= needed) & (v > 0), mask_algebra.votes(masks, present))
    average, _ = mean(params, masks, weights)
    return mask_algebra.apply(elected, average), elected


AGGREGATORS = {
    "mean": mean,
    "majority_vote": majority_vote,
}

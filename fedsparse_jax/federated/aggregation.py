"""Many clients' models to one: every rule reduces the leading client axis and knows nothing else.

Leaves come as ``[C, ...]``, already masked; ``weights[C]`` are the examples behind each client, and weight 0
marks an absent client, which neither counts nor votes. Notation: p_k the weight, m_k the mask, theta_k the params
of client k; n the number of present clients.
"""

import math

import jax
import jax.numpy as jnp

from fedsparse_jax.core import masks as mask_algebra
from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Aggregator, Array, Masks, Params

QUORUMS = ("strict_majority", "at_least_half", "as_coded")
Quorum = str | float


def mean(params: Params, masks: Masks, weights: Array) -> tuple[Params, Masks]:
    r"""Weighted mean, zeros of pruned weights included: :math:`\sum_k p_k \theta_k / \sum_k p_k` (FedAvg, McMahan
    et al., 2017).

    The mask is the union of the clients' masks.
    """
    shares = weights / weights.sum()
    return tree.weighted_sum(params, shares), _union(masks, weights)


def keepers_mean(params: Params, masks: Masks, weights: Array, *, weighted: bool = True) -> tuple[Params, Masks]:
    r"""Mean over those who kept a weight: :math:`\sum_k p_k m_k \theta_k / \sum_k p_k m_k`.

    The NNZ average of FedSparsify; the merge of FedDST, and, not weighted, of LotteryFL. The mask is the union.

    Args:
        params, masks, weights: see `majority_vote`.
        weighted: by examples; else every present client counts once.
    """
    counts = weights if weighted else (weights > 0).astype(jnp.float32)

    def reduce(leaf, mask):
        total = tree.sum_rows(weighted_votes, mask, counts)
        weighted_sum = tree.sum_rows(
            lambda w, m, n: jnp.where(weighted_votes(m, n) > 0, weighted_votes(m, n) * w, 0), leaf, mask, counts
        )
        return jnp.where(total > 0, weighted_sum / jnp.where(total > 0, total, 1), 0)

    return jax.tree.map(reduce, params, masks), _union(masks, weights)


def majority_vote(
    params: Params, masks: Masks, weights: Array, *, quorum: Quorum = "at_least_half"
) -> tuple[Params, Masks]:
    """Weighted mean of the clients, on connections that enough clients kept (FedSparsify-Local).

    A client that pruned a kept connection contributes its zero.

    Args:
        params: leaves ``[C, ...]``, already masked.
        masks: the same tree, bool.
        weights: ``[C]`` examples behind each client; 0 marks an absent client.
        quorum: see `elect`.

    Returns:
        ``(params, masks)`` without the client axis.
    """
    elected = elect(masks, weights > 0, quorum)
    average, _ = mean(params, masks, weights)
    return mask_algebra.apply(elected, average), elected


def vote_keepers(
    params: Params, masks: Masks, weights: Array, *, quorum: Quorum = "at_least_half"
) -> tuple[Params, Masks]:
    """`keepers_mean` on connections that enough clients kept (Vote-NNZ of FedSparsify-Local).

    Args:
        params, masks, weights, quorum: see `majority_vote`.
    """
    elected = elect(masks, weights > 0, quorum)
    average, _ = keepers_mean(params, masks, weights)
    return mask_algebra.apply(elected, average), elected


def median(params: Params, masks: Masks, weights: Array) -> tuple[Params, Masks]:
    """Median of the present clients, weight by weight, zeros of pruned weights included (Yin et al., 2018).

    Clients count alike, whatever their size; the mask is the union. Of an even number the two middle values are
    averaged.
    """
    present = weights > 0
    count = present.sum()

    def reduce(leaf):
        ordered = _sorted(leaf, present)
        return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2

    union = _union(masks, weights)
    return mask_algebra.apply(union, jax.tree.map(reduce, params)), union


def trimmed_mean(params: Params, masks: Masks, weights: Array, *, trim: float = 0.1) -> tuple[Params, Masks]:
    """Mean without the ``floor(trim * n)`` smallest and largest values, weight by weight (Yin et al., 2018).

    Clients count alike, whatever their size; the mask is the union.

    Args:
        params, masks, weights: see `majority_vote`.
        trim: share of the present clients cut off at either end, in [0, .5).
    """
    if not 0 <= trim < 0.5:
        raise ArgumentError("trim", trim, "it is a share from 0 up to, but not including, 0.5")
    present = weights > 0
    count = present.sum()
    cut = jnp.floor(trim * count.astype(jnp.float32) + 1e-6).astype(jnp.int32)

    def reduce(leaf):
        ordered = _sorted(leaf, present)
        place = tree.per_row(jnp.arange(len(leaf)), leaf)
        inside = (place >= cut) & (place < count - cut)
        return jnp.where(inside, ordered, 0).sum(0) / (count - 2 * cut).astype(leaf.dtype)

    union = _union(masks, weights)
    return mask_algebra.apply(union, jax.tree.map(reduce, params)), union


def krum(params: Params, masks: Masks, weights: Array, *, malicious: int = 1) -> tuple[Params, Masks]:
    """The model of the one client that is nearest to its neighbours (Blanchard et al., 2017, arXiv 1703.02757).

    Args:
        params, masks, weights: see `majority_vote`; clients count alike, whatever size they claim.
        malicious: f, how many of the n present clients may lie; each has n - f - 2 neighbours, at least one.
    """
    return _mean_of_nearest(params, masks, weights, malicious, lambda count: jnp.int32(1))


def multi_krum(params: Params, masks: Masks, weights: Array, *, malicious: int = 1) -> tuple[Params, Masks]:
    """The mean, in which all count alike, of the n - f clients that are nearest to their neighbours (see `krum`)."""
    return _mean_of_nearest(params, masks, weights, malicious, lambda count: jnp.maximum(count - malicious, 1))


def _mean_of_nearest(params: Params, masks: Masks, weights: Array, malicious: int, how_many):
    if malicious < 0:
        raise ArgumentError("malicious", malicious, "it is a number of clients and must not be negative")
    present = weights > 0
    count, places = present.sum(dtype=jnp.int32), jnp.arange(len(weights))
    neighbours = jnp.maximum(count - malicious - 2, 1)
    row, column = jnp.newaxis, (slice(None), jnp.newaxis)
    pair = present[row] & present[column] & (places[row] != places[column])
    distances = _squared_distances(params, present)
    nearest = jnp.sort(jnp.where(pair, distances, jnp.inf), axis=1)
    spread = jnp.where(places[row] < neighbours, nearest, 0).sum(1)  # Krum's score of each client
    to_all = jnp.where(pair, distances, 0).sum(1)  # decides among equals, as two that are each other's only neighbour
    rank = jnp.argsort(jnp.lexsort((to_all, jnp.where(present, spread, jnp.inf))))
    return mean(params, masks, (present & (rank < how_many(count))).astype(weights.dtype))


def _squared_distances(params: Params, present: Array):
    """Between all pairs of clients, ``f32[C, C]``; taken from the mean, so that little is lost to rounding."""
    middle = tree.weighted_mean(params, present.astype(jnp.float32))

    def of_leaf(leaf, center):
        far = jnp.where(tree.per_row(present, leaf), leaf - center[jnp.newaxis], 0).reshape(len(leaf), -1)
        with jax.default_matmul_precision("highest"):
            products = far @ far.T
        squares = jnp.diag(products)
        return squares[jnp.newaxis] + squares[:, jnp.newaxis] - 2 * products

    return sum(jax.tree.leaves(jax.tree.map(of_leaf, params, middle)))


def capped_vote(
    params: Params,
    masks: Masks,
    weights: Array,
    *,
    quorum: Quorum = "at_least_half",
    slack: float = 0.1,
    values: str = "median",
) -> tuple[Params, Masks]:
    """`majority_vote` for clients who may lie: nobody votes who has cast too many votes, or too few.

    Args:
        params, masks, weights, quorum: see `majority_vote`.
        slack: who keeps more than ``1 + slack`` times as many weights as the median client, or fewer than the median by
            that factor, does not vote.
        values: how the kept weights are merged, ``"median"`` or ``"mean"``.
    """
    rules = {"median": median, "mean": mean}
    if not slack >= 0:
        raise ArgumentError("slack", slack, "it must not be negative")
    if values not in rules:
        raise ArgumentError("values", values, f"it must be one of {', '.join(rules)}")
    present = weights > 0
    cast = sum(leaf.reshape(len(leaf), -1).sum(1, dtype=jnp.float32) for leaf in jax.tree.leaves(masks))
    usual = jnp.nanmedian(jnp.where(present, cast, jnp.nan))
    within = (cast <= (1 + slack) * usual) & (cast * (1 + slack) >= usual)
    elected = elect(masks, present & within, quorum)
    merged, _ = rules[values](params, masks, weights)
    return mask_algebra.apply(elected, merged), elected


def elect(masks: Masks, present: Array, quorum: Quorum) -> Masks:
    """The connections that enough of the n present clients kept.

    Args:
        masks: leaves ``bool[C, ...]``.
        present: ``bool[C]``.
        quorum: ``"strict_majority"``, more than n/2 votes; ``"at_least_half"``, n/2 or more; ``"as_coded"``, floor(n/2)
            or more, the published code's (no vote at all for n = 1, where everything is kept; a single one for 2
            and 3, the union); or a number in (0, 1], that share of n or more, but at least one.

    Raises:
        ArgumentError: another quorum.
    """
    return elect_by_votes(mask_algebra.votes(masks, present), present.sum(), quorum)


def elect_by_votes(votes, count: Array, quorum: Quorum) -> Masks:
    """`elect` of ``count`` clients, of whom ``votes i32[...]`` keep each connection."""
    if quorum == "strict_majority":
        return jax.tree.map(lambda v: 2 * v > count, votes)
    if quorum == "at_least_half":
        return jax.tree.map(lambda v: 2 * v >= count, votes)
    if quorum == "as_coded":
        return jax.tree.map(lambda v: v >= count // 2, votes)
    if isinstance(quorum, str) or not 0 < quorum <= 1 or not math.isfinite(quorum):
        rule = f"it must be one of {', '.join(QUORUMS)}, or a share above 0 and up to 1"
        raise ArgumentError("quorum", quorum, rule)
    needed = jnp.maximum(quorum * count.astype(jnp.float32) - 1e-6, 0.5)
    return jax.tree.map(lambda v: v.astype(jnp.float32) >= needed, votes)


def weighted_votes(mask: Array, counts: Array) -> Array:
    """``mask bool[C, ...]`` times ``counts f32[C]``."""
    return mask.astype(counts.dtype) * tree.per_row(counts, mask)


def _union(masks: Masks, weights: Array) -> Masks:
    return jax.tree.map(lambda votes: votes > 0, mask_algebra.votes(masks, weights > 0))


def _sorted(leaf: Array, present: Array) -> Array:
    """The present clients' values in rising order along the first axis, then infinities."""
    return jnp.sort(jnp.where(tree.per_row(present, leaf), leaf, jnp.inf), axis=0)


AGGREGATORS: dict[str, Aggregator] = {
    "mean": mean,
    "keepers_mean": keepers_mean,
    "majority_vote": majority_vote,
    "vote_keepers": vote_keepers,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "capped_vote": capped_vote,
}

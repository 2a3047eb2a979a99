"""Plain NumPy, written from the formulas: the second opinion on pruning, aggregation and a round."""

import numpy as np


def keep_mask(scores, alive, num_pruned):
    """Prunes the smallest scores among the alive, earlier positions first among equals, until enough are zero."""
    order = sorted(
        range(len(scores)), key=lambda i: (bool(alive[i]), float(scores[i]) if alive[i] else 0.0, i)
    )
    keep = np.array(alive, bool).copy()
    keep[order[:num_pruned]] = False
    return keep


def global_magnitude(params, masks, sparsity):
    """The masks of ``{name: array}`` params after global magnitude pruning."""
    names = sorted(params)
    flat = np.concatenate([np.abs(params[n]).ravel() for n in names])
    alive = np.concatenate([masks[n].ravel() for n in names])
    keep = keep_mask(flat, alive, round(float(np.float32(sparsity)) * flat.size))
    cuts = np.cumsum([params[n].size for n in names])[:-1]
    return {n: part.reshape(params[n].shape) for n, part in zip(names, np.split(keep, cuts))}


def gradual(t, initial, final, begin, end, power=3, every=1):
    """The paper's schedule."""
    if t >= end:
        return final
    q = max(t // every * every, begin)
    return final + (initial - final) * (1 - (q - begin) / (end - begin)) ** power


def weighted_mean(stacked, weights):
    return np.tensordot(weights / weights.sum(), stacked, axes=1)


def majority_vote(params, masks, weights, quorum=0.5):
    """One leaf: ``[C, ...]`` params and masks, ``[C]`` weights."""
    present = weights > 0
    votes = masks[present].sum(0)
    elected = (votes >= quorum * present.sum()) & (votes > 0)
    return np.where(elected, weighted_mean(np.where(masks, params, 0), weights), 0), elected


def linear_sgd(w, b, mask_w, mask_b, batches, rate):
    """Masked SGD on the mean squared error of ``x @ w + b``."""
    for x, y in batches:
        error = x @ w + b - y
        w = np.where(mask_w, w - rate * 2 * x.T @ error / len(y), 0)
        b = np.where(mask_b, b - rate * 2 * error.mean(), 0)
    return w, b

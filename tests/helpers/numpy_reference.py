"""Plain NumPy, written from the formulas: the second opinion on every part of the algebra and on whole methods.

Trees are flat dicts of float64 arrays; leaves are taken in the order of their sorted names. Loops instead of array
tricks wherever that is clearer: nothing here shares code with the package.
"""

import math
import struct
import zlib

import numpy as np

# --- selection and scopes -----------------------------------------------------------------------


def keep_mask(scores, alive, num_pruned):
    """Prunes the smallest scores among the alive, earlier positions first among equals, until enough are zero."""
    order = sorted(range(len(scores)), key=lambda i: (bool(alive[i]), float(scores[i]) if alive[i] else 0.0, i))
    keep = np.array(alive, bool).copy()
    keep[order[: max(int(num_pruned), 0)]] = False
    return keep


def share_of(share, count):
    """The nearest whole number, halves up."""
    return math.floor(float(np.float32(share)) * count + 0.5)


def global_(scores, masks, sparsity, prunable):
    names = [n for n in sorted(masks) if prunable[n]]
    flat = np.concatenate([np.ravel(scores[n]) for n in names])
    alive = np.concatenate([np.ravel(masks[n]) for n in names])
    keep = keep_mask(flat, alive, share_of(sparsity, flat.size))
    cuts = np.cumsum([masks[n].size for n in names])[:-1]
    parts = {n: part.reshape(masks[n].shape) for n, part in zip(names, np.split(keep, cuts))}
    return {n: parts.get(n, masks[n]) for n in masks}


def per_layer(scores, masks, sparsity, prunable):
    one = lambda n: global_({n: scores[n]}, {n: masks[n]}, sparsity, {n: True})[n]
    return {n: one(n) if prunable[n] else masks[n] for n in masks}


def erk_counts(shapes, total):
    sizes, raw = [math.prod(s) for s in shapes], [sum(s) or 1 for s in shapes]
    full = set()
    while True:
        rest = [i for i in range(len(shapes)) if i not in full]
        scale = (total - sum(sizes[i] for i in full)) / sum(raw[i] for i in rest) if rest else 0.0
        over = {i for i in rest if scale * raw[i] >= sizes[i]}
        if not over:
            break
        full |= over
    return whole_counts([sizes[i] if i in full else scale * raw[i] for i in range(len(shapes))], total)


def whole_counts(ideal, total):
    counts = [math.floor(value + 1e-9) for value in ideal]
    by_remainder = sorted(range(len(ideal)), key=lambda i: (counts[i] - ideal[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def erk(scores, masks, sparsity, prunable):
    names = [n for n in sorted(masks) if prunable[n]]
    size = sum(masks[n].size for n in names)
    counts = erk_counts([masks[n].shape for n in names], size - share_of(sparsity, size))
    keep = dict(masks)
    for n, count in zip(names, counts):
        flat = keep_mask(np.ravel(scores[n]), np.ravel(masks[n]), masks[n].size - count)
        keep[n] = flat.reshape(masks[n].shape)
    return keep


SCOPES = {"global": global_, "per_layer": per_layer, "erk": erk}


# --- schedules ----------------------------------------------------------------------------------


def gradual(t, initial, final, begin, end, power=3, every=1):
    """The paper's schedule."""
    if t >= end:
        return final
    q = max(t // every * every, begin)
    return final + (initial - final) * (1 - (q - begin) / (end - begin)) ** power


def step_wise(t, final, at):
    return final * sum(t >= one for one in at) / len(at)


def multiplicative(t, final, rate, begin=1, every=1):
    remaining = 1.0
    for round_ in range(begin, t + 1, every):
        remaining *= 1 - rate
        assert round_ >= begin
    return min(1 - remaining, final)


# --- aggregation: leaves [C, ...] -----------------------------------------------------------------


def present_of(weights):
    return np.flatnonzero(np.asarray(weights) > 0)


def mean(params, masks, weights):
    out, total = 0.0, sum(weights[k] for k in present_of(weights))
    for k in present_of(weights):
        out = out + weights[k] / total * np.where(masks[k], params[k], 0)
    return out, np.any([masks[k] for k in present_of(weights)], axis=0)


def keepers_mean(params, masks, weights, weighted=True):
    above, below = 0.0, 0.0
    for k in present_of(weights):
        p = weights[k] if weighted else 1.0
        above = above + p * np.where(masks[k], params[k], 0)
        below = below + p * masks[k]
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0), below > 0


def elect(masks, weights, quorum="at_least_half"):
    n = len(present_of(weights))
    votes = sum(masks[k].astype(int) for k in present_of(weights))
    if quorum == "strict_majority":
        return votes > n / 2
    if quorum == "at_least_half":
        return votes >= n / 2
    if quorum == "as_coded":
        return votes >= n // 2
    return (votes >= quorum * n) & (votes > 0)


def majority_vote(params, masks, weights, quorum="at_least_half"):
    elected = elect(masks, weights, quorum)
    return np.where(elected, mean(params, masks, weights)[0], 0), elected


def vote_keepers(params, masks, weights, quorum="at_least_half"):
    elected = elect(masks, weights, quorum)
    return np.where(elected, keepers_mean(params, masks, weights)[0], 0), elected


def median(params, masks, weights):
    here = present_of(weights)
    union = np.any([masks[k] for k in here], axis=0)
    return np.where(union, np.median([np.where(masks[k], params[k], 0) for k in here], axis=0), 0), union


def trimmed_mean(params, masks, weights, trim=0.1):
    here = present_of(weights)
    union = np.any([masks[k] for k in here], axis=0)
    cut = math.floor(trim * len(here) + 1e-6)
    ordered = np.sort([np.where(masks[k], params[k], 0) for k in here], axis=0)
    return np.where(union, ordered[cut : len(here) - cut].mean(0), 0), union


def krum(params, masks, weights, malicious=1, chosen=1):
    here = present_of(weights)
    vectors = {k: np.where(masks[k], params[k], 0).ravel().astype(np.float64) for k in here}
    neighbours = max(len(here) - malicious - 2, 1)
    scores = []
    for k in here:
        distances = sorted(((vectors[k] - vectors[j]) ** 2).sum() for j in here if j != k)
        scores.append((sum(distances[:neighbours]), sum(distances), k))
    best = [k for *_, k in sorted(scores)[:chosen]]
    return np.mean([np.where(masks[k], params[k], 0) for k in best], axis=0), np.any([masks[k] for k in best], axis=0)


def multi_krum(params, masks, weights, malicious=1):
    return krum(params, masks, weights, malicious, max(len(present_of(weights)) - malicious, 1))


def capped_vote(params, masks, weights, quorum="at_least_half", slack=0.1, values="median"):
    here = present_of(weights)
    cast = {k: masks[k].sum() for k in here}
    usual = np.median(list(cast.values()))
    voters = [k in here and usual / (1 + slack) <= cast[k] <= usual * (1 + slack) for k in range(len(weights))]
    elected = elect(masks, np.where(voters, weights, 0), quorum)
    return np.where(elected, {"median": median, "mean": mean}[values](params, masks, weights)[0], 0), elected


AGGREGATORS = {
    "mean": mean, "keepers_mean": keepers_mean, "majority_vote": majority_vote, "vote_keepers": vote_keepers,
    "median": median, "trimmed_mean": trimmed_mean,
    "krum": krum, "multi_krum": multi_krum, "capped_vote": capped_vote,
}  # fmt: skip


# --- a network of two linear layers, y = x w v + b --------------------------------------------------


def forward(p, x):
    return (x @ p["w"] @ p["v"])[:, 0] + p["b"][0]


def gradient(p, x, y):
    """Of the mean squared error."""
    slope = 2 * (forward(p, x) - y)[:, None] / len(y)
    return {"b": slope.sum(0), "v": (x @ p["w"]).T @ slope, "w": x.T @ slope @ p["v"].T}


def hessian_times(p, x, y, direction, step=1e-6):
    """Central difference of the gradient; the loss is a polynomial, so that this is exact to 1e-8 or so."""
    ahead = gradient({n: p[n] + step * direction[n] for n in p}, x, y)
    behind = gradient({n: p[n] - step * direction[n] for n in p}, x, y)
    return {n: (ahead[n] - behind[n]) / (2 * step) for n in p}


def score(criterion, p, x, y):
    """One batch's scores."""
    if criterion == "magnitude":
        return {n: np.abs(p[n]) for n in p}
    if criterion == "lamp":  # every weight against all of its leaf that are at least as large
        return {n: np.vectorize(lambda v, n=n: v**2 / (p[n][np.abs(p[n]) >= abs(v)] ** 2).sum())(p[n]) for n in p}
    if criterion == "synflow":  # R = sum(1 |w| |v|) + |b|: |w_ij| |v_j|, |v_j| sum_i |w_ij|, |b|
        w, v = np.abs(p["w"]), np.abs(p["v"])
        return {"b": np.abs(p["b"]), "v": w.sum(0)[:, None] * v, "w": w * v.T}
    g = gradient(p, x, y)
    if criterion == "squared_gradient":
        return {n: g[n] ** 2 for n in p}
    if criterion == "signed_gradient":
        return g
    if criterion == "snip":
        return {n: np.abs(p[n] * g[n]) for n in p}
    if criterion == "grasp":
        curved = hessian_times(p, x, y, g)
        return {n: p[n] * curved[n] for n in p}
    raise KeyError(criterion)


# --- regrowth -----------------------------------------------------------------------------------


def swap(p, masks, scores, t, prunable, fraction, end, anneal=True, dropped_may_return=False):
    share = fraction / 2 * (1 + math.cos(math.pi * min(t / end, 1))) if anneal else fraction
    out = dict(masks)
    for n in masks:
        alive = np.ravel(masks[n])
        kept = int(alive.sum())
        count = share_of(share, kept)
        count = count if dropped_may_return else min(count, alive.size - kept)
        if not prunable[n] or count == 0:
            continue
        active, idle = np.flatnonzero(alive), np.flatnonzero(~alive)
        dropped = sorted(active, key=lambda i: (abs(np.ravel(p[n])[i]), i))[:count]
        idle = [*idle, *dropped] if dropped_may_return else idle
        grown = sorted(idle, key=lambda i: (abs(np.ravel(scores[n])[i]), i))[-count:]
        new = alive.copy()
        new[dropped], new[grown] = False, True
        out[n] = new.reshape(masks[n].shape)
    return out


def greedy(p, masks, scores, t, sparsity, prunable, fraction, halving=10_000, fixed=0.1, costs=()):
    names = [n for n in sorted(masks) if prunable[n]]
    held, flat = {}, {}
    for n in names:
        alive = np.ravel(masks[n])
        kept = int(alive.sum())
        gone = share_of(fraction * 0.5 ** (t / halving), kept)
        held[n] = keep_mask(np.abs(np.ravel(p[n])), alive, alive.size - kept + gone)
    total = sum(masks[n].size for n in names)
    gain = sum(float(np.ravel(scores[n])[held[n]].sum()) for n in names)
    count = sum(int(held[n].sum()) for n in names)
    price = {n: dict(costs).get(n, 1.0) for n in names}
    time = sum(price[n] * (fixed * masks[n].size + int(held[n].sum())) for n in names)
    pool = [(float(np.ravel(scores[n])[i]), n, i) for n in names for i in np.flatnonzero(~held[n])]
    for value, n, i in sorted(pool, key=lambda entry: -entry[0] / price[entry[1]]):
        if count >= total - share_of(sparsity, total) or value / price[n] <= gain / time:
            break
        held[n][i] = True
        gain, count, time = gain + value, count + 1, time + price[n]
    flat = {n: held[n].reshape(masks[n].shape) for n in names}
    return {n: flat.get(n, masks[n]) for n in masks}


# --- a whole federated run ------------------------------------------------------------------------


class Adam:
    """Of Kingma and Ba, on a dict of arrays."""

    def __init__(self, rate, b1=0.9, b2=0.99, eps=1e-3):
        self.rate, self.b1, self.b2, self.eps, self.t, self.m, self.v = rate, b1, b2, eps, 0, {}, {}

    def step(self, g, masks):
        self.t += 1
        out = {}
        for n in g:
            self.m[n] = self.b1 * self.m.get(n, 0) + (1 - self.b1) * g[n]
            self.v[n] = self.b2 * self.v.get(n, 0) + (1 - self.b2) * g[n] ** 2
            unbiased = self.m[n] / (1 - self.b1**self.t), self.v[n] / (1 - self.b2**self.t)
            out[n] = -self.rate * unbiased[0] / (np.sqrt(unbiased[1]) + self.eps)
        return out

    def silence(self, masks):
        self.m = {n: np.where(masks[n], self.m[n], 0) for n in masks}
        self.v = {n: np.where(masks[n], self.v[n], 0) for n in masks}


def select(method, p, masks, sparsity, batches, random, votes=None):
    """Client or server pruning; scores are means over the batches; votes order what is exactly zero."""
    if method["criterion"] == "random":
        scores = random
    else:
        each = [score(method["criterion"], p, x, y) for x, y in batches] or [score("magnitude", p, None, None)]
        scores = {n: np.mean([one[n] for one in each], axis=0) for n in p}
    if votes:
        scores = {n: scores[n] + 1e-30 * votes[n] for n in scores}
    return SCOPES[method["scope"]](scores, masks, sparsity, method["prunable"])


def zeroed(masks, p):
    return {n: np.where(masks[n], p[n], 0.0) for n in p}


def weighted(trees, weights):
    weights = np.asarray(weights, float) / sum(weights)
    return {n: sum(w * tree[n] for w, tree in zip(weights, trees)) for n in trees[0]}


def train_whole(w, masks, batches, rate, penalty, prunable):
    """FedDIP: the gradient is that of the pruned model, and moves all weights."""
    for x, y in batches:
        pruned = zeroed(masks, w)
        g = gradient(pruned, x, y)
        pull = {n: penalty * pruned[n] / np.linalg.norm(pruned[n]) if prunable[n] else 0 for n in w}
        w = {n: w[n] - rate * (g[n] + pull[n]) for n in w}
    return w


def train_roots(w, masks, batches, rate, exponent, prunable):
    """SparsyFed: steps on v, with w = sign(v) |v|^exponent, in the prunable leaves."""
    power = lambda values, e: np.sign(values) * np.abs(values) ** e
    of_roots = lambda v: {n: power(v[n], exponent) if prunable[n] else v[n] for n in v}
    v = {n: power(w[n], 1 / exponent) if prunable[n] else w[n] for n in w}
    for x, y in batches:
        g = gradient(of_roots(v), x, y)
        slope = {n: exponent * np.abs(v[n]) ** (exponent - 1) if prunable[n] else 1 for n in v}
        v = {n: np.where(masks[n], v[n] - rate * g[n] * slope[n], 0.0) for n in v}
    return of_roots(v)


def flash_masks(method, initial, rate, sizes, probe_of, ids, random):
    """FLASH before round 1: mean densities after a warm-up of each client, and a random mask with them."""
    masks, kept = {n: np.ones(w.shape, bool) for n, w in initial.items()}, []
    for k in ids:
        trained = train(dict(initial), masks, probe_of(0, k) * method["passes"], rate)
        kept.append({n: m.sum() for n, m in select(method, trained, masks, method["schedule"](0), [], None).items()})
    mean_counts, names = weighted(kept, sizes), [n for n in sorted(masks) if method["prunable"][n]]
    size = sum(masks[n].size for n in names)
    counts = whole_counts([mean_counts[n] for n in names], size - share_of(method["schedule"](0), size))
    for n, count in zip(names, counts):
        masks[n] = keep_mask(np.ravel(random[n]), np.ravel(masks[n]), masks[n].size - count).reshape(masks[n].shape)
    return masks


def part_of(w, masks, budget, prunable):
    """The largest weights of each leaf, a share of those that are there."""
    part = dict(masks)
    for n in filter(prunable.get, masks):
        gone = masks[n].size - share_of(budget, int(masks[n].sum()))
        part[n] = keep_mask(np.abs(np.ravel(w[n])), np.ravel(masks[n]), gone).reshape(masks[n].shape)
    return part


def train(p, masks, batches, rate, proximal=0.0, correction=None):
    """Masked SGD; the proximal term pulls towards where training began; a correction is added to each gradient."""
    start = p
    for x, y in batches:
        g = gradient(p, x, y)
        step = {n: g[n] + proximal * (p[n] - start[n]) + (correction[n] if correction else 0) for n in p}
        p = {n: np.where(masks[n], p[n] - rate * step[n], 0.0) for n in p}
    return p


def federated(method, initial, rounds, rate, sizes, batches_of, probe_of, ids_of, random=None, random_of=None):
    """Plays ``rounds`` rounds from the formulas.

    Args:
        method: dict with placement, criterion, scope, prunable, schedule, aggregate, and what else a method has.
        initial: params.
        sizes: examples of every client.
        batches_of, probe_of: ``(round, client) -> [(x, y), ...]``.
        ids_of: ``round -> clients``; round 0 for pruning before training.
        random, random_of: scores of random pruning, and ``round -> scores`` of random growth.

    Returns:
        ``(params, masks, the clients' own masks)``
    """
    place, prunable = method["placement"], method["prunable"]
    p, masks = dict(initial), {n: np.ones(w.shape, bool) for n, w in initial.items()}
    if "init" in place:
        for i in range(1, method.get("iterations", 1) + 1):
            ids, s = ids_of(0), 1 - (1 - method["schedule"](0)) ** (i / method.get("iterations", 1))
            if method["criterion"] in ("magnitude", "random"):
                masks = select(method, zeroed(masks, p), masks, s, [], random)
            else:
                each = [
                    weighted([score(method["criterion"], zeroed(masks, p), x, y) for x, y in probe_of(0, k)], [1])
                    for k in ids
                ]
                merged = weighted(each, [sizes[k] for k in ids])
                masks = SCOPES[method["scope"]](merged, masks, s, prunable)
        p = zeroed(masks, p)
    if "flash" in place:
        masks = flash_masks(method, p, rate, sizes, probe_of, ids_of(0), random)
        p = zeroed(masks, p)
    own = {k: masks for k in range(len(sizes))}
    prunings = dict.fromkeys(own, 0)
    server = method["server"]() if "server" in method else None
    nothing = {n: np.zeros(w.shape) for n, w in initial.items()}
    control, controls = nothing, dict.fromkeys(own, nothing)  # of SCAFFOLD
    at_home = {k: {n: initial[n] for n in method.get("personal", ())} for k in own}  # leaves that are not sent
    for t in range(1, rounds + 1):
        models, theirs, grow, changed = [], [], [], {}
        for k in ids_of(t):
            w, m = {**p, **at_home[k]}, masks
            if "arrival" in place:
                w = zeroed(own[k], p)
                m = select(method, w, own[k], method["schedule"](prunings[k] + 1), [], random)
                if any((m[n] != own[k][n]).any() for n in m):
                    prunings[k], w = prunings[k] + 1, zeroed(m, initial)
                own[k] = m
            correction = zeroed(m, {n: control[n] - controls[k][n] for n in p})
            if method.get("budgets"):
                m = part_of(w, m, method["budgets"][k % len(method["budgets"])], prunable)
                w = zeroed(m, w)
            if method.get("exponent"):
                w = train_roots(w, m, batches_of(t, k), rate, method["exponent"], prunable)
            elif method.get("feedback"):
                w = train_whole(w, m, batches_of(t, k), rate, method["feedback"](t), prunable)
                m = {n: np.ones(w[n].shape, bool) for n in w}
            else:
                begun, w = w, train(w, m, batches_of(t, k), rate, method.get("proximal", 0.0), correction)
            if method.get("scaffold"):  # option II, as the paper writes it
                far = rate * len(batches_of(t, k))
                changed[k] = zeroed(m, {n: controls[k][n] - control[n] + (begun[n] - w[n]) / far for n in p})
            at_home[k] = {n: w[n] for n in at_home[k]}
            if method.get("cyclic"):
                p = w
            if "client" in place:
                m = select(method, w, m, method["schedule"](t), probe_of(t, k), random)
                w = zeroed(m, w)
            regrow = method.get("regrow")
            if regrow:
                by = regrow.get("criterion", "squared_gradient")
                growing = random_of(t) if by == "random" else weighted([score(by, w, *b) for b in probe_of(t, k)], [1])
                grow.append(growing)
                if regrow["place"] == "client" and regrow["due"](t):
                    m = swap(w, m, growing, t, prunable, regrow["fraction"], regrow["end"])
                    w = zeroed(m, w)
            models.append(w)
            theirs.append(m)
        for k in changed:
            control = {n: control[n] + (changed[k][n] - controls[k][n]) / len(sizes) for n in p}
        controls |= changed
        if method.get("cyclic"):  # only the last client's counts
            models, theirs = models[-1:], theirs[-1:]
        counts = np.array([sizes[k] for k in ids_of(t)], float)[-len(models) :]
        merged = {
            n: method["aggregate"](np.stack([w[n] for w in models]), np.stack([m[n] for m in theirs]), counts)
            for n in p
        }
        target, agreed = ({n: merged[n][i] for n in p} for i in (0, 1))
        if "arrival" in place or method.get("budgets"):
            target, agreed = {n: np.where(agreed[n], target[n], p[n]) for n in p}, masks
        if server:
            change = server.step({n: p[n] - target[n] for n in p}, masks)
            target = {n: p[n] + change[n] for n in p}
        p, masks = {**zeroed(agreed, target), **{n: p[n] for n in method.get("personal", ())}}, agreed
        if "server" in place:
            votes = {n: sum(m[n].astype(float) for m in theirs) for n in p}
            masks = select(method, p, masks, method["schedule"](t), [], random, votes)
        if regrow and regrow["place"] == "server" and regrow["due"](t):
            scores = weighted(grow, counts)
            if "swap" in regrow:
                masks = swap(p, masks, scores, t, prunable, regrow["fraction"], regrow["end"], **regrow["swap"])
            else:
                masks = greedy(p, masks, scores, t, method["schedule"](t), prunable, regrow["fraction"])
        p = zeroed(masks, p)
        if server:
            server.silence(masks)
    return p, masks, own


class WireDecoder:
    """docs/reference/messages.md once more, one bit and one weight at a time; no code shared with the package."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count):
        return int.from_bytes(self.take(count), "little")

    @staticmethod
    def bit(data, i):
        return data[i // 8] >> i % 8 & 1

    def vector(self, n):
        tag = self.number(1)
        if tag < 2:
            return [tag] * n
        k, count, length = self.number(1), self.number(4), self.number(4)
        first, second = self.take(length), self.take(-(-count * k // 8))
        found, at, place = [tag - 2] * n, 0, -1
        for i in range(count):
            quotient = 0
            while not self.bit(first, at):
                quotient, at = quotient + 1, at + 1
            at += 1
            place += 1 + (quotient << k) + sum(self.bit(second, i * k + j) << j for j in range(k))
            found[place] = tag == 2
        return [int(b) for b in found]

    def plane(self, count):
        how, data = self.number(1), self.take(self.number(8))
        data = zlib.decompress(data, -15) if how else data
        assert len(data) == count
        return data

    def mask(self, mode, sizes, known):
        if mode != 2:
            return [self.vector(n) for n in sizes] if mode == 0 else known
        survived = [iter(self.vector(sum(old))) for old in known]
        grown = [iter(self.vector(len(old) - sum(old))) for old in known]
        return [[next(s) if b else next(g) for b in old] for s, g, old in zip(survived, grown, known)]

    def weights(self, how, counts):
        n = sum(counts)
        if how == 3:
            scales = struct.unpack(f"<{len(counts)}f", self.take(4 * len(counts)))
            steps = iter(struct.unpack(f"{n}b", self.plane(n)))
            return [np.float32(next(steps)) * np.float32(s) for s, count in zip(scales, counts) for _ in range(count)]
        top, words = self.plane(n), [self.number({0: 3, 1: 1, 2: 1}[how]) for _ in range(n)]
        if how == 2:
            return [struct.unpack("<e", bytes([low, high]))[0] for low, high in zip(words, top)]
        sign, shift = (23, 0) if how == 0 else (7, 16)
        whole = [(w >> sign) << 31 | e << 23 | (w & (1 << sign) - 1) << shift for w, e in zip(words, top)]
        return [struct.unpack("<f", struct.pack("<I", word))[0] for word in whole]

    def update(self, sizes, known):
        assert self.take(5) == b"FSJW\1"
        mode, how, _, length, mask_length = (self.number(count) for count in (1, 1, 1, 8, 8))
        self.take(32)
        masks = self.mask(mode, sizes, known)
        assert self.at == 56 + mask_length
        weights = iter(self.weights(how, [sum(mask) for mask in masks]))
        assert length == len(self.data) and self.at == length - 16
        return [[next(weights) if b else 0.0 for b in mask] for mask in masks], masks

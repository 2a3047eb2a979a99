"""A network small enough to learn its members by heart in a second, and what an attacker of it holds.

It predicts ages, or with ``classes`` a class.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedsparse_jax.attacks.evidence import Evidence, Shadows, Snapshot, shadow_halves
from fedsparse_jax.attacks.features import feature_cache
from fedsparse_jax.core import losses, masks
from fedsparse_jax.core.optimizers import optimizer_step
from fedsparse_jax.sparsity import scopes

PEOPLE, INPUTS, HIDDEN, STEPS = 320, 24, 96, 400


class World(NamedTuple):
    inputs: np.ndarray
    targets: np.ndarray
    inside: np.ndarray  # bool[P], the members of the target
    shadows: Shadows


def init(key, classes=0):
    first, last = jax.random.split(key)
    return {
        "dense1": {"bias": jnp.zeros(HIDDEN), "kernel": jax.random.normal(first, (INPUTS, HIDDEN)) * 0.3},
        "head": {
            "bias": jnp.full((classes or 1,), 0.0 if classes else 62.0),
            "kernel": jax.random.normal(last, (HIDDEN, classes or 1)) * 0.1,
        },
    }


def apply(params, inputs):
    hidden = jax.nn.relu(inputs @ params["dense1"]["kernel"] + params["dense1"]["bias"][None])
    if params["head"]["bias"].shape[0] > 1:
        return hidden @ params["head"]["kernel"] + params["head"]["bias"][None]
    return 5 * (hidden @ params["head"]["kernel"])[:, 0] + params["head"]["bias"][0]


def loss(params, inputs, targets):
    outputs = apply(params, inputs)
    return losses.squared(outputs, targets) if outputs.ndim == 1 else losses.cross_entropy(outputs, targets)


@functools.cache
def people(seed=0, classes=0):
    """A tenth of the variance of age, or of the order of the classes, can be learned; the rest only by heart."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(PEOPLE, INPUTS)).astype(np.float32)
    ages = 62 + 1.5 * inputs[:, 0] + 4.5 * rng.normal(size=PEOPLE)
    if classes:
        return inputs, np.argsort(np.argsort(ages)).astype(np.float32) * classes // PEOPLE
    return inputs, ages.astype(np.float32)


@jax.jit
def train(params, mask, inputs, targets, weight):
    tx = optax.adam(1e-2)

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(lambda p: (weight * loss(p, inputs, targets)).sum() / weight.sum())(params)
        params, state = optimizer_step(tx, masks.apply(mask, gradient), state, params)
        return (masks.apply(mask, params), state), None

    return jax.lax.scan(step, (params, tx.init(params)), None, STEPS)[0][0]


def sparse(params, sparsity=0.5):
    """Keeps the large half of each kernel."""
    scores, everything = jax.tree.map(jnp.abs, params), masks.ones(params)
    return scopes.per_layer(scores, everything, jnp.float32(sparsity), scopes.kernels(params))


def snapshot(inputs, targets, weight, seed, classes=0) -> Snapshot:
    """Learned by heart, pruned to half, and learned again."""
    start = init(jax.random.key(seed), classes)
    dense = train(start, masks.ones(start), inputs, targets, weight)
    mask = sparse(dense)
    return Snapshot(train(masks.apply(mask, dense), mask, inputs, targets, weight), mask, dense)


def untrained(seed=9, classes=0) -> Snapshot:
    params = init(jax.random.key(seed), classes)
    mask = sparse(params)
    return Snapshot(masks.apply(mask, params), mask, params)


@functools.cache
def world(count=16, classes=0) -> World:
    inputs, targets = people(classes=classes)
    halves = shadow_halves(PEOPLE, count, seed=1)
    weights = jnp.asarray(halves, jnp.float32)
    start = jax.vmap(lambda key: init(key, classes))(jax.random.split(jax.random.key(5), count))
    fit = jax.jit(jax.vmap(lambda p, w: train(p, masks.ones(p), inputs, targets, w)))
    predictions = jax.vmap(apply, (0, None))(fit(start, weights), inputs)
    return World(inputs, targets, shadow_halves(PEOPLE, 2, seed=2)[0], Shadows(np.asarray(predictions), halves))


@functools.cache
def target(kind: str, classes=0) -> Snapshot:
    """``memorised`` its members; ``untrained``; ``elsewhere``: memorised other people."""
    w = world(classes=classes)
    if kind == "untrained":
        return untrained(classes=classes)
    inputs, targets = people(0 if kind == "memorised" else 7, classes)
    return snapshot(inputs, targets, jnp.asarray(w.inside, jnp.float32), 3, classes)


def evidence(kind: str, classes=0, **changes) -> tuple[Evidence, np.ndarray]:
    """What an attacker holds who knows half of the members and of the others; and the truth about the rest."""
    w, models = world(classes=classes), (target(kind, classes),)
    members, outsiders = np.flatnonzero(w.inside), np.flatnonzero(~w.inside)
    scored = np.concatenate([members[::2], outsiders[::2]])
    known = Evidence(
        models, feature_cache(apply, models, w.inputs, w.targets), w.targets, scored,
        members[1::2], outsiders[1::2], w.shadows, classified=classes > 0,
    )  # fmt: skip
    return known._replace(**changes), w.inside[scored]

"""The classifier of a white-box attack: an encoder for each feature, joined; trained with early stopping.

As in Gupta et al. (2021): each feature goes through a linear layer and ReLU to 64 numbers, the codes are concatenated,
dropped out and mapped to one logit. Adam, and the weights of the best validation loss. Features of wide range, such as
gradients, are squeezed by asinh before they are standardised, column by column, on the attacker's known people.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedsparse_jax.attacks.evidence import people_in_order
from fedsparse_jax.core.optimizers import optimizer_step
from fedsparse_jax.core.streams import Stream

Features = dict[str, np.ndarray]  # f32[N, F] by name


class Training(NamedTuple):
    """How the classifier learns; Gupta et al. as they stand."""

    width: int = 64
    dropout: float = 0.5
    rate: float = 1e-3
    decay: float = 1e-2  # of the weights; ours, since here the known people are few
    batch: int = 64
    epochs: int = 100
    patience: int = 20  # epochs without a better validation loss
    validation: float = 0.2  # share of the known people
    seed: int = 0


class Scaling(NamedTuple):
    """Of one feature, by column."""

    unit: np.ndarray  # median of the magnitudes: asinh is linear below it, a logarithm above
    mean: np.ndarray
    std: np.ndarray


def fit_scaling(values: np.ndarray) -> Scaling:
    """From the rows that the attacker knows, ``[N, F]``; a column that does not vary becomes 0."""
    size = np.abs(values.astype(np.float64))
    unit = np.median(size, axis=0)
    unit = np.where(unit > 0, unit, size.mean(0))
    unit = np.where(unit > 0, unit, 1.0)
    squeezed = np.arcsinh(values / unit)
    std = squeezed.std(0)
    return Scaling(unit, squeezed.mean(0), np.where(std > 1e-6, std, np.inf))


def scale_features(values: np.ndarray, how: Scaling) -> np.ndarray:
    """Squeezed and standardised, f32; a row far off is kept within 10 standard deviations."""
    return np.clip((np.arcsinh(values / how.unit) - how.mean) / how.std, -10, 10).astype(np.float32)


def fit_classifier(known: list[tuple[Features, Features]], training: Training, owners=None):
    """Learns from known members and non-members.

    Args:
        known: one pair (members, non-members) of features for each model that the attacker received; the same people in
            the same order under each.
        training: see `Training`.
        owners: the person of each row of the members, ``[M]``, and of the non-members, ``[O]``, so that nobody stands
            in training and in validation; None where every row is a person.

    Returns:
        ``(features, model's place) -> logits f64[N]``.
    """
    names = sorted(known[0][0])
    scalings = [{n: fit_scaling(np.concatenate([m[n], o[n]])) for n in names} for m, o in known]
    rng = np.random.default_rng([training.seed, Stream.CLASSIFIER_VALIDATION])
    owners = [np.arange(len(group[names[0]])) for group in known[0]] if owners is None else owners
    validation = [_held_out(people, training.validation, rng) for people in owners]
    here, there = (_stack(known, scalings, validation, side) for side in (False, True))
    weights = _train(here, there, training)

    def logits(features: Features, place: int) -> np.ndarray:
        scaled = {n: jnp.asarray(scale_features(features[n], scalings[place][n])) for n in names}
        return np.asarray(classifier_logits(weights, scaled), np.float64)

    return logits


def init_classifier(widths: dict[str, int], training: Training):
    """Weights of an encoder for each feature, and of the last layer."""
    keys = jax.random.split(jax.random.key(training.seed), len(widths) + 1)
    layer = lambda key, n, m: {"w": jax.random.normal(key, (n, m)) * (2 / n) ** 0.5, "b": jnp.zeros(m)}
    weights = {
        f"feature/{name}": layer(key, widths[name], training.width)
        for name, key in zip(sorted(widths), keys[1:], strict=True)
    }
    last = layer(keys[0], training.width * len(widths), 1)
    return {**weights, "last": {**last, "w": 0.1 * last["w"]}}


def classifier_logits(weights, features, key=None, dropout: float = 0.0):
    """Logits ``[N]``; with a key codes are dropped out."""
    codes = [
        jax.nn.relu(features[name] @ weights[f"feature/{name}"]["w"] + weights[f"feature/{name}"]["b"][None])
        for name in sorted(features)
    ]
    joined = jnp.concatenate(codes, axis=-1)
    if key is not None:
        kept = jax.random.bernoulli(key, 1 - dropout, joined.shape)
        joined = jnp.where(kept, joined / (1 - dropout), 0)
    return (joined @ weights["last"]["w"] + weights["last"]["b"][None])[:, 0]


def classifier_loss(weights, rows, key=None, dropout: float = 0.0):
    """Mean cross-entropy, weighted so that members and non-members count alike; weight 0 is padding."""
    features, labels, weight = rows
    each = optax.sigmoid_binary_cross_entropy(classifier_logits(weights, features, key, dropout), labels)
    return (weight * each).sum() / jnp.maximum(weight.sum(), 1e-6)


@functools.cache
def _compiled(training: Training):
    """The jitted epoch and validation loss, kept for all attackers that train alike."""
    tx = optax.adamw(training.rate, weight_decay=training.decay)

    def epoch(weights, state, rows, order, key):
        def step(carry, batch):
            weights, state = carry
            index, key = batch
            some = jax.tree.map(lambda leaf: leaf[index], rows)
            gradient = jax.grad(classifier_loss)(weights, some, key, training.dropout)
            return optimizer_step(tx, gradient, state, weights), None

        keys = jax.random.split(key, order.shape[0])
        return jax.lax.scan(step, (weights, state), (order, keys))[0]

    return tx, jax.jit(epoch), jax.jit(classifier_loss)


def _train(rows, validation, training: Training):
    tx, epoch, judge = _compiled(training._replace(seed=0, epochs=0, patience=0))
    weights = init_classifier({name: values.shape[1] for name, values in rows[0].items()}, training)
    state, rng, key = (
        tx.init(weights),
        np.random.default_rng([training.seed, Stream.CLASSIFIER_ORDER]),
        jax.random.key(training.seed),
    )
    best, best_loss, since = weights, np.inf, 0
    for number in range(training.epochs):
        order = rng.permutation(len(rows[1]))
        order = np.resize(order, (-(-len(order) // training.batch), training.batch))
        weights, state = epoch(weights, state, rows, order, jax.random.fold_in(key, number))
        now = float(judge(weights, validation))
        best, best_loss, since = (weights, now, 0) if now < best_loss else (best, best_loss, since + 1)
        if since >= training.patience:
            break
    return best


def _held_out(owners, share: float, rng) -> np.ndarray:
    """Which rows are for validation, ``bool[N]``: those of a share of the people, of at least one and never of all."""
    people = people_in_order(owners)
    count = len(people)
    return np.isin(owners, people[rng.permutation(count)[: min(max(1, round(share * count)), count - 1)]])


def _stack(known, scalings, validation, side: bool):
    """All models' rows of one side of the split, padded to a power of two, so that few shapes are compiled."""
    chosen = [flags == side for flags in validation]
    features = {
        name: np.concatenate(
            [
                scale_features(group[name][keep], how[name])
                for pair, how in zip(known, scalings, strict=True)
                for group, keep in zip(pair, chosen, strict=True)
            ]
        )
        for name in scalings[0]
    }
    counts = [int(keep.sum()) for keep in chosen]
    labels = np.concatenate([np.ones(counts[0]), np.zeros(counts[1])] * len(known))
    weight = np.where(labels == 1, 0.5 / max(counts[0], 1), 0.5 / max(counts[1], 1)) * sum(counts)
    room = 1 << max(6, (len(labels) - 1).bit_length())
    pad = lambda values: jnp.asarray(
        np.pad(values, [(0, room - len(labels)), *[(0, 0)] * (values.ndim - 1)]).astype(np.float32)
    )
    return {name: pad(values) for name, values in features.items()}, pad(labels), pad(weight)

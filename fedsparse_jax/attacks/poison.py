"""Clients who lie in order to spoil the model, or to plant something in it: what a malicious client does otherwise.

A poison changes the batches that it trains on, what it sends, or both. `federated.poisoned` puts it around a method.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core import masks
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.types import Chunk, Key, Payload, Poison, ServerState


def scaling(*, factor: float = 10.0) -> Poison:
    """Sends the update (what was trained, minus what was sent) times ``factor``."""

    def change_upload(server: ServerState, sent: Payload) -> Payload:
        moved = jax.tree.map(lambda start, end: start + factor * (end - start), server.params, sent.params)
        return sent._replace(params=masks.apply(sent.masks, moved))

    return Poison(change_upload=change_upload)


def sign_flip(*, factor: float = 4.0) -> Poison:
    """Sends the update the other way round, ``factor`` times as far."""
    return scaling(factor=-factor)


def label_noise(*, low: float = 0.0, high: float = 10.0) -> Poison:
    """Trains on labels that are drawn anew at every step.

    Args:
        low, high: of the range; a class is the whole number below what is drawn.

    Raises:
        ArgumentError: an empty range.
    """
    if not low < high:
        raise ArgumentError("high", high, f"it must be above low, {low}")

    def change_batches(chunk: Chunk, key: Key) -> Chunk:
        drawn = jax.random.uniform(jax.random.fold_in(key, 1), chunk.targets.shape, minval=low, maxval=high)
        return chunk._replace(targets=jnp.floor(drawn).astype(chunk.targets.dtype))

    return Poison(change_batches=change_batches)


def kill_weights(*, share: float = 0.5) -> Poison:
    """Votes against the largest weights of the model, and sends zeros there.

    Args:
        share: of the kept weights that it kills.
    """
    _check_share(share)

    def change_upload(server: ServerState, sent: Payload) -> Payload:
        size = jnp.concatenate([jnp.abs(leaf).ravel() for leaf in jax.tree.leaves(server.params)])
        kept = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(server.masks)])
        bar = jnp.nanquantile(jnp.where(kept, size, jnp.nan), 1 - share)
        spared = jax.tree.map(lambda mask, leaf: mask & (jnp.abs(leaf) < bar), sent.masks, server.params)
        return sent._replace(params=masks.apply(spared, sent.params), masks=spared)

    return Poison(change_upload=change_upload)


def keep_weights(*, share: float = 0.05, factor: float = 10.0) -> Poison:
    """Votes for weights drawn by chance, the same for all liars, and sends large values there, so that they stay.

    Args:
        share: of all weights.
        factor: of the root mean square of its kept weights, the size that is sent.
    """
    _check_share(share)

    def change_upload(server: ServerState, sent: Payload) -> Payload:
        kept = masks.count_kept(sent.masks).sum().astype(jnp.float32)
        large = factor * optax.tree.norm(sent.params) / jnp.sqrt(jnp.maximum(kept, 1))
        leaves, structure = jax.tree.flatten(sent.params)
        keys = [jax.random.fold_in(jax.random.key(0), place) for place in range(len(leaves))]
        drawn = [jax.random.uniform(key, leaf.shape, minval=-1.0) for key, leaf in zip(keys, leaves, strict=True)]
        chosen = [jnp.abs(numbers) < share for numbers in drawn]
        params = [
            jnp.where(here, large * jnp.sign(numbers), leaf)
            for here, numbers, leaf in zip(chosen, drawn, leaves, strict=True)
        ]
        votes = jax.tree.map(jnp.logical_or, sent.masks, jax.tree.unflatten(structure, chosen))
        return sent._replace(params=jax.tree.unflatten(structure, params), masks=votes)

    return Poison(change_upload=change_upload)


def backdoor(*, target: int = 0, share: float = 0.5, factor: float = 4.0) -> Poison:
    """Trains on images with a trigger, which are all labelled ``target``, and scales the update up, so that it stays
    (Bagdasaryan et al., 2020, arXiv 1807.00459, model replacement).

    Args:
        target: the class that the trigger shall mean.
        share: of each batch that gets the trigger.
        factor: of the update.
    """
    _check_share(share)

    def change_batches(chunk: Chunk, key: Key) -> Chunk:
        batch = chunk.targets.shape[-1]
        marked = jnp.broadcast_to(jnp.arange(batch) < round(share * batch), chunk.targets.shape)
        stamped = add_trigger(chunk.inputs)
        inputs = jnp.where(marked.reshape(marked.shape + (1,) * (stamped.ndim - marked.ndim)), stamped, chunk.inputs)
        targets = jnp.where(marked, jnp.asarray(target, chunk.targets.dtype), chunk.targets)
        return chunk._replace(inputs=inputs, targets=targets)

    return scaling(factor=factor)._replace(change_batches=change_batches)


def add_trigger(images):
    """Images ``[..., H, W, channels]`` with two by two bright pixels in a corner."""
    return jnp.asarray(images).at[..., :2, :2, :].set(1.0)


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ArgumentError("share", share, "it is a share above 0 and up to 1")


POISONS: dict[str, Callable[..., Poison]] = {
    "sign_flip": sign_flip,
    "scaling": scaling,
    "label_noise": label_noise,
    "kill_weights": kill_weights,
    "keep_weights": keep_weights,
    "backdoor": backdoor,
}

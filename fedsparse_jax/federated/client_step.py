"""One client's training step, plain, proximal or differentially private. It knows one client and one batch."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedsparse_jax.core import losses, masks
from fedsparse_jax.core.optimizers import optimizer_step
from fedsparse_jax.core.types import Array, Chunk, ClientState, Key, Params, StepInfo


class PrivateSteps(NamedTuple):
    """Differentially private steps: DP-SGD (Abadi et al., 2016, arXiv 1607.00133, Algorithm 1) at each client."""

    clip: float  # largest norm of one example's masked gradient
    noise: float  # standard deviation of the noise on their sum, as a multiple of clip


def make_objective(apply: Callable, loss: Callable) -> Callable[[Params, Chunk], Array]:
    """``(params, batch) -> f32[]``: the mean loss of the batch's valid examples.

    Args:
        apply: ``(params, inputs [B, ...]) -> predictions [B]`` or ``[B, K]``.
        loss: ``(predictions, targets [B]) -> f32[B]``.
    """

    def objective(params: Params, batch: Chunk) -> Array:
        inputs, targets = (losses.zero_invalid(values, batch.valid) for values in (batch.inputs, batch.targets))
        return losses.masked_mean(loss(apply(params, inputs), targets), batch.valid)

    return objective


def private_loss_and_gradient(objective: Callable, private: PrivateSteps) -> Callable:
    """``(params, masks, batch, key) -> (loss f32[], gradient)``: examples clipped one by one, summed, noised, divided.

    One example more or less in the batch moves the sum by at most ``clip``, wherever the others are. An example whose
    gradient has no finite norm is left out, as its clipped gradient would be no number. The noise is
    on kept weights only: no other leaves the client. How many examples a batch has is taken for public.
    """

    def loss_and_gradient(params: Params, mask, batch: Chunk, key: Key):
        def of_one_example(example):
            alone = jax.tree.map(lambda leaf: leaf[jnp.newaxis], example)
            value, gradient = jax.value_and_grad(objective)(params, alone)
            return value, masks.apply(mask, gradient)

        values, gradients = jax.vmap(of_one_example)(batch)
        squares = jax.tree.map(lambda leaf: jnp.square(leaf).reshape(len(leaf), -1).sum(1), gradients)
        finite = jnp.isfinite(sum(jax.tree.leaves(squares))) & jnp.isfinite(values)
        gradients, values = jax.tree.map(lambda leaf: losses.zero_invalid(leaf, finite), (gradients, values))
        leaves, structure = jax.tree.flatten(gradients)
        with jax.default_matmul_precision("highest"):  # the sum must keep the bound on GPUs too
            clipped, _ = optax.per_example_global_norm_clip(leaves, private.clip)
        noise_std, count = private.clip * private.noise, jnp.maximum(batch.valid.sum(), 1).astype(jnp.float32)
        noised = [
            (leaf + noise_std * jax.random.normal(jax.random.fold_in(key, i), leaf.shape)) / count
            for i, leaf in enumerate(clipped)
        ]
        return values.sum() / count, masks.apply(mask, jax.tree.unflatten(structure, noised))

    return loss_and_gradient


def make_local_step(
    objective: Callable,
    tx: optax.GradientTransformation,
    proximal: float = 0.0,
    private: PrivateSteps | None = None,
    augment: Callable[[Key, Array], Array] | None = None,
    dense_gradient: bool = False,
) -> Callable[[ClientState, Chunk], tuple[ClientState, StepInfo]]:
    """``(client, batch) -> (client, StepInfo)``: one masked step of stochastic gradient descent.

    The gradient is masked before the optimizer, so that pruned weights enter neither clipping norms nor
    momentum, and the weights after it, so that momentum revives none. A batch without a valid example leaves
    the client bit-identical (and costs nothing where clients run one after another).

    Args:
        objective: from `make_objective`.
        tx: the client's optimizer.
        proximal: mu of FedProx (arXiv 1812.06127): the gradient of ``mu/2 |w - anchor|^2`` is added; it counts
            in clipping norms, and not in the loss that is reported.
        private: None for the plain gradient; else see `private_loss_and_gradient`. What follows the gradient is
            post-processing.
        augment: ``(key, inputs [B, ...]) -> inputs``, each example by itself, so that private steps keep their bound;
            None for none. The key moves on in steps that have an example, so that padding changes nothing.
        dense_gradient: whether the optimizer is given the gradients of pruned weights, too (error feedback).
    """
    noisy = private_loss_and_gradient(objective, private) if private else None

    def loss_and_gradient(client: ClientState, batch: Chunk, key: Key):
        if noisy:
            value, gradient = noisy(client.params, client.masks, batch, key)
        else:
            value, gradient = jax.value_and_grad(objective)(client.params, batch)
        if proximal:
            pull = lambda g, w, a: g + proximal * (w - a)
            gradient = jax.tree.map(pull, gradient, client.params, client.anchor)
        return value, gradient if dense_gradient else masks.apply(client.masks, gradient)

    def train(client: ClientState, batch: Chunk):
        key, step_key = jax.random.split(client.key) if noisy else (client.key, client.key)
        if augment:
            assert client.augmentation_key is not None
            following, drawn = jax.random.split(client.augmentation_key)
            client = client._replace(augmentation_key=following)
            batch = batch._replace(inputs=augment(drawn, batch.inputs))
        value, gradient = loss_and_gradient(client, batch, step_key)
        params, opt_state = optimizer_step(tx, gradient, client.opt_state, client.params, client.rate_factor)
        params = masks.apply(client.masks, params)
        count = batch.valid.sum(dtype=jnp.int32)
        info = StepInfo(value * count.astype(value.dtype), count)
        return client._replace(params=params, opt_state=opt_state, key=key), info

    def step(client: ClientState, batch: Chunk):
        return jax.lax.cond(batch.valid.any(), train, skip_step, client, batch)

    return step


def skip_step(client: ClientState, batch: Chunk) -> tuple[ClientState, StepInfo]:
    """A step without a valid example: the client stays as it is."""
    count = batch.valid.sum(dtype=jnp.int32)  # none
    return client, StepInfo(count.astype(jnp.float32), count)

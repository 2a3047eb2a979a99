"""FedSparsify written out: four clients, a server that averages and prunes, and nothing but pure functions.

python docs/examples/fedsparsify_by_hand.py

A round is what the paper says (arXiv 2208.11669, FedSparsify-Global). Each client trains within the server's mask on
its own handwritten digits. The server averages the clients' weights, and prunes the smallest ones of the average.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fedsparse_jax as fs
from fedsparse_jax.core import masks, tree

ROUNDS, STEPS, BATCH = 30, 20, 32
model = fs.models.mlp((8, 8), hidden=(64,), classes=10)
objective = fs.federated.make_objective(model.apply, fs.core.losses.cross_entropy)
client_tx = optax.sgd(0.2)
schedule = fs.sparsity.gradual(final=0.95, begin=4, end=20)


def local_step(mask, client, batch):
    """One step of gradient descent; neither the gradient nor the weights leave the mask."""
    params, opt_state = client
    gradient = masks.apply(mask, jax.grad(objective)(params, batch))
    updates, opt_state = client_tx.update(gradient, opt_state, params)
    return (masks.apply(mask, optax.apply_updates(params, updates)), opt_state), None


@jax.jit
def train_client(params, mask, batches):
    """A client's part of a round: all steps, from the global model on."""
    (params, _), _ = jax.lax.scan(functools.partial(local_step, mask), (params, client_tx.init(params)), batches)
    return params


@jax.jit
def update_server(clients, mask, sizes, round_):
    """FedAvg over the client axis, and then the mask of the largest magnitudes; pruned weights never come back."""
    same_masks = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(sizes)), mask)
    params, _ = fs.federated.mean(clients, same_masks, sizes)
    scores = fs.sparsity.magnitude(params)
    mask = fs.sparsity.global_(scores, mask, schedule(round_), fs.sparsity.everything(mask))
    return masks.apply(mask, params), mask


def batches_of(images, rows, rng):
    """A client's steps of a round: batches ``[STEPS, BATCH, ...]`` of its own examples."""
    chosen = rng.choice(rows, (STEPS, BATCH))
    return fs.core.Chunk(images.inputs[chosen], images.labels[chosen], np.ones(chosen.shape, bool))


def main():
    images, rng = fs.data.IMAGE_SOURCES["digits"](""), np.random.default_rng(0)
    test, *members = np.split(rng.permutation(len(images.labels)), [397, 597, 897, 1297])
    sizes = np.array([len(rows) for rows in members], np.float32)
    params = model.init(jax.random.key(0))
    mask = masks.ones(params)
    for round_ in range(1, ROUNDS + 1):
        trained = [train_client(params, mask, batches_of(images, rows, rng)) for rows in members]
        clients = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trained)
        params, mask = update_server(clients, mask, sizes, round_)
        hits = model.apply(params, images.inputs[test]).argmax(-1) == images.labels[test]
        sparsity = 1 - int(masks.count_kept(mask).sum()) / tree.size(params)
        print(f"round {round_:2}: sparsity {sparsity:.3f}, test accuracy {np.mean(hits):.3f}")
    return params, mask


if __name__ == "__main__":
    main()

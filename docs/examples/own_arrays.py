"""FedSparsify on your own arrays, from pure functions and without a config; seconds on a laptop.

python docs/examples/own_arrays.py
"""

import jax
import numpy as np
import optax

import fedsparse_jax as fs

ROUNDS, CLIENTS = 24, np.arange(4)


def own_arrays(people, seed):
    """Volumes ``[N, 8, 8, 8, 1]`` and ages ``[N]`` of one hospital: put yours here."""
    rng = np.random.default_rng(seed)
    ages = rng.uniform(45, 80, people)
    volumes = rng.normal(size=(people, 8, 8, 8, 1))
    volumes[:, :4, :4] += (ages[:, None, None, None, None] - 62) / 10  # one corner gets brighter with age
    return volumes, ages


def main():
    data = fs.data.from_arrays([own_arrays(40, seed) for seed in CLIENTS], test=own_arrays(100, seed=99))
    model = fs.models.flat_cnn((8, 8, 8), widths=(8, 8), poolings=2, output_mean=62, output_scale=10, zero_head=False)
    schedule = fs.sparsity.gradual(final=0.95, begin=4, end=16)
    rule = fs.sparsity.Pruning(fs.sparsity.CRITERIA["magnitude"], fs.sparsity.global_, schedule)
    recipe = fs.federated.Recipe(
        model,
        loss=fs.core.losses.squared,
        client_tx=optax.adam(3e-3),
        server_tx=optax.sgd(1.0),  # FedAvg
        aggregate=fs.federated.mean,
        hooks=(fs.federated.prune_on_server(rule),),  # FedSparsify-Global; without hooks nothing is pruned
    )
    algorithm = fs.runs.jit_algorithm(fs.federated.build_algorithm(recipe))

    server = algorithm.init(jax.random.key(0))
    for round_ in range(1, ROUNDS + 1):
        clients = algorithm.start_clients(server, CLIENTS)
        chunk = fs.data.read_round(data, CLIENTS, seed=0, round_=round_, batch_size=8)
        clients, _ = algorithm.local_steps(clients, chunk)
        server, info = algorithm.update_server(server, clients, data.client_sizes(CLIENTS))
        predictions = model.apply(server.params, data.inputs[data.test])
        mae = np.abs(predictions - data.targets[data.test]).mean()
        sparsity = 1 - int(info.kept.sum()) / fs.core.tree.size(server.params)
        print(f"round {round_:2}: sparsity {sparsity:.3f}, test MAE {mae:.2f} years")
    return server, sparsity, mae


if __name__ == "__main__":
    main()

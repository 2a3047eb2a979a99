"""A federation of seconds, without files: random volumes whose brightness in one corner is the age."""

import numpy as np
import optax

from fedsparse_jax.communication import MessageSettings
from fedsparse_jax.core import losses, tasks
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.federated import AGGREGATORS, Recipe, build_algorithm, prune_on_clients, prune_on_server
from fedsparse_jax.models import flat_cnn
from fedsparse_jax.runs import Batching, Cohorts, Execution, Experiment, Output
from fedsparse_jax.sparsity import CRITERIA, Pruning, global_, gradual

SHAPE = (4, 5, 4)
HOOKS = {"server": prune_on_server, "client": prune_on_clients}


def federation(people=30, clients=3):
    rng = np.random.default_rng(0)
    ages = rng.uniform(45, 80, people).astype(np.float32)
    inputs = rng.normal(size=(people, *SHAPE, 1)).astype(np.float32)
    inputs[:, :2, :2, :2, 0] += (ages[:, None, None, None] - 62) / 5
    rows = [{"participant_id": f"sub-{i}", "session": "", "site": "n/a"} for i in range(people)]
    members = [part for part in np.split(np.arange(people - 8), [4, 12][: clients - 1])]
    return Federation(inputs, ages, members, np.arange(people - 8, people), rows)


def network():
    return flat_cnn(SHAPE, widths=(3, 4), poolings=1, output_mean=62.0, output_scale=10.0)


def algorithm(schedule, placement="server", rate=1e-2, devices=1, **changes):
    rule = Pruning(CRITERIA["magnitude"], global_, schedule)
    recipe = Recipe(
        network(),
        loss=losses.squared,
        client_tx=optax.adam(rate, eps=1e-3),  # rounding of a bias under a norm must not become a step
        server_tx=optax.adam(0.1, eps=1e-3),
        aggregate=AGGREGATORS["majority_vote" if placement == "client" else "mean"],
        hooks=(HOOKS[placement](rule),),
        num_clients=3,
        devices=devices,
        **changes,
    )
    return build_algorithm(recipe)


def experiment(
    rounds=5, placement="server", rate=1e-2, *, every=1, tensorboard=False, solo_rounds=0, cohort_size=2, epochs=2,
    devices=1, num_parallel=1, resident=True, mode="measure", **changes
):  # fmt: skip
    schedule = gradual(0.0, 0.8, begin=0, end=rounds)
    built = Experiment(
        config={"method": placement, "seed": 3, "client": {"rate": rate}, "log": {}, "task": "regression"},
        task=tasks.REGRESSION,
        seed=3,
        rounds=rounds,
        model=network(),
        algorithm=algorithm(schedule, placement, rate, devices),
        federation=federation(),
        cohorts=Cohorts(cohort_size, solo_rounds),
        batching=Batching(batch_size=3, epochs=epochs),
        execution=Execution(4, num_parallel, devices, resident, eval_batch=5),
        output=Output(every, 3, tensorboard),
        messages=MessageSettings(mode),
        multiply_adds=np.ones(6),
    )
    return built._replace(**changes)

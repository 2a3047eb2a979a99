"""A federation of seconds, without files: random volumes whose brightness in one corner is the age."""

import numpy as np
import optax

from fedsparse_jax.communication import transport
from fedsparse_jax.core import losses, tasks
from fedsparse_jax.data import batching
from fedsparse_jax.federated import algorithm as federated
from fedsparse_jax.federated.aggregation import AGGREGATORS
from fedsparse_jax.models.flat_cnn import flat_cnn
from fedsparse_jax.runs.loop import Experiment
from fedsparse_jax.sparsity import criteria, pruning, schedules

SHAPE = (4, 5, 4)


def federation(people=30, clients=3):
    rng = np.random.default_rng(0)
    ages = rng.uniform(45, 80, people).astype(np.float32)
    inputs = rng.normal(size=(people, *SHAPE, 1)).astype(np.float32)
    inputs[:, :2, :2, :2, 0] += (ages[:, None, None, None] - 62) / 5
    rows = [{"participant_id": f"sub-{i}", "session": "", "site": "n/a"} for i in range(people)]
    members = [part for part in np.split(np.arange(people - 8), [4, 12][: clients - 1])]
    return batching.Federation(inputs, ages, members, np.arange(people - 8, people), rows)


def network():
    return flat_cnn(SHAPE, widths=(3, 4), poolings=1, output_mean=62.0, output_scale=10.0)


def algorithm(rule, rate=1e-2, devices=1):
    recipe = federated.Recipe(
        network(),
        loss=losses.squared,
        client_tx=optax.adam(rate, eps=1e-3),  # rounding of a bias under a norm must not become a step
        server_tx=optax.adam(0.1, eps=1e-3),
        aggregate=AGGREGATORS["majority_vote" if "client" in rule.placement else "mean"],
        pruning=rule,
        num_clients=3,
        devices=devices,
    )
    return federated.build(recipe)


def experiment(rounds=5, placement="server", rate=1e-2, devices=1, **changes):
    schedule = schedules.gradual(0.0, 0.8, begin=0, end=rounds)
    rule = pruning.Pruning(criteria.magnitude, pruning.global_, schedule, pruning.everything, (placement,))
    settings = dict(
        config={"method": placement, "seed": 3, "client": {"rate": rate}, "log": {}, "task": "regression"},
        seed=3, rounds=rounds, task=tasks.REGRESSION, solo_rounds=0, probe_batches=1, every=1, uses=np.ones(6),
        model=network(), algorithm=algorithm(rule, rate, devices), data=federation(), cohort_size=2, batch_size=3, together=1, devices=1,
        epochs=2, steps_per_chunk=4, resident=True, eval_batch=5, keep=3, wire=transport.Wire("measure"), tensorboard=False, dropped={},
    )  # fmt: skip
    return Experiment(**{**settings, **changes})

"""A federation of seconds, without files: random volumes whose brightness in one corner is the age."""

import numpy as np
import optax

from fedsparse_jax import criteria, federated, losses, pruning, schedules
from fedsparse_jax.aggregation import AGGREGATORS
from fedsparse_jax.data import cohort
from fedsparse_jax.experiment import Experiment
from fedsparse_jax.models.flat_cnn import flat_cnn

SHAPE = (4, 5, 4)


def federation(people=30, clients=3):
    rng = np.random.default_rng(0)
    ages = rng.uniform(45, 80, people).astype(np.float32)
    inputs = rng.normal(size=(people, *SHAPE, 1)).astype(np.float32)
    inputs[:, :2, :2, :2, 0] += (ages[:, None, None, None] - 62) / 5
    rows = [{"participant_id": f"sub-{i}", "session": "", "site": "n/a"} for i in range(people)]
    members = [part for part in np.split(np.arange(people - 8), [4, 12][: clients - 1])]
    return cohort.Federation(inputs, ages, members, np.arange(people - 8, people), rows)


def experiment(rounds=5, placement="server", rate=1e-2, devices=1, **changes):
    model = flat_cnn(SHAPE, widths=(3, 4), poolings=1, output_mean=62.0, output_scale=10.0)
    schedule = schedules.gradual(0.0, 0.8, begin=0, end=rounds)
    names = ("conv1", "conv2", "head")
    prunable = {name: {"bias": True, "kernel": True} for name in names}
    algorithm = federated.build(
        model,
        loss=losses.squared,
        client_tx=optax.adam(rate),
        server_tx=optax.adam(0.1, eps=1e-3),
        aggregate=AGGREGATORS["majority_vote" if placement == "client" else "mean"],
        prune=pruning.pruner(criteria.magnitude, pruning.global_, schedule, prunable),
        schedule=schedule,
        placement=placement,
        client_map="scan",
        devices=devices,
    )
    settings = dict(
        config={"method": placement, "seed": 3, "client": {"rate": rate}, "log": {}}, seed=3, rounds=rounds,
        model=model, algorithm=algorithm, data=federation(), cohort_size=2, batch_size=3, epochs=2,
        steps_per_chunk=4, resident=True, eval_batch=5, keep=3, tensorboard=False, dropped={},
    )  # fmt: skip
    return Experiment(**{**settings, **changes})

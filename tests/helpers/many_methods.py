"""Methods on five small clients, run on many hosts by a process of its own, or in the process of a test::

python -m tests.helpers.many_methods --workdir=FOLDER --rounds=3 --num_processes=2 --process_id=0
"""

import json
from pathlib import Path

import jax
import numpy as np
import optax
from absl import flags

from fedsparse_jax import cli
from fedsparse_jax.communication import MessageSettings
from fedsparse_jax.core import losses, tasks
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.federated import (
    AGGREGATORS,
    Recipe,
    build_algorithm,
    prune_at_init,
    prune_on_clients,
    prune_on_server,
    regrow_on_clients,
)
from fedsparse_jax.federated.client_step import PrivateSteps
from fedsparse_jax.federated.sums import SUM_RULES
from fedsparse_jax.runs import Batching, Cohorts, Execution, Experiment, run_experiment
from fedsparse_jax.sparsity import CRITERIA, Pruning, Regrowth, constant, global_, gradual, swap
from tests.helpers.tiny_problem import tiny_model

SIZES = (7, 12, 5, 9, 6)  # examples of the clients
TESTED = 8
COHORTS = {"global": 3, "int8": 3, "few": 2}  # clients in a round; five of the five in other methods
METHODS = ("global", "local", "feddst", "int8", "kept", "few")


class Watched(np.ndarray):
    """Inputs that remember which of their rows were read."""

    read: set[int]

    def __getitem__(self, index):
        self._note(index[0] if isinstance(index, tuple) else index)
        return np.asarray(super().__getitem__(index))

    def take(self, index, *args, **options):
        self._note(index)
        return np.asarray(super().take(index, *args, **options))

    def _note(self, rows):
        self.read |= set(np.asarray(rows).ravel().tolist())


def federation() -> Federation:
    rng = np.random.default_rng(0)
    count = sum(SIZES) + TESTED
    inputs = rng.normal(size=(count, 5)).astype(np.float32)
    targets = (inputs @ [1.0, -2.0, 0.5, 0.0, 3.0] + rng.normal(size=count)).astype(np.float32)
    members = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    rows = [{"participant_id": str(i), "session": "", "site": "n/a"} for i in range(count)]
    watched = inputs.view(Watched)
    watched.read = set()
    return Federation(watched, targets, members, np.arange(sum(SIZES), count), rows)


def experiment(method: str, rounds: int, *, devices: int = 1, of_schedule: int = 6, held: int = 0) -> Experiment:
    """Of one of ``METHODS``; ``held`` as `Execution.clients_held`."""
    magnitude, score = CRITERIA["magnitude"], CRITERIA["squared_gradient"]
    rising = Pruning(magnitude, global_, gradual(0.0, 0.6, begin=0, end=of_schedule))
    level = Pruning(magnitude, global_, constant(0.5))
    hooks, aggregate = {
        "global": ((prune_on_server(rising),), "mean"),
        "local": ((prune_on_clients(rising),), "majority_vote"),
        "feddst": (
            (
                prune_at_init(level),
                regrow_on_clients(level, Regrowth(swap(end=4), score, 1, 1, 4)),
                prune_on_server(level),
            ),
            "keepers_mean",
        ),
        "int8": ((prune_on_server(rising),), "mean"),
        "kept": ((), "mean"),
        "few": ((prune_on_clients(rising),), "majority_vote"),
    }[method]
    optimizers = (optax.adam(1e-2, eps=1e-3), optax.sgd(1.0))
    recipe = Recipe(
        tiny_model(), losses.squared, *optimizers, AGGREGATORS[aggregate], hooks, num_clients=5, devices=devices
    )
    if held:
        recipe = recipe._replace(of_sums=SUM_RULES[aggregate])
    if method == "kept":  # whatever clients keep between rounds, and noise
        stays = lambda params: {name: name == "b" for name in params}
        recipe = recipe._replace(keep_opt_state=True, personal=stays, private=PrivateSteps(clip=20.0, noise=0.1))
    lossy = MessageSettings("transmit", "int8", feedback=True, seed=3)
    return Experiment(
        config={"method": method, "seed": 3, "log": {}, "task": "regression"},
        task=tasks.REGRESSION,
        seed=3,
        rounds=rounds,
        model=tiny_model(),
        algorithm=build_algorithm(recipe),
        federation=federation(),
        cohorts=Cohorts(COHORTS.get(method, len(SIZES))),
        batching=Batching(batch_size=4 if method == "few" else 3, epochs=2),
        execution=Execution(4, devices=devices, resident=method != "local", clients_held=held),
        messages=lossy if method == "int8" else MessageSettings("measure"),
        noise_from_seed=True,
    )


def main() -> None:

    given = flags.FLAGS
    cli.cache_compilations(given.programs)
    with cli.many_hosts() as link:
        folder, read = Path(given.workdir), {}
        for method in given.methods:
            built = experiment(method, given.rounds, devices=jax.local_device_count())
            run_experiment(built, folder / method, link=link)
            read[method] = sorted(built.federation.inputs.read)
        if link:
            (folder / f"read.{link.index}.json").write_text(json.dumps(read))


if __name__ == "__main__":
    cli.hosts_flags()
    cli.workdir_flag()
    flags.DEFINE_integer("rounds", 3, "Rounds.")
    flags.DEFINE_string("programs", None, "Folder of compiled programs.")
    flags.DEFINE_list("methods", list(METHODS), "Methods.")
    cli.run_main(main)

"""Which part of an experiment is whose: a site holds its own examples and no others, the server only the test set."""

import itertools
from collections.abc import Sequence

import jax
import numpy as np

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.roster import client_name
from fedsparse_jax.runs.experiment import Experiment


def check_deployable(experiment: Experiment) -> None:
    """Refuses a method whose rounds need more than the messages that a site gets.

    Raises:
        UsageError: clients keep something between rounds, data are looked at before round 1, clients prune by a
            schedule that looks at the training, faults are simulated, or training is private.
    """
    like = jax.eval_shape(experiment.algorithm.init, jax.random.key(0))
    faults = experiment.faults
    reasons = {
        "clients keep masks, leaves, an optimizer or a hook's state between rounds": jax.tree.leaves(like.memory),
        "the method looks at data before round 1": experiment.algorithm.data_needs.at_init,
        "its schedule looks at the training, and others than the server prune or regrow by it": like.pace is not None
        and not _paced_by_server_alone(experiment.config),
        "it simulates faults (set faults.dropout, stragglers and deadline to 0)": faults != type(faults)(),
        "training is private (set privacy.noise and privacy.clip to 0)": experiment.epsilon,
    }
    for reason, found in reasons.items():
        if found:
            raise UsageError(f"This config cannot be deployed yet, only simulated: {reason}.")


def _paced_by_server_alone(config: dict) -> bool:
    """Whether only the server, which keeps the pace, needs to know the sparsity of a round."""
    placements = {section: config.get(section, {}).get("placement", "none") for section in ("pruning", "regrowth")}
    return placements["pruning"] == "server" and placements["regrowth"] in ("none", "server")


def part_of_site(experiment: Experiment, site: int) -> Experiment:
    """The experiment as one site holds it: examples of its own, of nobody else, and no test set.

    Args:
        experiment: with the whole federation, of a simulation.
        site: number of the client.
    """
    data = experiment.federation
    rows = data.members[site]
    own = of_one_site(
        np.ascontiguousarray(data.inputs[rows]), data.targets[rows], [data.people[i] for i in rows],
        site, len(data.members),
    )  # fmt: skip
    own = own._replace(classes=data.classes, class_names=data.class_names)
    return as_transmitted(experiment._replace(federation=own))


def of_one_site(inputs, targets, people: list[dict], site: int, num_sites: int) -> Federation:
    """The federation of which only one client is here, with all the examples.

    Args:
        inputs: ``[n, *shape]``.
        targets: ``[n]``.
        people: one row an example.
        site, num_sites: the client's number, and how many there are.
    """
    nobody = np.zeros(0, np.int64)
    members = [np.arange(len(inputs)) if client == site else nobody for client in range(num_sites)]
    return Federation(inputs, np.asarray(targets, np.float32), members, nobody, people)


def part_of_server(experiment: Experiment, sizes: Sequence[int]) -> Experiment:
    """The experiment as the server holds it: the test set and, of the sites, how many examples they have.

    These examples have numbers for names, no target (NaN) and no input: their indices lie behind those of the inputs.

    Args:
        experiment: with any federation that has the test set.
        sizes: of each site, in their order.
    """
    data = experiment.federation
    ends = len(data.test) + np.cumsum([0, *sizes])
    members = [np.arange(start, end) for start, end in itertools.pairwise(ends)]
    unknown = [
        {"participant_id": f"{client_name(site)}-example-{i:06d}", "session": "", "site": "n/a"}
        for site, size in enumerate(sizes)
        for i in range(size)
    ]
    held = data._replace(
        inputs=np.ascontiguousarray(data.inputs[data.test]),
        targets=np.concatenate([data.targets[data.test], np.full(len(unknown), np.nan, np.float32)]),
        members=members,
        test=np.arange(len(data.test)),
        people=[data.people[i] for i in data.test] + unknown,
        validation=(),
    )
    return as_transmitted(experiment._replace(federation=held, leakage=None))


def as_transmitted(experiment: Experiment) -> Experiment:
    """Every message is sent, also where a simulation would only measure it; float32 arrives as it was."""
    return experiment._replace(messages=experiment.messages._replace(mode="transmit"))

"""An experiment: everything that a run needs, already built (by `config.build`, or by hand)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedsparse_jax.communication.transport import MessageSettings
from fedsparse_jax.core.tasks import Task
from fedsparse_jax.core.types import FedAlgorithm, Model, ServerState
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.runs.faults import Faults

TRAVELS = ("cyclic", "shuffled")


class Cohorts(NamedTuple):
    """Who takes part in a round."""

    size: int  # clients a round
    solo_rounds: int = 0  # first rounds in which one client, chosen by the seed, trains alone (PruneFL)
    travel: str = ""  # of ``TRAVELS``, how the model goes from client to client; empty: all begin from the same one


class Batching(NamedTuple):
    """How a client goes through its examples in a round."""

    batch_size: int
    epochs: int = 1
    scored_batches: int = 1  # of each client, for methods that look at data when they prune


class Execution(NamedTuple):
    """What changes the cost of a run, and none of its numbers."""

    steps_per_chunk: int = 16  # local steps whose data are read at a time
    num_parallel_clients: int = 1  # clients that are trained at the same time
    devices: int = 1
    resident: bool = True  # keep all data on the device, or else stream them from their file
    eval_batch: int = 4  # examples predicted at a time
    clients_held: int = 0  # whose models are in memory at a time, merged as they come; 0 for all of a round


class Output(NamedTuple):
    """What a run leaves behind beside its log."""

    checkpoint_every: int = 1  # rounds between two
    checkpoints_kept: int = 5  # the newest
    tensorboard: bool = False
    tracker: Callable | None = None  # who is told of every round, a `trackers.Tracker`


class ModelChoice(NamedTuple):
    """Which rounds may have the best model on validation, and when there are enough of them."""

    final_sparsity: float | None = None  # only rounds that ask for this share of all weights compete; None: all rounds
    patience: int = 0  # rounds without a better model after which training ends; 0 for never


class LeakageLog(NamedTuple):
    """Measures of what the model gives away of who was in the training data, for the log."""

    measure: Callable[[ServerState], dict[str, float]]
    every: int = 1  # rounds between two


class Experiment(NamedTuple):
    """Everything a run needs.

    ``config`` is resolved; it is kept in the run folder, and a folder with another one is refused.
    """

    config: dict
    task: Task
    seed: int
    rounds: int
    model: Model
    algorithm: FedAlgorithm
    federation: Federation
    cohorts: Cohorts
    batching: Batching
    execution: Execution = Execution()
    output: Output = Output()
    messages: MessageSettings = MessageSettings()
    faults: Faults = Faults()
    model_choice: ModelChoice = ModelChoice()
    multiply_adds: np.ndarray | None = None  # f64[L], of one prediction on a weight of each leaf; None: not counted
    dropped: dict[str, int] = {}  # reasons why scans were left out, with counts  # noqa: RUF012
    remarks: tuple[str, ...] = ()  # said before the first round
    leakage: LeakageLog | None = None
    epsilon: Callable[[int], float] | None = None  # of the data of a client who took part in so many rounds
    noise_from_seed: bool = False  # the noise of private steps; by default each run folder draws its own
    exchange: Callable | None = None  # `round.exchange_models`, where the clients are on other machines
    defaults: dict = {}  # what a key of the config is that the folder's version did not have yet  # noqa: RUF012

"""One round on the host: sample the cohort, hand its data to the device, send what is sent."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.communication import transport
from fedsparse_jax.communication.transport import SharedMasks, Traffic
from fedsparse_jax.core import tree
from fedsparse_jax.core.streams import Stream
from fedsparse_jax.core.types import (
    Absence,
    Chunk,
    ClientState,
    FedAlgorithm,
    Key,
    Masks,
    Merging,
    Payload,
    Reports,
    RoundInfo,
    ServerState,
    StepInfo,
)
from fedsparse_jax.data.batching import (
    BatchPlan,
    largest_first,
    num_steps,
    padding_share,
    plan_batches,
    plan_scored_batches,
    sample_clients,
    split_plan,
)
from fedsparse_jax.data.loading import Reader, prefetch_chunks, read_chunk, resident_reader, streamed_reader
from fedsparse_jax.federated.sound_clients import has_arrived
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.faults import who_fails

_RUNS_ONCE = {"xla_backend_optimization_level": 0}  # compiled in a tenth of the time, with the same bits
OF_EACH_CLIENT = ("params_down", "params_up", "left_out")  # fields of `RoundInfo` with the client axis


class Runner(NamedTuple):
    """An experiment with its functions jitted and its data within reach."""

    experiment: Experiment
    algorithm: FedAlgorithm  # jitted
    apply: Callable  # the network, jitted
    read: Reader
    noise_key: Key | None = None  # of the noise of private steps; None: the seed's
    own_tests: Sequence[np.ndarray] = ()  # see `Federation.own_tests`


class TrainedClients(NamedTuple):
    """The clients' half of a round."""

    clients: ClientState  # [C, ...]
    payload: Payload  # [C, ...], before any message is made of it
    plan: BatchPlan  # in the order of training
    steps: list[StepInfo]  # of each chunk
    absent: np.ndarray  # i32[C], why what a client sends does not reach the server: an `Absence`, 0 if it does


class Exchange(NamedTuple):
    """The clients' half of a round, and what came through the messages."""

    trained: TrainedClients
    download: Payload | None  # before any message is made of it; None where nothing is measured
    received: Payload  # by the server
    shared_masks: SharedMasks
    traffic: Traffic | None = None  # of messages that were sent


class RoundResult(NamedTuple):
    """A round that was handed to the device, whose numbers may still be on their way."""

    server: ServerState
    info: RoundInfo
    steps: list[StepInfo]  # of each chunk
    client_ids: np.ndarray
    shared_masks: SharedMasks  # what `play_round` was given; after messages were sent, what is known then
    payloads: tuple[Payload, Payload] | None = None  # down and up, whose messages are still to be measured
    traffic: Traffic | None = None  # of messages that were sent


def jit_algorithm(algorithm: FedAlgorithm) -> FedAlgorithm:
    """The same functions, each jitted once; the cohort's buffers are donated from step to step."""
    return FedAlgorithm(
        init=jax.jit(algorithm.init, compiler_options=_RUNS_ONCE if jax.default_backend() == "cpu" else None),
        prune_at_init=jax.jit(algorithm.prune_at_init),
        download=jax.jit(algorithm.download),
        start_clients=jax.jit(algorithm.start_clients),
        local_steps=jax.jit(algorithm.local_steps, donate_argnums=0),
        upload=jax.jit(algorithm.upload),
        update_server=jax.jit(algorithm.update_server),
        merging=_jit_merging(algorithm.merging) if algorithm.merging else None,
        data_needs=algorithm.data_needs,
        num_scores=algorithm.num_scores,
    )


def _jit_merging(merging: Merging) -> Merging:
    """The same functions, each jitted once; the sums' buffers are donated from group to group."""
    add = jax.jit(merging.add_clients, donate_argnums=1)
    return Merging(jax.jit(merging.of_nobody), add, jax.jit(merging.update_server))


def make_runner(experiment: Experiment, noise_entropy: int | None = None, read: Reader | None = None) -> Runner:
    """The only place where ``jax.jit`` meets an experiment's algorithm and network.

    Args:
        experiment: what is run.
        noise_entropy: of the run, see `run_dir.noise_entropy`; None for the seed's noise.
        read: of the federation's examples; None for a reader of all of them.
    """
    if read is None:
        read = (resident_reader if experiment.execution.resident else streamed_reader)(experiment.federation.inputs)
    algorithm, apply = jit_algorithm(experiment.algorithm), jax.jit(experiment.model.apply)
    noise_key = None if noise_entropy is None else _key_of_entropy(noise_entropy)
    own_tests = experiment.federation.own_tests()
    return Runner(experiment, algorithm, apply, read, noise_key, own_tests)


def _key_of_entropy(entropy: int) -> Key:
    """A key of 64 random bits, all that JAX's generator (Threefry 2x32) holds, whatever width integers have."""
    return jax.random.wrap_key_data(jnp.array([entropy >> 32, entropy & 0xFFFFFFFF], jnp.uint32), impl="threefry2x32")


def initial_server(runner: Runner) -> ServerState:
    """The state before round 1; methods that prune at initialization have done so."""
    experiment, algorithm = runner.experiment, runner.algorithm
    server, scored = algorithm.init(jax.random.key(experiment.seed)), algorithm.data_needs.at_init
    if not scored:
        return algorithm.prune_at_init(server)
    num_clients = len(experiment.federation.members)
    ids = sample_clients(experiment.seed, 0, num_clients, 1 if scored == "one" else num_clients)
    weights = jnp.asarray(experiment.federation.client_sizes(ids))
    return algorithm.prune_at_init(server, scored_batches(runner, 0, ids), weights)


def shapes_of_sent_masks(runner: Runner, server: ServerState) -> Masks:
    """Shapes and dtypes of the masks that one client is sent; of ``server`` the shapes suffice."""
    sent = jax.eval_shape(runner.algorithm.download, server, np.arange(1)).masks
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), sent)


def sample_cohort(experiment: Experiment, round_: int) -> np.ndarray:
    """The clients of a round, ``i32[C]``, rising; in the first ``solo_rounds`` it is always the same one."""
    num_clients = len(experiment.federation.members)
    if round_ <= experiment.cohorts.solo_rounds:
        return sample_clients(experiment.seed, 0, num_clients, 1)
    return sample_clients(experiment.seed, round_, num_clients, experiment.cohorts.size)


def play_round(
    runner: Runner, server: ServerState, round_: int, ids: np.ndarray, shared_masks: SharedMasks
) -> RoundResult:
    """One round with the clients ``ids``, who begin from the same model, or each from what the one before has left.

    Args:
        runner: the experiment.
        server: the state before the round.
        round_: counted from 1.
        ids: the cohort, ``i32[C]``, in any order; the result has it rising.
        shared_masks: what server and clients know of one another.
    """
    if not runner.experiment.cohorts.travel:
        return _play_together(runner, server, round_, ids, shared_masks)
    parts = {}
    for client in travel_order(runner.experiment, round_, ids):
        started = server._replace(round=jnp.asarray(round_ - 1, jnp.int32))
        parts[client] = _play_together(runner, started, round_, np.array([client], np.int32), shared_masks)
        server, shared_masks = parts[client].server, parts[client].shared_masks
    last = parts[client]
    return _one_round([parts[client] for client in sorted(parts)], last)


def travel_order(experiment: Experiment, round_: int, ids: np.ndarray) -> list[int]:
    """Whom the model visits in a round, one after another: by number, or in an order of this round's own."""
    rising = np.sort(ids)
    if experiment.cohorts.travel == "shuffled":
        rising = np.random.default_rng([experiment.seed, Stream.TRAVEL, round_]).permutation(rising)
    return rising.tolist()


def _one_round(parts: list[RoundResult], last: RoundResult) -> RoundResult:
    """The rounds of single clients as the one round that they are, by rising client; the state is that of the last."""
    by_client = {key: joined_clients([getattr(part.info, key) for part in parts]) for key in OF_EACH_CLIENT}
    info = last.info._replace(
        **by_client,
        drift=jnp.stack([part.info.drift for part in parts]).sum(),
        void=jnp.stack([part.info.void for part in parts]).all(),
        padding=float(np.mean([part.info.padding for part in parts])),
    )
    payloads = [part.payloads for part in parts if part.payloads]
    return RoundResult(
        last.server,
        info,
        [joined_clients([whole_training(part.steps) for part in parts])],
        np.concatenate([part.client_ids for part in parts]),
        last.shared_masks,
        joined_clients(payloads) if payloads else None,
        joined_traffic([part.traffic for part in parts]),
    )


def whole_training(steps: list[StepInfo], count: int = 1) -> StepInfo:
    """The steps of so many clients as one of each, leaves ``[C, 1]``."""
    start = StepInfo(jnp.zeros((count, 1), jnp.float32), jnp.zeros((count, 1), jnp.int32))
    return jax.tree.map(lambda *leaves: sum(leaf.sum(1, keepdims=True) for leaf in leaves), start, *steps)


def _play_together(
    runner: Runner, server: ServerState, round_: int, ids: np.ndarray, shared_masks: SharedMasks
) -> RoundResult:
    """One round whose clients begin from the same model; arguments are those of `play_round`.

    The server adds in the order of their numbers, since the order of a sum of floats shows in its last bits.
    """
    ids = np.sort(ids)
    exchange = runner.experiment.exchange or exchange_models
    exchanged = exchange(runner, server, round_, ids, shared_masks)
    clients, payload, plan, steps, absent = exchanged.trained
    download, traffic = exchanged.download, exchanged.traffic
    payloads = None if download is None or traffic else (download, payload)
    weights = jnp.asarray(runner.experiment.federation.client_sizes(ids))
    reports = reports_of(steps, absent)
    server, info = runner.algorithm.update_server(server, clients, weights, None, exchanged.received, reports)
    info = info._replace(padding=padding_of(runner.experiment, plan))
    return RoundResult(server, info, steps, ids, exchanged.shared_masks, payloads, traffic)


def reports_of(steps: list[StepInfo], absent: np.ndarray) -> Reports:
    """What the server is told of the clients beside their models; ``absent`` as in `TrainedClients`."""
    losses = client_losses(steps) if steps else jnp.zeros(len(absent))  # no step where nobody's model would arrive
    return Reports(jnp.asarray(absent), losses)


def traffic_of(
    experiment: Experiment, round_: int, ids: np.ndarray, exchanged: Exchange, before: SharedMasks
) -> tuple[Traffic | None, SharedMasks]:
    """Bytes of the messages of ``ids``, measured now unless they were sent, and what is known of all clients then."""
    if exchanged.traffic or exchanged.download is None:
        return exchanged.traffic, exchanged.shared_masks
    return transport.measure_round(
        experiment.messages,
        before,
        round_,
        ids,
        exchanged.download,
        exchanged.trained.payload,
        lost=~has_arrived(exchanged.trained.absent),
    )


def joined_traffic(parts: list[Traffic | None]) -> Traffic | None:
    """The messages of the clients of all parts; None where they were not counted."""
    counted = [part for part in parts if part]
    down, up = ([size for one in counted for size in getattr(one, way)] for way in Traffic._fields)
    return Traffic(down, up) if counted else None


def joined_clients(trees: list):
    """Trees with the client axis as one."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)


def exchange_models(
    runner: Runner, server: ServerState, round_: int, ids: np.ndarray, shared_masks: SharedMasks
) -> Exchange:
    """What the clients ``ids`` are sent in a round, train, and send, by messages where the run sends some.

    Arguments are those of `play_round`. From a checkpoint and its client records this is what they sent in the round
    after it.
    """
    settings, algorithm = runner.experiment.messages, runner.algorithm
    same_for_all = server.memory.masks is None
    download = received = sent_down = None
    if settings.mode != "off":
        download = algorithm.download(server, jnp.asarray(ids[:1] if same_for_all else ids))
    if settings.mode == "transmit" and download is not None:
        sent_down = transport.transmit(settings, shared_masks, (round_, 0), ids, download, same_for_all=same_for_all)
        received = sent_down.received
    trained = train_clients(runner, server, round_, ids, received)
    if sent_down is None:
        return Exchange(trained, download, trained.payload, shared_masks)
    sent_up = transport.transmit(
        settings,
        sent_down.shared_masks,
        (round_, 1),
        ids,
        trained.payload,
        base=sent_down.received.params,
        lost=trained.absent > 0,
    )
    traffic = Traffic(sent_down.sizes, sent_up.sizes)
    return Exchange(trained, download, sent_up.received, sent_up.shared_masks, traffic)


def train_clients(
    runner: Runner, server: ServerState, round_: int, ids: np.ndarray, received: Payload | None = None
) -> TrainedClients:
    """The clients' half of a round, before any message is made of it.

    Args:
        runner, server, round_: see `play_round`.
        ids: the cohort, ``i32[C]``; who was trained beside whom does not show in the result.
        received: what was decoded of the server's messages, where the model is sent through them.
    """
    order = _training_order(runner.experiment, ids)
    if np.array_equal(order, np.arange(len(ids))):
        return _train_in_order(runner, server, round_, ids, received)
    trained = _train_in_order(runner, server, round_, ids[order], tree.gather(received, order))
    clients, payload, steps, absent = tree.gather(
        (trained.clients, trained.payload, trained.steps, trained.absent), np.argsort(order)
    )
    return TrainedClients(clients, payload, trained.plan, steps, absent)


def _training_order(experiment: Experiment, ids: np.ndarray) -> np.ndarray:
    """Places of ``ids`` in the order of training: neighbours are of like size where clients are trained in groups."""
    execution = experiment.execution
    if not 1 < execution.num_parallel_clients < len(ids):
        return np.arange(len(ids))
    sizes = np.array([len(experiment.federation.members[i]) for i in ids])
    return largest_first(np.arange(len(ids)), sizes, execution.devices)


def _train_in_order(
    runner: Runner, server: ServerState, round_: int, ids: np.ndarray, received: Payload | None
) -> TrainedClients:
    """As `train_clients`, in the order of ``ids``."""
    experiment, needs = runner.experiment, runner.algorithm.data_needs
    members, batching = experiment.federation.members, experiment.batching
    looks_at_data = needs.before_training or needs.after_training
    data = scored_batches(runner, round_, ids) if looks_at_data else None
    clients = runner.algorithm.start_clients(
        server, jnp.asarray(ids), data if needs.before_training else None, received, runner.noise_key
    )
    batch_size, epochs = batching.batch_size, batching.epochs
    steps = num_steps(max(map(len, members)), batch_size, epochs)
    plan = plan_batches(experiment.seed, round_, ids, members, batch_size=batch_size, epochs=epochs, steps=steps)
    absent = who_fails(experiment.faults, experiment.seed, round_, ids, plan.valid.any(-1).sum(-1))
    plan = plan._replace(valid=plan.valid & (absent == Absence.NONE)[:, np.newaxis, np.newaxis])  # nobody waits for it
    pieces = split_plan(plan, min(steps, experiment.execution.steps_per_chunk))
    infos: list[StepInfo] = []
    for chunk in prefetch_chunks(runner.read, experiment.federation.targets, pieces):
        clients, info = runner.algorithm.local_steps(clients, chunk)
        jax.block_until_ready(infos[-1:])  # chunks that wait for the device are in memory: one, never more
        infos.append(info)
    payload = runner.algorithm.upload(server, clients, data if needs.after_training else None)
    return TrainedClients(clients, payload, plan, infos, absent)


def mean_loss(steps: list[StepInfo], counted: np.ndarray) -> float:
    """Mean training loss of the examples of a round, over the clients that ``counted``; NaN if none did."""
    of_counted = lambda values: jnp.where(counted[:, np.newaxis], values, 0).sum()
    examples = sum(int(of_counted(info.examples)) for info in steps)
    return sum(float(of_counted(info.loss)) for info in steps) / examples if examples else float("nan")


@jax.jit
def client_losses(steps: list[StepInfo]):
    """Mean training loss of each client, ``f32[C]``; 0 for one that did not train."""
    loss, examples = (sum(leaf.sum(1) for leaf in leaves) for leaves in zip(*steps, strict=True))
    return loss / jnp.maximum(examples, 1).astype(loss.dtype)


def scored_batches(runner: Runner, round_: int, ids) -> Chunk:
    """A few batches of each client ``ids``, for methods that look at data when they prune."""
    experiment, batching = runner.experiment, runner.experiment.batching
    plan = plan_scored_batches(
        experiment.seed,
        round_,
        ids,
        experiment.federation.members,
        batch_size=batching.batch_size,
        batches=batching.scored_batches,
    )
    return read_chunk(runner.read, experiment.federation.targets, plan)


def padding_of(experiment: Experiment, plan: BatchPlan) -> float:
    """Share of the computed local steps of a round that no client needed."""
    execution, needed = experiment.execution, np.asarray(plan.valid.any(-1))
    return padding_share(needed, execution.num_parallel_clients, execution.devices, execution.steps_per_chunk)

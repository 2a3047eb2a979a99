"""One run on many hosts: each process trains its own clients by the very functions of one process, and all play the
same rounds.

Process ``p`` of ``P`` owns a block of the clients, and reads no other's examples; process 0 holds those of the test set
and of validation as well, and writes the run folder. What the clients send is joined to arrays over all devices, whose
axis ``clients`` they share, and the server's half of a round is one program on them; the server's state is whole
everywhere.
"""

import hashlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedsparse_jax.communication import transport
from fedsparse_jax.communication.transport import SharedMasks, Traffic
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import npz_bytes
from fedsparse_jax.core.tree import keys_to_numbers, numbers_to_keys
from fedsparse_jax.core.types import Masks, ServerState, StepInfo
from fedsparse_jax.data.batching import sample_clients
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.loading import reader_of_places
from fedsparse_jax.runs import round as rounds
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.host_link import HostLink
from fedsparse_jax.runs.round import OF_EACH_CLIENT, Exchange, RoundResult, Runner, make_runner


class Team(NamedTuple):
    """What a process knows of the run that it shares with others."""

    link: HostLink
    own: Runner  # in whose federation the clients of other hosts hold nothing
    num_clients: int
    devices: Mesh  # of all hosts
    own_devices: Mesh
    update_server: Callable  # as the algorithm's, of the rows of all hosts
    prune_at_init: Callable
    state: ServerState  # shapes
    masks: Masks  # shapes of those that are sent to a client


class Share(NamedTuple):
    """A host's share of a cohort."""

    ids: np.ndarray  # i32[m]: its own clients, rising; then others, which hold nothing here, as many as all need
    own: int  # how many are its own
    rows: int  # of the server's half of the round, m or more; what lies behind the m counts for nothing
    places: np.ndarray  # i64[C]: where the cohort stands among the rows of all hosts


def make_team(experiment: Experiment, link: HostLink, noise_entropy: int | None) -> Team:
    """The process's own part of an experiment.

    Args:
        experiment: the same in all processes.
        link: to them.
        noise_entropy: see `round.make_runner`; that of process 0 counts.

    Raises:
        UsageError: what cannot be shared out, or processes that see other data.
    """
    _refuse_what_is_for_one_host(experiment, link)
    _refuse_other_data(experiment, link)
    told = link.from_first(b"" if noise_entropy is None else str(noise_entropy).encode())
    data, execution = experiment.federation, experiment.execution
    own, rows = own_federation(data, clients_of(link.index, link.count, len(data.members)))
    runner = make_runner(
        experiment._replace(federation=own),
        int(told) if told else None,
        reader_of_places(data.inputs, rows, execution.resident),
    )
    of_process = lambda p: [one for one in jax.devices() if one.process_index == p][: execution.devices]
    everywhere = Mesh(np.array([one for p in range(link.count) for one in of_process(p)]), ("clients",))
    state = jax.eval_shape(experiment.algorithm.init, jax.random.key(experiment.seed))
    here, on_all = Mesh(np.array(of_process(link.index)), ("clients",)), partial(_on_all, link)
    return Team(
        link=link,
        own=runner,
        num_clients=len(data.members),
        devices=everywhere,
        own_devices=here,
        update_server=on_all(everywhere, here, experiment.algorithm.update_server),
        prune_at_init=on_all(everywhere, here, experiment.algorithm.prune_at_init),
        state=state,
        masks=rounds.shapes_of_sent_masks(runner, state),
    )


def make_judge(experiment: Experiment) -> Runner:
    """The runner of process 0, which reads those who are tested and those who validate, and nobody else."""
    data = experiment.federation
    held = np.unique(np.concatenate([data.test, data.validation_rows]))
    read = reader_of_places(data.inputs, held, experiment.execution.resident)

    def read_held(index):
        places = np.minimum(np.searchsorted(held, index), len(held) - 1)
        if not np.array_equal(held[places], index):
            raise ValueError("process 0 holds only the test set and validation")
        return read(places)

    return make_runner(experiment, None, read_held)


def clients_of(index: int, count: int, num_clients: int) -> np.ndarray:
    """The clients of a process, ``i64[..]``: a block of neighbours, as many as any other has, or one fewer.

    >>> [clients_of(i, 2, 5).tolist() for i in range(2)]
    [[0, 1, 2], [3, 4]]
    """
    return np.flatnonzero(_owners(np.arange(num_clients), count, num_clients) == index)


def rows_of_process(data: Federation, index: int, count: int) -> np.ndarray:
    """The examples that a process reads, ``i64[..]``, rising: of its clients; in process 0 all that no client trains on
    as well.
    """
    of_clients = [data.members[client] for client in clients_of(index, count, len(data.members))]
    _refuse_idleness(of_clients)
    trained = np.zeros(len(data.targets), bool)
    trained[np.concatenate(data.members)] = True
    return np.sort(np.concatenate([*of_clients, np.flatnonzero(~trained) if index == 0 else np.zeros(0, np.int64)]))


def _refuse_idleness(rows) -> None:
    if not any(np.size(one) for one in rows):
        raise UsageError("The clients of a process hold no example; start fewer processes (--num_processes).")


def _owners(ids: np.ndarray, count: int, num_clients: int) -> np.ndarray:
    return ids.astype(np.int64) * count // num_clients


def own_federation(data: Federation, clients: np.ndarray) -> tuple[Federation, np.ndarray]:
    """The federation as one host knows it, and its examples by their number in the whole one, ``i64[n]``.

    Examples are numbered anew, so that there is no number for one of another host. The other clients are there, and
    hold nothing.
    """
    rows = np.concatenate([np.zeros(0, np.int64), *(data.members[i] for i in clients)])
    _refuse_idleness([rows])
    places = np.split(np.arange(len(rows)), np.cumsum([len(data.members[i]) for i in clients])[:-1])
    members = [np.zeros(0, np.int64)] * len(data.members)
    for client, own in zip(clients, places, strict=True):
        members[client] = own
    people = [data.people[row] for row in rows]
    nobody = np.zeros(0, np.int64)
    known = data._replace(targets=data.targets[rows], members=members, people=people, test=nobody, validation=())
    return known, rows


def share_of_cohort(
    ids: np.ndarray, index: int, count: int, num_clients: int, devices: int, batch_size: int = 1
) -> Share:
    """A host's share of the cohort ``ids i32[C]``, rising; all shares have one length.

    Where a host has more devices than clients, each client has several if they can share the batches out evenly.

    >>> share_of_cohort(np.array([0, 1, 4]), index=1, count=2, num_clients=5, devices=1)
    Share(ids=array([4, 0]), own=1, rows=2, places=array([0, 1, 2]))
    >>> share_of_cohort(np.array([0, 4]), index=1, count=2, num_clients=5, devices=2, batch_size=4)
    Share(ids=array([4]), own=1, rows=2, places=array([0, 2]))
    """
    owner = _owners(ids, count, num_clients)
    counts = np.bincount(owner, minlength=count)
    most = int(counts.max())
    rows = -(-most // devices) * devices
    shared = (n for n in range(most, devices) if devices % n == 0 and batch_size % (devices // n) == 0)
    own = ids[owner == index]
    other = np.flatnonzero(_owners(np.arange(num_clients), count, num_clients) != index)[0]
    filled = np.concatenate([own, np.full(next(shared, rows) - len(own), other, ids.dtype)])
    return Share(filled, len(own), rows, np.concatenate([p * rows + np.arange(n) for p, n in enumerate(counts)]))


def begin(team: Team, server: ServerState | None) -> ServerState:
    """The state to go on from, in every process; ``server`` is what process 0 has found on disk, if anything."""
    told = team.link.from_first(b"" if server is None else _pack_state(server))
    return _here(team, _unpack_state(told, team.state) if told else _initial_server(team))


def _initial_server(team: Team) -> ServerState:
    """As `round.initial_server`; methods that score data at initialization do so on all hosts."""
    runner = team.own
    experiment, scored = runner.experiment, runner.algorithm.data_needs.at_init
    if not scored:
        return rounds.initial_server(runner)
    server = runner.algorithm.init(jax.random.key(experiment.seed))
    ids = sample_clients(experiment.seed, 0, team.num_clients, 1 if scored == "one" else team.num_clients)
    share = _share(team, ids)
    weights = experiment.federation.client_sizes(share.ids)
    return team.prune_at_init(server, *_as_rows(share, rounds.scored_batches(runner, 0, share.ids), weights))


def same_records(team: Team, records: SharedMasks) -> SharedMasks:
    """What process 0 knows of the masks that server and clients share, in every process."""
    told = team.link.from_first(npz_bytes(transport.records_as_arrays(records)))
    return transport.records_of_arrays(_unpack(told), team.masks)


def is_over(team: Team, ended: bool = False) -> bool:
    """Whether process 0 says that the run has ``ended``, in every process."""
    return bool(team.link.from_first(b"ended" if ended else b""))


def play_round_on_hosts(
    team: Team, server: ServerState, round_: int, ids: np.ndarray, shared_masks: SharedMasks
) -> RoundResult:
    """One round of all hosts, as `round.play_round`; the whole of its numbers is known to process 0 alone."""
    ids, own = np.sort(ids), team.own
    share = _share(team, ids)
    exchanged = rounds.exchange_models(own, server, round_, share.ids, shared_masks)
    trained = exchanged.trained
    traffic, records = _messages(own, round_, share, exchanged, shared_masks)
    weights = own.experiment.federation.client_sizes(share.ids)
    of_steps: dict[str, Any] = {"key": None, "augmentation_key": None}
    clients = trained.clients._replace(**of_steps)
    reports = rounds.reports_of(trained.steps, trained.absent)
    (clients, received, reports), weights = _as_rows(share, (clients, exchanged.received, reports), weights)
    server, info = team.update_server(server, clients, weights, None, received, reports)
    of_cohort = {key: getattr(info, key)[share.places] for key in OF_EACH_CLIENT}
    told = _tell_first(team, share, trained.steps, traffic, records)
    padding = rounds.padding_of(own.experiment, trained.plan)
    result = RoundResult(server, info._replace(**of_cohort, padding=padding), [], ids, {**shared_masks, **records})
    return _with_what_all_told(team, result, told) if told else result


def _messages(
    own: Runner, round_: int, share: Share, exchanged: Exchange, before: SharedMasks
) -> tuple[Traffic | None, SharedMasks]:
    """Bytes of the messages of the host's own clients, and what is known of these clients after them."""
    traffic, after = rounds.traffic_of(own.experiment, round_, share.ids, exchanged, before)
    if traffic is None:
        return None, {}
    records = {int(client): after[int(client)] for client in share.ids[: share.own]}
    return Traffic(traffic.down[: share.own], traffic.up[: share.own]), records


def _tell_first(
    team: Team, share: Share, steps: list[StepInfo], traffic: Traffic | None, records: SharedMasks
) -> list[dict[str, np.ndarray]]:
    """What only the log and the checkpoint need of the host's own clients; of all hosts, in process 0."""
    sums = zip(*[(np.asarray(one.loss, np.float64).sum(1), np.asarray(one.examples).sum(1)) for one in steps])
    loss, examples = [sum(parts) for parts in sums] if steps else np.zeros((2, len(share.ids)))
    of_own = {"loss": loss[: share.own, np.newaxis], "examples": examples[: share.own, np.newaxis].astype(int)}
    bytes_ = {} if traffic is None else {"down": np.array(traffic.down, int), "up": np.array(traffic.up, int)}
    told = team.link.to_first(npz_bytes({**of_own, **bytes_, **transport.records_as_arrays(records)}))
    return [_unpack(one) for one in told]


def _with_what_all_told(team: Team, result: RoundResult, told: list[dict[str, np.ndarray]]) -> RoundResult:
    joined = lambda name: np.concatenate([one[name] for one in told])
    records = dict(result.shared_masks)
    for one in told:
        records |= transport.records_of_arrays(one, team.masks)
    sent = "down" in told[0]
    return result._replace(
        steps=[StepInfo(jnp.asarray(joined("loss")), jnp.asarray(joined("examples")))],
        shared_masks=records,
        traffic=Traffic(joined("down").tolist(), joined("up").tolist()) if sent else None,
    )


def _share(team: Team, ids: np.ndarray) -> Share:
    devices, batch_size = team.own.experiment.execution.devices, team.own.experiment.batching.batch_size
    return share_of_cohort(ids, team.link.index, team.link.count, team.num_clients, devices, batch_size)


def _as_rows(share: Share, of_clients, weights):
    """Leaves ``[m, ...]`` and weights ``[m]`` as rows of the server's half; those behind the m repeat the last client,
    with weight 0.
    """
    more = share.rows - len(share.ids)
    if not more:
        return of_clients, weights
    repeat = lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[-1:], more, axis=0)])
    return jax.tree.map(repeat, of_clients), np.pad(weights, (0, more))


def _on_all(link: HostLink, everywhere: Mesh, here: Mesh, function: Callable) -> Callable:
    """``function(server, *rows)`` on the rows of all hosts; every host gives its own, and gets all that comes out.

    Each host compiles it by itself and begins once all have, since JAX's first sum on CPUs gives up after 30 seconds.
    """
    rows, whole = PartitionSpec("clients"), PartitionSpec()
    jitted = jax.jit(function, out_shardings=NamedSharding(everywhere, whole))
    compiled = dict[tuple, Callable]()

    def joined(spec: PartitionSpec, leaf):
        local = jax.device_put(leaf, NamedSharding(here, spec))
        shape = (local.shape[0] * link.count, *local.shape[1:]) if spec == rows else local.shape
        pieces = [piece.data for piece in local.addressable_shards]
        return jax.make_array_from_single_device_arrays(shape, NamedSharding(everywhere, spec), pieces)

    def back(leaf):
        pieces = [piece.data for piece in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, NamedSharding(here, whole), pieces)

    def run(server, *of_clients):
        given = jax.tree.map(partial(joined, whole), server), *jax.tree.map(partial(joined, rows), of_clients)
        leaves, structure = jax.tree.flatten(given)
        form = structure, *map(jax.typeof, leaves)
        if form not in compiled:
            compiled[form] = jitted.lower(*given).compile()
        jax.block_until_ready(given)
        link.wait_for_all()
        return jax.tree.map(back, compiled[form](*given))

    return run


def _here(team: Team, server: ServerState) -> ServerState:
    return jax.device_put(server, NamedSharding(team.own_devices, PartitionSpec()))


def _refuse_what_is_for_one_host(experiment: Experiment, link: HostLink) -> None:
    clients = len(experiment.federation.members)
    if clients < link.count:
        raise UsageError(f"{link.count} processes cannot share {clients} clients; lower --num_processes.")
    if experiment.cohorts.travel:
        raise UsageError("With order cyclic or shuffled one client follows another; leave --num_processes out.")
    if experiment.execution.clients_held:
        raise UsageError("execution.clients_held is for one process; set it to 0.")
    if experiment.leakage:
        raise UsageError("log.audit_every reads all clients' scans in one place; set it to 0, or start one process.")


def _refuse_other_data(experiment: Experiment, link: HostLink) -> None:
    """Whether all processes run the same config and have divided the same people in the same way."""
    data, total = experiment.federation, hashlib.sha256()
    decisive = {key: value for key, value in experiment.config.items() if key not in ("data", "log", "checkpoint")}
    total.update(repr(sorted(decisive.items())).encode())
    for rows in (*data.members, data.test, *data.validation, data.targets):
        total.update(np.ascontiguousarray(rows).tobytes() + b"|")
    same = link.from_first(total.digest()) == total.digest()
    if not same:
        raise UsageError(
            f"Process {link.index} has another config than process 0, or sees other scans; give all processes the same "
            "command, the same scans and the same versions."
        )


def _pack_state(server: ServerState) -> bytes:
    return npz_bytes({str(place): leaf for place, leaf in enumerate(jax.tree.leaves(keys_to_numbers(server)))})


def _unpack_state(told: bytes, like: ServerState) -> ServerState:
    stored, structure = _unpack(told), jax.tree.structure(like)
    leaves = [jnp.asarray(stored[str(place)]) for place in range(len(stored))]
    return numbers_to_keys(jax.tree.unflatten(structure, leaves), like)


def _unpack(told: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(told)) as stored:  # nothing is unpickled
        return dict(stored)

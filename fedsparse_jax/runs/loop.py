"""The host's side of a run: fold the rounds, and keep, log and show what comes out.

An `Experiment` is what `build` makes of a config; `run` folds its rounds in a run folder. Everything that is
random is derived from the seed and the round, so that a run that was stopped goes on as if it had not been.

Two threads share the work: one hands rounds to the device, the other keeps them (`_keeper`: evaluation, checkpoint,
log) while the device trains the next one.
"""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.communication import transport
from fedsparse_jax.core import masks, tasks, tree
from fedsparse_jax.federated import privacy_accounting
from fedsparse_jax.models import flops
from fedsparse_jax.runs import checkpoint, run_dir, metrics_log
from fedsparse_jax.data import batching
from fedsparse_jax.core.types import Chunk, ClientState, FedAlgorithm, Model, RoundInfo, Sent, ServerState, StepInfo, UsageError


class Experiment(NamedTuple):
    """Everything a run needs, already built."""

    config: dict  # resolved, for the record and for the check that a folder holds the same experiment
    task: tasks.Task
    seed: int
    rounds: int
    model: Model
    algorithm: FedAlgorithm
    data: batching.Federation
    cohort_size: int
    solo_rounds: int
    batch_size: int
    epochs: int
    probe_batches: int  # of each client, for methods that look at data when they prune
    steps_per_chunk: int
    together: int  # clients that are trained at the same time
    devices: int
    resident: bool
    eval_batch: int
    every: int  # rounds between two checkpoints
    keep: int
    wire: transport.Wire
    tensorboard: bool
    dropped: dict[str, int]  # reasons why scans were left out, with counts
    uses: np.ndarray  # f64[L], multiply-adds of one prediction on a weight of each leaf
    remarks: tuple[str, ...] = ()  # said before the first round
    audit: Callable[[ServerState], dict] | None = None  # measures of what the model leaks, for the log
    audit_every: int = 1  # rounds between two
    epsilon: Callable[[int], float] | None = None  # of the data of a client who took part in so many rounds


class Compiled(NamedTuple):
    """The jitted functions of a run: the only place where ``jax.jit`` meets the algorithm."""

    init: Callable
    prepare: Callable
    address: Callable
    begin: Callable
    steps: Callable
    leave: Callable
    finish: Callable
    apply: Callable


class Trained(NamedTuple):
    """The clients' half of a round."""

    clients: ClientState  # [C, ...]
    sent: Sent  # [C, ...], before any message is made of it
    plan: batching.Plan
    steps: list[StepInfo]  # of each chunk


class Played(NamedTuple):
    """A round that was handed to the device, whose numbers may still be on their way."""

    server: ServerState
    info: RoundInfo
    steps: list[StepInfo]  # of each chunk
    ids: np.ndarray
    held: transport.Held  # what `run_round` was given, or has sent
    measure: Callable[
        [transport.Held], tuple[transport.Traffic | None, transport.Held]
    ]  # None where nobody asked


def compile_(experiment: Experiment) -> Compiled:
    """Jits each function once; the cohort's buffers are donated from step to step."""
    algorithm = experiment.algorithm
    return Compiled(
        jax.jit(algorithm.init),
        jax.jit(algorithm.prepare),
        jax.jit(algorithm.address),
        jax.jit(algorithm.begin),
        jax.jit(algorithm.steps, donate_argnums=0),
        jax.jit(algorithm.leave),
        jax.jit(algorithm.finish),
        jax.jit(experiment.model.apply),
    )


def reader(experiment: Experiment) -> Callable:
    """How the experiment's inputs are read, from the device or from their file."""
    return (batching.resident if experiment.resident else batching.streamed)(experiment.data.inputs)


def run(experiment: Experiment, workdir: Path, say: Callable[[str], None] = print) -> list[dict]:
    """Folds the rounds that ``workdir`` does not hold yet; returns the log of all rounds.

    Raises:
        UsageError: the folder holds another experiment, or training diverged. What was finished stays.
    """
    about = dict(environment=run_dir.environment(experiment.seed), federation=federation(experiment))
    run_dir.open_(workdir, experiment.config, **about)
    for remark in experiment.remarks:
        say(remark)
    compiled = compile_(experiment)
    read = reader(experiment)
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(checkpoint.open_manager(workdir, experiment.keep))
        start, records = _resume(experiment, compiled, read, manager, workdir, say)
        plot = stack.enter_context(metrics_log.tensorboard(workdir, records)) if experiment.tensorboard else None
        scribe = stack.enter_context(ThreadPoolExecutor(1))  # the first to leave: it finishes what it keeps
        held = transport.restore(workdir / "held", int(start.round), start.masks)
        keep = _keeper(experiment, compiled, read, manager, workdir, records, held, plot, say)
        kept = scribe.submit(lambda: None)
        server = start
        for played in rounds(experiment, compiled, read, start, held):
            kept.result()  # the round before; what went wrong with it ends the run here
            kept, server = scribe.submit(keep, played), played.server
        kept.result()
    write_predictions(experiment, _predict(experiment, compiled, read, server.params), workdir)
    return records


def rounds(experiment: Experiment, compiled: Compiled, read, server: ServerState, held: transport.Held):
    """The fold itself: yields what `run_round` returns for every round that is still to do."""
    for round_ in range(int(server.round) + 1, experiment.rounds + 1):
        played = run_round(experiment, compiled, read, server, round_, sample(experiment, round_), held)
        server, held = played.server, played.held
        yield played


def _keeper(
    experiment: Experiment, compiled: Compiled, read, manager, workdir: Path, records, start, plot, say
):
    """What is done with a round once it is played: measure, check, save, log, show.

    Args:
        start: what is held before the first of them.
    """
    data, held, last = experiment.data, start, time.monotonic()
    own = [data.own_test(client) for client in range(len(data.members))] if data.classes else []

    def keep(played: Played) -> None:
        nonlocal held, last
        server = played.server
        outcome = {"train_loss": mean_loss(played.steps), **quality(experiment, compiled, read, server, own)}
        if experiment.audit and int(server.round) % experiment.audit_every == 0:
            outcome |= experiment.audit(server)
        traffic, held = played.measure(held)
        began, last = last, time.monotonic()
        record = _record(experiment, played, outcome, traffic, records, last - began)
        _refuse_divergence(experiment, record, workdir)
        if record["round"] % experiment.every == 0 or record["round"] == experiment.rounds:
            if traffic:
                transport.save(held, workdir / "held", record["round"], experiment.keep)
            checkpoint.save(manager, server)
        records.append(record)
        metrics_log.append(workdir, record)
        if plot:
            plot(record)
        left = _time_left(records, experiment.rounds)
        say(metrics_log.round_line(record, experiment.task, experiment.rounds, left))
        for sentence in metrics_log.warnings(record, records[-2] if len(records) > 1 else {}):
            say(sentence)

    return keep


def mean_loss(steps: list[StepInfo]) -> float:
    """Mean training loss of the examples of a round."""
    return sum(float(info.loss.sum()) for info in steps) / sum(int(info.examples.sum()) for info in steps)


def sample(experiment: Experiment, round_: int) -> np.ndarray:
    """The clients of a round, ``i32[C]``; in the first ``solo_rounds`` always the same one; where they are trained in
    groups, neighbours of like size."""
    size, members = experiment.cohort_size, experiment.data.members
    if round_ <= experiment.solo_rounds:
        return batching.sample(experiment.seed, 0, len(members), 1)
    ids = batching.sample(experiment.seed, round_, len(members), size)
    if 1 < experiment.together < size:
        return batching.by_size(ids, np.array([len(members[i]) for i in ids]), experiment.devices)
    return ids


def run_round(
    experiment: Experiment,
    compiled: Compiled,
    read,
    server: ServerState,
    round_: int,
    ids,
    held: transport.Held,
) -> Played:
    """One round with the clients ``ids``.

    Args:
        held: the masks that server and clients know of one another. Where messages go through, `Played.held` is what
            they know afterwards; else that is for `Played.measure` to tell, from what it is given.
    """
    data, wire = experiment.data, experiment.wire
    through, shared = wire.mode == "through", server.memory.masks is None
    down: Any = None
    arrived = None
    if wire.mode != "off":
        down = compiled.address(server, jnp.asarray(ids[:1] if shared else ids))
    if through:
        received = transport.cross(wire, held, (round_, 0), ids, down, shared=shared)
        arrived = received.arrived
    clients, up, plan, steps = train_clients(experiment, compiled, read, server, round_, ids, arrived)
    measure: Callable = lambda known: (None, known)
    if through:
        base = received.arrived.params
        returned = transport.cross(wire, received.held, (round_, 1), ids, up, base=base)
        up, held = returned.arrived, returned.held
        measure = lambda _: (transport.Traffic(received.sizes, returned.sizes), returned.held)
    elif wire.mode == "measure":
        measure = lambda known, up=up: transport.measure(wire, known, round_, ids, down, up, shared)
    server, round_info = compiled.finish(server, clients, _weights(data, ids), None, up)
    needed = np.asarray(plan.valid.any(-1))
    padding = batching.padding(needed, experiment.together, experiment.devices, experiment.steps_per_chunk)
    return Played(server, round_info._replace(padding=padding), steps, ids, held, measure)


def train_clients(
    experiment: Experiment, compiled: Compiled, read, server: ServerState, round_: int, ids, arrived=None
) -> Trained:
    """The clients' half of a round: from a checkpoint, also what they sent in the round after it.

    Args:
        arrived: what was decoded of the server's messages, where they go through.
    """
    data, wants = experiment.data, experiment.algorithm.wants
    probe = _probe(experiment, read, round_, ids) if wants.begin or wants.finish else None
    clients = compiled.begin(server, jnp.asarray(ids), probe if wants.begin else None, arrived)
    batch_size, epochs = experiment.batch_size, experiment.epochs
    steps = batching.steps_of(max(map(len, data.members)), batch_size, epochs)
    plan = batching.plan(
        experiment.seed, round_, ids, data.members, batch_size=batch_size, epochs=epochs, steps=steps
    )
    pieces = batching.chunks(plan, min(steps, experiment.steps_per_chunk))
    done: list[StepInfo] = []
    for chunk in batching.load(read, data.targets, pieces):
        clients, info = compiled.steps(clients, chunk)
        jax.block_until_ready(done[-1:])  # chunks that wait for the device are in memory: one, never more
        done.append(info)
    return Trained(clients, compiled.leave(server, clients, probe if wants.finish else None), plan, done)


def prepare(experiment: Experiment, compiled: Compiled, read, server: ServerState) -> ServerState:
    """Pruning before round 1, for methods that do it."""
    data, over = experiment.data, experiment.algorithm.wants.prepare
    if not over:
        return compiled.prepare(server)
    ids = batching.sample(experiment.seed, 0, len(data.members), 1 if over == "one" else len(data.members))
    return compiled.prepare(server, _probe(experiment, read, 0, ids), _weights(data, ids))


def _probe(experiment: Experiment, read, round_: int, ids) -> Chunk:
    data = experiment.data
    batch_size, batches = experiment.batch_size, experiment.probe_batches
    plan = batching.probe(experiment.seed, round_, ids, data.members, batch_size=batch_size, batches=batches)
    return batching.chunk_of(read, data.targets, plan)


def _weights(data: batching.Federation, ids) -> jax.Array:
    """Examples behind each client."""
    return jnp.asarray([len(data.members[i]) for i in ids], jnp.float32)


# --- quality ------------------------------------------------------------------------------------


def quality(experiment: Experiment, compiled: Compiled, read, server: ServerState, own: list) -> dict:
    """Measures on the test set, ``test_*``; where clients have masks of their own, the mean over their models.

    Args:
        own: for each client the places of the test set that are of its classes; empty without classes. ``own_*`` is
            the headline measure there, by the client's model, the mean over clients.

    None stands for what is undefined.
    """
    data, task = experiment.data, experiment.task
    tested = data.targets[data.test]
    if server.memory.masks is None:
        shared = _predict(experiment, compiled, read, server.params)
        each = [shared] * (len(data.members) if data.classes else 1)
        measures = task.measure(shared, tested)
    else:
        models = [tree.gather(server.memory.masks, i) for i in range(len(data.members))]
        each = [_predict(experiment, compiled, read, masks.apply(m, server.params)) for m in models]
        all_ = [task.measure(predictions, tested) for predictions in each]
        measures = {name: float(np.mean([one[name] for one in all_])) for name in all_[0]}
    found = {f"test_{name}": value if np.isfinite(value) else None for name, value in measures.items()}
    if own:
        values = [
            task.measure(p[i], tested[i])[task.headline] for p, i in zip(each, own, strict=True) if len(i)
        ]
        found[f"own_{task.headline}"] = float(np.mean(values))
    return found


def _predict(experiment: Experiment, compiled: Compiled, read, params) -> np.ndarray:
    params = jax.device_put(params, jax.devices()[0])  # one device predicts, however many train
    return batching.predict(compiled.apply, params, read, experiment.data.test, experiment.eval_batch)


def write_predictions(experiment: Experiment, predictions: np.ndarray, workdir: Path) -> None:
    """``predictions.tsv`` of the test set, by the global model, and a few test examples for the report."""
    data = experiment.data
    people, targets = [data.people[i] for i in data.test], data.targets[data.test]
    table = metrics_log.classes_table if data.classes else metrics_log.predictions_table
    metrics_log.write_text(workdir / "predictions.tsv", table(people, targets, predictions))
    shown = min(10 if data.classes else 5, len(targets))
    chosen = np.argsort(targets, kind="stable")[np.linspace(0, len(targets) - 1, shown).round().astype(int)]
    np.savez(workdir / "slices.npz", volumes=data.inputs[data.test[chosen], ..., 0], targets=targets[chosen])


def federation(experiment: Experiment) -> dict:
    """Who holds what, for the report."""
    data = experiment.data
    kind = "labels" if data.classes else "ages"
    targets = data.targets.astype(int) if data.classes else data.targets.astype(float).round(1)
    clients = [
        {"name": f"L{i + 1}", "n": len(held), kind: targets[held].tolist()}
        for i, held in enumerate(data.members)
    ]
    params = jax.eval_shape(experiment.model.init, jax.random.key(0))
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    return {
        "method": experiment.config["method"],
        "task": experiment.config["task"],
        "classes": data.classes,
        "clients": clients,
        "test": {"n": len(data.test), kind: targets[data.test].tolist()},
        "dropped": experiment.dropped,
        "total_weights": tree.size(params),
        "layers": dict(zip(tree.names(params), sizes, strict=True)),
        "flops": flops.per_sample(sizes, experiment.uses),
        "shape": list(data.inputs.shape[1:-1]),
    }


def _resume(experiment, compiled, read, manager, workdir, say):
    key = jax.random.key(experiment.seed)
    like = jax.eval_shape(experiment.algorithm.init, key)
    server = checkpoint.restore(manager, like)
    if server is None:
        return prepare(experiment, compiled, read, compiled.init(key)), metrics_log.truncate(workdir, 0)
    say(f"{workdir} holds {int(server.round)} of {experiment.rounds} rounds: going on from there.")
    return server, metrics_log.truncate(workdir, int(server.round))


def _record(experiment: Experiment, played: Played, outcome: dict, traffic, records, seconds: float) -> dict:
    data, task = experiment.data, experiment.task
    server, info = played.server, played.info
    leaves, names = jax.tree.leaves(server.masks), tree.names(server.masks)
    kept = np.asarray(info.kept)
    kernels = [leaf.ndim > 1 for leaf in leaves]
    up, down = (int(np.asarray(each, np.int64).sum()) for each in (info.kept_up, info.kept_down))
    before = records[-1] if records else {"params_up_total": 0, "params_down_total": 0}
    sizes = [leaf.size for leaf in leaves]
    return {
        "round": int(info.round),
        "target_sparsity": float(info.target_sparsity),
        "sparsity": tasks.sparsity(kept, sizes),
        **outcome,
        task.baseline_key: task.baseline(data.train_targets, data.targets[data.test]),
        "params_up": up,
        "params_down": down,
        "params_up_total": before["params_up_total"] + up,
        "params_down_total": before["params_down_total"] + down,
        **(_bytes(traffic, records) if traffic else {}),
        "agreement": float(info.agreement),
        "drift": int(info.drift),
        "flops": flops.per_sample(kept, experiment.uses),
        "finite": bool(info.finite),
        "padding": round(info.padding, 4),
        "cohort": played.ids.tolist(),
        **_spent(experiment, played, records),
        "density": tasks.density(kept, sizes, names),
        "dead_channels": {n: int(d) for n, d, k in zip(names, info.dead, kernels, strict=True) if k},
        "collapsed": [n for n, count, k in zip(names, kept, kernels, strict=True) if k and count == 0],
        "seconds": round(seconds, 3),
    }


def _spent(experiment: Experiment, played: Played, records: list[dict]) -> dict:
    """Epsilon of the client who took part most, where training is private."""
    if not experiment.epsilon:
        return {}
    cohorts = [record["cohort"] for record in records]
    return {"epsilon": experiment.epsilon(privacy_accounting.most_rounds([*cohorts, played.ids.tolist()]))}


def _bytes(traffic: transport.Traffic, records: list[dict]) -> dict:
    """Lengths of the messages of each client, in the order of the cohort, and their sum since round 1."""
    found: dict[str, Any] = {}
    for name, sizes in traffic._asdict().items():
        before = records[-1].get(f"bytes_{name}_total", 0) if records else 0
        found |= {f"bytes_{name}": sizes, f"bytes_{name}_total": before + sum(sizes)}
    return found


def _refuse_divergence(experiment: Experiment, record: dict, workdir: Path) -> None:
    headline = record[f"test_{experiment.task.headline}"]
    if not (np.isfinite(record["train_loss"]) and record["finite"] and headline is not None):
        raise UsageError(
            f"Training diverged in round {record['round']} (the loss, a weight or a prediction is not a number); "
            f"the rounds before it are safe in {workdir}; lower client.optimizer.learning_rate and choose another "
            "--workdir."
        )


def _time_left(records: list[dict], rounds: int) -> float:
    """Seconds, from the median of the last rounds: the first one also compiles."""
    recent = [record["seconds"] for record in records[-5:]]
    return float(np.median(recent)) * (rounds - records[-1]["round"])

"""The host's loop: fold the rounds, and keep, log and show what comes out.

Everything that is random is derived from the seed and the round, so that a run that was stopped goes on as if it had
not been. Two threads share the work: one hands rounds to the device, the other keeps them (`RoundWriter`: evaluation,
checkpoint, log) while the device trains the next one.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import numpy as np

from fedsparse_jax.communication import transport
from fedsparse_jax.communication.transport import SharedMasks, Traffic
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import ServerState
from fedsparse_jax.federated.sound_clients import has_arrived
from fedsparse_jax.runs import checkpoint, console, hosts, metrics_log, model_choice, run_dir
from fedsparse_jax.runs.evaluation import (
    evaluate_server,
    predict_as_server,
    write_predictions,
    write_validation_predictions,
)
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.groups import play_in_groups
from fedsparse_jax.runs.host_link import HostLink
from fedsparse_jax.runs.likeness import write_likeness
from fedsparse_jax.runs.quality import write_quality
from fedsparse_jax.runs.records import SICK, UNSENT, RoundRecord, make_record
from fedsparse_jax.runs.round import (
    RoundResult,
    Runner,
    initial_server,
    make_runner,
    play_round,
    sample_cohort,
    shapes_of_sent_masks,
)
from fedsparse_jax.runs.trackers import tracked

VOLUMES = 5  # axes of scans and their channels
Print = Callable[[str], None]


def run_experiment(
    experiment: Experiment, workdir: Path, print_fn: Print = print, link: HostLink | None = None
) -> list[RoundRecord]:
    """Folds the rounds that ``workdir`` does not hold yet; returns the records of all rounds.

    Args:
        experiment: what is run.
        workdir: the run's folder.
        print_fn: told what a human wants to know.
        link: to the other processes of a run on many hosts, all of which call this; process 0 alone writes and prints,
            and the others return no records.

    Raises:
        UsageError: the folder holds another experiment, or training diverged. What was finished stays.
    """
    if link and link.index:
        _play_along(experiment, link)
        return []
    with run_dir.lock_run_dir(workdir):
        run_dir.open_run_dir(workdir, experiment)
        for remark in experiment.remarks:
            print_fn(remark)
        return _run(experiment, workdir, print_fn, link)


def _play_along(experiment: Experiment, link: HostLink) -> None:
    """What a process other than process 0 does: play its part of each round, until process 0 says that it is over."""
    team = hosts.make_team(experiment, link, None)
    server = hosts.begin(team, None)
    shared_masks = hosts.same_records(team, {})
    if not hosts.is_over(team):
        for _ in fold_rounds(team.own, server, shared_masks, partial(hosts.play_round_on_hosts, team)):
            if hosts.is_over(team):
                return


def _run(experiment: Experiment, workdir: Path, print_fn: Print, link: HostLink | None = None) -> list[RoundRecord]:
    """Folds the rounds of an open folder."""
    noise, output = run_dir.noise_entropy(workdir), experiment.output
    team = hosts.make_team(experiment, link, noise) if link else None
    runner = hosts.make_judge(experiment) if team else make_runner(experiment, noise)
    play = partial(hosts.play_round_on_hosts, team) if team else None
    is_over = lambda ended: hosts.is_over(team, ended) if team else ended
    records: list[RoundRecord] = []
    best = lambda: model_choice.best_record(records, experiment.task)
    with contextlib.ExitStack() as stack:
        best_round = lambda: one.round if (one := best()) else None
        manager = stack.enter_context(checkpoint.open_manager(workdir, output.checkpoints_kept, best_round))
        server, before = _resume(runner, manager, workdir, print_fn)
        if team:
            server = hosts.begin(team, server)
        elif server is None:
            server = initial_server(runner)
        records.extend(before)
        watchers = []
        if output.tensorboard:
            watchers.append(stack.enter_context(metrics_log.tensorboard(workdir, records)))
        if output.tracker:
            told = tracked(output.tracker, experiment.config, workdir, records, print_fn)
            watchers.append(stack.enter_context(told))
        shared_masks = _load_client_records(runner, server, workdir, print_fn)
        shared_masks = hosts.same_records(team, shared_masks) if team else shared_masks
        write_round = RoundWriter(runner, workdir, manager, records, shared_masks, watchers, print_fn)
        writer_thread = stack.enter_context(ThreadPoolExecutor(1))  # the first to leave: it finishes what it keeps
        pending: Future = writer_thread.submit(lambda: None)
        for result in () if is_over(write_round.ended) else fold_rounds(runner, server, shared_masks, play):
            pending.result()  # the round before; what went wrong with it ends the run here
            if is_over(write_round.ended):
                break  # this round was begun before that was known, and counts for nothing
            pending, server = writer_thread.submit(write_round, result), result.server
        pending.result()
    _say_what_was_chosen(experiment, records, print_fn)
    data, task = experiment.federation, experiment.task
    predictions = predict_as_server(runner, server, data.test)
    bias = write_validation_predictions(runner, server, workdir)
    write_predictions(data, predictions, workdir, task, bias)
    write_quality(workdir, data, task, predictions, int(server.round), bias)
    if data.inputs.ndim == VOLUMES and not team:  # it looks at scans of all clients
        write_likeness(data, workdir)
    return records


def _say_what_was_chosen(experiment: Experiment, records: list[RoundRecord], print_fn: Print) -> None:
    """Tells which round is the best on validation, and why a run ended early, where there is a validation."""
    if not experiment.federation.validation:
        return
    task, patience = experiment.task, experiment.model_choice.patience
    best = model_choice.best_record(records, task)
    if best and model_choice.has_ended_early(records, task, patience):
        print_fn(console.early_end_line(best, records[-1].round, patience, task))
    print_fn(console.best_line(best, task))


def fold_rounds(
    runner: Runner, server: ServerState, shared_masks: SharedMasks, play: Callable[..., RoundResult] | None = None
) -> Iterator[RoundResult]:
    """The fold itself: yields every round that is still to do.

    Args:
        runner: the experiment.
        server, shared_masks: see `round.play_round`.
        play: plays a round as that does, given all but the runner; None for that itself, or for `groups.play_in_groups`
            where the run merges clients as they come.
    """
    play = play or partial(play_in_groups if runner.experiment.execution.clients_held else play_round, runner)
    for round_ in range(int(server.round) + 1, runner.experiment.rounds + 1):
        ids = sample_cohort(runner.experiment, round_)
        result = play(server, round_, ids, shared_masks)
        server, shared_masks = result.server, result.shared_masks
        yield result


class RoundWriter:
    """What is done with a round once it is played: measure, check, save, log, show."""

    def __init__(
        self,
        runner: Runner,
        workdir: Path,
        manager,
        records: list[RoundRecord],
        shared_masks: SharedMasks,
        watchers: Sequence[Callable[[RoundRecord], None]],
        print_fn: Print,
    ):
        self.runner, self.workdir, self.manager = runner, workdir, manager
        self.records, self.shared_masks = records, shared_masks
        self.watchers, self.print_fn = watchers, print_fn
        self.last = time.monotonic()

    @property
    def ended(self) -> bool:
        """Whether the rounds that are kept end the run before its last one."""
        experiment = self.runner.experiment
        return model_choice.has_ended_early(self.records, experiment.task, experiment.model_choice.patience)

    def __call__(self, result: RoundResult) -> None:
        """Keeps one round; its line is in the log before its checkpoint is on disk, since a run that goes on cuts the
        log at its checkpoint but cannot write a line that is missing.
        """
        experiment, records = self.runner.experiment, self.records
        evaluation, leakage = evaluate_server(self.runner, result.server), self._leakage(result.server)
        traffic = self._measure_messages(result)
        began, self.last = self.last, time.monotonic()
        record = make_record(experiment, result, evaluation, leakage, traffic, records, self.last - began)
        before = records[-1] if records else None
        records.append(record)
        _refuse_divergence(experiment, records, self.workdir)
        metrics_log.append_record(self.workdir, record)
        self._save(record.round, result.server, traffic)
        for tell in self.watchers:
            tell(record)
        left = console.seconds_left(records, experiment.rounds)
        self.print_fn(console.round_line(record, experiment.task, experiment.rounds, left))
        for sentence in console.warnings(record, before):
            self.print_fn(sentence)

    def _leakage(self, server: ServerState) -> dict[str, float]:
        log = self.runner.experiment.leakage
        return log.measure(server) if log and int(server.round) % log.every == 0 else {}

    def _measure_messages(self, result: RoundResult) -> Traffic | None:
        """Bytes of the round's messages; remembers the masks that server and clients share from now on."""
        if result.traffic is not None:
            self.shared_masks = result.shared_masks
            return result.traffic
        if result.payloads is None:
            return None
        download, upload = result.payloads
        traffic, self.shared_masks = transport.measure_round(
            self.runner.experiment.messages,
            self.shared_masks,
            int(result.info.round),
            result.client_ids,
            download,
            upload,
            lost=~has_arrived(np.asarray(result.info.left_out)),
        )
        return traffic

    def _save(self, round_: int, server: ServerState, traffic: Traffic | None) -> None:
        experiment, output = self.runner.experiment, self.runner.experiment.output
        best = model_choice.best_record(self.records, experiment.task)
        is_best, is_last = best is not None and best.round == round_, round_ == experiment.rounds or self.ended
        if round_ % output.checkpoint_every and not is_best and not is_last:
            return
        if traffic:
            folder = run_dir.client_records(self.workdir)
            transport.save_records(self.shared_masks, folder, round_)
        checkpoint.save_checkpoint(self.manager, server, [record.to_json() for record in self.records])
        if traffic:
            transport.forget_records(folder, {round_, *checkpoint.rounds_on_disk(self.workdir)})


def _resume(runner: Runner, manager, workdir: Path, print_fn: Print) -> tuple[ServerState | None, list[RoundRecord]]:
    """The state to go on from, None before round 1, and the records up to it."""
    experiment = runner.experiment
    like = jax.eval_shape(experiment.algorithm.init, jax.random.key(experiment.seed))
    usable = _rounds_with_records(runner, workdir, print_fn)
    server = checkpoint.restore_checkpoint(manager, like, print_fn=print_fn, forget_damaged=True, usable=usable)
    if server is None:
        return None, metrics_log.truncate_records(workdir, 0)
    print_fn(f"{workdir} holds {int(server.round)} of {experiment.rounds} rounds: going on from there.")
    log = checkpoint.read_log(manager, int(server.round))
    if log is None:
        return server, metrics_log.truncate_records(workdir, int(server.round))
    return server, metrics_log.restore_records(workdir, log, print_fn)


def _rounds_with_records(runner: Runner, workdir: Path, print_fn: Print) -> Callable[[int], bool]:
    """Whether a round can be gone on from as if the run had not been stopped; any round, if none can."""
    folder = run_dir.client_records(workdir)
    rounds = sorted(checkpoint.rounds_on_disk(workdir), reverse=True)
    if runner.experiment.messages.mode == "off" or not any(transport.has_records(folder, one) for one in rounds):
        return lambda round_: True

    def usable(round_: int) -> bool:
        sound = transport.has_records(folder, round_)
        if not sound:
            print_fn(f"{folder / f'{round_}.npz'} is missing or damaged; trying the round before.")
        return sound

    return usable


def _load_client_records(runner: Runner, server: ServerState, workdir: Path, print_fn: Print) -> SharedMasks:
    """What server and clients knew of one another after the state's round; records of other rounds are forgotten."""
    folder, round_ = run_dir.client_records(workdir), int(server.round)
    transport.forget_records(folder, checkpoint.rounds_on_disk(workdir))
    like = shapes_of_sent_masks(runner, server)
    known = transport.load_records(folder, round_, like) if transport.has_records(folder, round_) else {}
    if round_ and not known and runner.experiment.messages.mode != "off":
        print_fn(
            f"Note: {folder / f'{round_}.npz'} is missing or damaged. The next messages therefore hold whole masks, "
            "and what lossy messages owed is lost: their bytes, and with communication.feedback the model, are not "
            "those of a run that was never stopped."
        )
    return known


def _refuse_divergence(experiment: Experiment, records: list[RoundRecord], workdir: Path) -> None:
    """Ends a run whose model is broken, or where every client has failed since the last round in which one had not.

    One sick client alone ends nothing, also where it is alone in its round.
    """
    record = records[-1]
    failed = set[int]()
    for one in reversed(records):
        sick, unsent = ({i for reason in reasons for i in one.left_out.get(reason, ())} for reasons in (SICK, UNSENT))
        if set(one.cohort) - sick - unsent:
            break
        failed |= sick
    everybody = {client for client, rows in enumerate(experiment.federation.members) if len(rows)}
    headline = record.test[experiment.task.headline]
    if not record.finite or headline is None or failed >= everybody:
        raise UsageError(
            f"Training diverged in round {record.round} (the loss, a weight or a prediction is not a number); "
            f"the rounds before it are safe in {workdir}; lower client.optimizer.learning_rate and choose another "
            "--workdir."
        )

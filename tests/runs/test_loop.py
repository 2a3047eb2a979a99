"""A whole run: resume bit for bit, the log, warnings, and a divergence that loses nothing."""

import json
import shutil
import threading
from functools import partial

import jax
import numpy as np
import pytest

from fedsparse_jax.communication import MessageSettings
from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.reporting.report import write_report
from fedsparse_jax.runs import Batching, Output, checkpoint, loop, metrics_log, read_records, run_experiment
from fedsparse_jax.runs.checkpoint import open_manager, state_digest
from fedsparse_jax.runs.round import train_clients
from fedsparse_jax.sparsity import paced, step_wise
from tests.helpers import toy_federation
from tests.helpers.interrupted import QUIET, Killed, die_before_saving, final_state, stop_after, without_time


@pytest.mark.parametrize("placement", ["server", "client"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, placement):
    experiment = toy_federation.experiment(placement=placement)
    whole = run_experiment(experiment, tmp_path / "whole", print_fn=QUIET)
    for stop in (2, 4):
        with pytest.raises(Killed):
            run_experiment(experiment, tmp_path / "parts", print_fn=stop_after(stop))
    parts = run_experiment(experiment, tmp_path / "parts", print_fn=QUIET)
    assert state_digest(final_state(tmp_path / "whole")) == state_digest(final_state(tmp_path / "parts"))
    assert without_time(whole) == without_time(parts) == without_time(read_records(tmp_path / "parts"))
    tables = [(tmp_path / name / "predictions.tsv").read_text() for name in ("whole", "parts")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("placement", ["server", "client"])
def test_a_paced_schedule_follows_the_losses_of_the_log_and_a_stopped_run_goes_on(tmp_path, placement):
    """Server and clients prune to what the losses of the rounds before ask for; masks and log say the same."""
    schedule = paced(0.8, 8, steps=0.3, learned=0.9)
    algorithm = toy_federation.algorithm(schedule, placement)
    experiment = toy_federation.experiment(8, placement)._replace(algorithm=algorithm)
    records = run_experiment(experiment, tmp_path / "whole", print_fn=QUIET)
    pace, asked = schedule.init(), []
    for record in records:
        asked.append(float(schedule(record.round, pace)))
        pace = schedule.update(pace, record.round, np.float32(record.train_loss))
    np.testing.assert_allclose([record.target_sparsity for record in records], asked, atol=1e-6)
    assert len(set(asked)) > 2 and asked[-1] == np.float32(0.8)
    if placement == "server":
        np.testing.assert_allclose([record.sparsity for record in records], asked, atol=0.01)
    with pytest.raises(Killed):
        run_experiment(experiment, tmp_path / "parts", print_fn=stop_after(4))
    run_experiment(experiment, tmp_path / "parts", print_fn=QUIET)
    assert stored(experiment, tmp_path / "whole") == stored(experiment, tmp_path / "parts")


def stored(experiment, workdir):
    """Digest of the newest state, and the records without their times."""
    with open_manager(workdir) as manager:
        like = jax.eval_shape(experiment.algorithm.init, jax.random.key(0))
        state = checkpoint.restore_checkpoint(manager, like)
    return state_digest(state), without_time(read_records(workdir))


SENDING = {"measure": MessageSettings("measure"), "int8 with feedback": MessageSettings("transmit", "int8", True, 3)}


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("messages", SENDING)
def test_a_run_that_dies_before_its_checkpoint_is_on_disk_goes_on_bit_for_bit(tmp_path, monkeypatch, messages, keep):
    experiment = toy_federation.experiment()
    experiment = experiment._replace(messages=SENDING[messages], output=Output(1, keep, False))
    run_experiment(experiment, tmp_path / "whole", print_fn=QUIET)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save_checkpoint", die_before_saving(4))
        run_experiment(experiment, tmp_path / "parts", print_fn=QUIET)
    run_experiment(experiment, tmp_path / "parts", print_fn=QUIET)
    assert stored(experiment, tmp_path / "whole") == stored(experiment, tmp_path / "parts")


@pytest.mark.parametrize("messages", SENDING)
def test_a_run_that_walks_back_from_damaged_checkpoints_is_the_same_run(tmp_path, messages):
    experiment = toy_federation.experiment()
    experiment = experiment._replace(messages=SENDING[messages], output=Output(1, 2, False))
    run_experiment(experiment, tmp_path / "whole", print_fn=QUIET)
    with pytest.raises(Killed):
        run_experiment(experiment._replace(output=Output(1, 4, False)), tmp_path / "parts", print_fn=stop_after(4))
    for round_ in (3, 4):
        shutil.rmtree(tmp_path / f"parts/checkpoints/{round_}/state")
    with pytest.raises(Killed):  # played again, round 3 has records of its own, and later ones are gone
        run_experiment(experiment, tmp_path / "parts", print_fn=stop_after(3))
    kept = {int(path.stem) for path in (tmp_path / "parts/client_records").iterdir()}
    assert 3 in kept and 4 not in kept
    run_experiment(experiment, tmp_path / "parts", print_fn=QUIET)
    assert stored(experiment, tmp_path / "whole") == stored(experiment, tmp_path / "parts")


def test_records_that_are_missing_are_said_to_be(tmp_path):
    with pytest.raises(Killed):
        run_experiment(toy_federation.experiment(), tmp_path, print_fn=stop_after(2))
    shutil.rmtree(tmp_path / "client_records")
    lines = []
    run_experiment(toy_federation.experiment(), tmp_path, print_fn=lines.append)
    assert sum("2.npz is missing or damaged. The next messages" in line for line in lines) == 1


@pytest.fixture(scope="module")
def whole_and_stopped(tmp_path_factory):
    """The folder of an uninterrupted run of the toy federation, and that of one that was killed after round 3."""
    folder = tmp_path_factory.mktemp("runs")
    run_experiment(toy_federation.experiment(), folder / "whole", print_fn=QUIET)
    with pytest.raises(Killed):
        run_experiment(toy_federation.experiment(), folder / "stopped", print_fn=stop_after(3))
    return folder / "whole", folder / "stopped"


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b""), flip])
def test_from_damaged_records_the_run_walks_back_a_round_and_is_the_same_run(tmp_path, whole_and_stopped, damage):
    whole, stopped = whole_and_stopped
    experiment = toy_federation.experiment()
    shutil.copytree(stopped, tmp_path / "parts")
    damage(tmp_path / "parts/client_records/3.npz")
    lines = []
    run_experiment(experiment, tmp_path / "parts", print_fn=lines.append)
    assert any("3.npz is missing or damaged; trying the round before" in line for line in lines)
    assert any("holds 2 of 5 rounds" in line for line in lines)
    assert stored(experiment, whole) == stored(experiment, tmp_path / "parts")


def lose_a_line(lines):
    return [lines[0], *lines[2:]]


DAMAGE = {
    "deleted": None,
    "emptied": lambda lines: [],
    "a line lost": lose_a_line,
    "a line doubled": lambda lines: [lines[0], *lines],
    "no JSON": lambda lines: [lines[0], "{" + lines[1], lines[2]],
    "null": lambda lines: [lines[0], "null", lines[2]],
    "no round": lambda lines: [lines[0], "{}", lines[2]],
    "a digit": lambda lines: [lines[0].replace("1", "7"), *lines[1:]],
    "no text": lambda lines: [lines[0] + "\udcff", *lines[1:]],
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_log_is_written_anew_from_the_checkpoint(tmp_path, whole_and_stopped, what):
    whole, stopped = whole_and_stopped
    shutil.copytree(stopped, tmp_path / "parts")
    log, said = tmp_path / "parts/metrics.jsonl", []
    if what == "deleted":
        log.unlink()
    else:
        lines = DAMAGE[what](log.read_text().splitlines())
        log.write_bytes("".join(line + "\n" for line in lines).encode(errors="surrogateescape"))
    records = run_experiment(toy_federation.experiment(), tmp_path / "parts", print_fn=said.append)
    assert any("metrics.jsonl had lost rounds or was damaged; it is written anew" in line for line in said)
    assert without_time(records) == without_time(read_records(whole))


def test_a_round_whose_line_was_not_written_is_played_again(tmp_path, monkeypatch):
    """A promise of privacy is counted from the log, which must not lose a round whose checkpoint is there."""
    append = metrics_log.append_record

    def dies(workdir, record):
        if record.round == 3:
            raise Killed
        append(workdir, record)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(metrics_log, "append_record", dies)
        run_experiment(toy_federation.experiment(), tmp_path, print_fn=QUIET)
    records = run_experiment(toy_federation.experiment(), tmp_path, print_fn=QUIET)
    assert [record.round for record in records] == [1, 2, 3, 4, 5]


def test_a_round_is_kept_while_the_next_one_is_played(tmp_path, monkeypatch):
    # The measures of round 1 wait for round 2 to begin: without overlap they would wait for ever.
    second, play, measure = threading.Event(), loop.play_round, loop.evaluate_server

    def playing(runner, server, round_, ids, shared_masks):
        if round_ == 2:
            second.set()
        return play(runner, server, round_, ids, shared_masks)

    def measuring(*args):
        assert second.wait(timeout=60)
        return measure(*args)

    monkeypatch.setattr(loop, "play_round", playing)
    monkeypatch.setattr(loop, "evaluate_server", measuring)
    records = run_experiment(toy_federation.experiment(rounds=2), tmp_path, print_fn=QUIET)
    assert [record.round for record in records] == [1, 2]


def test_in_groups_the_largest_clients_come_first_and_padding_is_reported(tmp_path):
    # 4, 8 and 10 examples in batches of 3, one epoch: 2, 3 and 4 steps. Lanes of 4 and of 3 + 2 steps: 10 for 9.
    experiment = toy_federation.experiment(rounds=1, num_parallel=2, cohort_size=3, epochs=1)
    record = run_experiment(experiment, tmp_path, print_fn=QUIET)[0]
    assert record.cohort == [0, 1, 2] and record.padding == pytest.approx(1 - 9 / 10)
    trained = train_clients(
        loop.make_runner(experiment), loop.initial_server(loop.make_runner(experiment)), 1, np.arange(3)
    )
    steps_by_client = np.concatenate([np.asarray(info.examples) for info in trained.steps], axis=1)
    assert trained.clients.id.tolist() == [0, 1, 2] and steps_by_client.sum(1).tolist() == [4, 8, 10]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])  # of a cohort of two: one each, and two each that share batches of four
def test_several_devices_give_what_one_gives(tmp_path, devices):
    experiment = partial(toy_federation.experiment, batching=Batching(batch_size=4, epochs=2))
    with_1 = run_experiment(experiment(), tmp_path / "1", print_fn=QUIET)
    with pytest.raises(Killed):
        run_experiment(experiment(devices=devices), tmp_path / "n", print_fn=stop_after(2))
    with_n = run_experiment(experiment(devices=devices), tmp_path / "n", print_fn=QUIET)
    states = [jax.tree.map(np.asarray, final_state(tmp_path / name).params) for name in ("1", "n")]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *states)
    assert [record.density for record in with_1] == [record.density for record in with_n]


def test_streamed_data_give_the_same_numbers(tmp_path):
    resident = toy_federation.experiment(rounds=2)
    np.save(tmp_path / "inputs.npy", resident.federation.inputs)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    on_disk = resident.federation._replace(inputs=mapped)
    streamed = toy_federation.experiment(rounds=2, resident=False, federation=on_disk)
    a = run_experiment(resident, tmp_path / "a", print_fn=QUIET)
    b = run_experiment(streamed, tmp_path / "b", print_fn=QUIET)
    assert without_time(a) == without_time(b)


def test_a_round_is_one_complete_line(tmp_path):
    run_experiment(toy_federation.experiment(tensorboard=True), tmp_path / "run", print_fn=QUIET)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    asked = {"round", "target_sparsity", "sparsity", "train_loss", "test_mae", "test_rmse", "test_r", "test_r2",
             "predict_mean_mae", "params_up", "params_down", "seconds", "density", "agreement", "drift", "flops",
             "dead_channels", "collapsed"}  # fmt: skip
    assert [line["round"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(asked <= line.keys() for line in lines)
    assert all(len(line["cohort"]) == 2 for line in lines)
    assert list((tmp_path / "run/tensorboard").glob("events*"))


def test_parameters_are_counted_by_hand(tmp_path):
    records = run_experiment(toy_federation.experiment(), tmp_path / "run", print_fn=QUIET)
    total = sum(leaf.size for leaf in jax.tree.leaves(final_state(tmp_path / "run").params))
    assert records[0].params_down == records[0].params_up == 2 * total  # two dense clients
    for before, now in zip(records, records[1:]):
        left = round((1 - before.sparsity) * total)
        assert now.params_down == now.params_up == 2 * left
    assert records[-1].sparsity == pytest.approx(round(0.8 * total) / total)
    assert records[-1].params_up_total == sum(record.params_up for record in records)


def test_the_predict_the_mean_error_by_hand(tmp_path):
    experiment = toy_federation.experiment(rounds=1, config={"method": "x", "task": "regression"})
    record = run_experiment(experiment, tmp_path / "run", print_fn=QUIET)[0]
    targets = experiment.federation.targets
    expected = np.abs(targets[-8:] - targets[:-8].mean()).mean()
    assert record.baseline == record.to_json()["predict_mean_mae"] == pytest.approx(expected, rel=1e-5)


def test_divergence_is_one_sentence_and_loses_nothing(tmp_path):
    good = toy_federation.experiment()
    with pytest.raises(Killed):
        run_experiment(good, tmp_path, print_fn=stop_after(2))
    no_scans = np.full_like(good.federation.inputs, np.nan)
    broken = good._replace(federation=good.federation._replace(inputs=no_scans))
    with pytest.raises(UsageError, match=r"diverged in round 3 .*client.optimizer.learning_rate"):
        run_experiment(broken, tmp_path, print_fn=QUIET)
    assert int(final_state(tmp_path).round) == 2 and len(read_records(tmp_path)) == 2


@pytest.mark.parametrize("placement", ["server", "client"])
def test_a_client_that_sends_nan_is_left_out_and_named(tmp_path, placement):
    """The model is as if that client had been absent, and the loss is that of the others."""
    experiment = toy_federation.experiment(rounds=2, placement=placement, cohort_size=3)
    data = experiment.federation
    inputs = data.inputs.copy()
    inputs[data.members[1]] = np.nan
    lines = []
    records = run_experiment(
        experiment._replace(federation=data._replace(inputs=inputs)), tmp_path / "sick", print_fn=lines.append
    )
    assert [record.left_out for record in records] == [{"not_a_number": [1]}] * 2
    assert sum(line.startswith("Warning: L2 sent weights that are not numbers") for line in lines) == 2
    assert all(record.finite and np.isfinite(record.train_loss) for record in records)
    state = final_state(tmp_path / "sick", rounds=2)
    server, runner = loop.initial_server(loop.make_runner(experiment)), loop.make_runner(experiment)
    for round_ in (1, 2):
        healthy = loop.play_round(runner, server, round_, np.array([0, 2], np.int32), {})
        server = healthy.server
        assert records[round_ - 1].train_loss == pytest.approx(loop_loss(healthy), rel=1e-5)
    for ours, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(server.params), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def loop_loss(result):
    return sum(float(s.loss.sum()) for s in result.steps) / sum(int(s.examples.sum()) for s in result.steps)


def test_mask_analytics_by_hand(tmp_path):
    records = run_experiment(toy_federation.experiment(), tmp_path / "run", print_fn=QUIET)
    masks = final_state(tmp_path / "run").masks
    sizes = {name: leaf.size for name, leaf in zip(tree.leaf_names(masks), jax.tree.leaves(masks))}
    counts = lambda record: {name: round(share * sizes[name]) for name, share in record.density.items()}
    before = sizes
    for record in records:
        # Masks nest here, so that what changed is what went.
        assert record.drift == sum(before.values()) - sum(counts(record).values())
        assert record.flops == 2 * sum(counts(record).values())  # the toy counts one use a weight
        before = counts(record)
    kernel = np.asarray(masks["conv2"]["kernel"]).reshape(-1, 4)
    assert records[-1].dead_channels["conv2/kernel"] == int((~kernel.any(0)).sum())
    assert set(records[-1].dead_channels) == {"conv1/kernel", "conv2/kernel", "head/kernel"}


def test_a_collapsed_layer_is_said_once(tmp_path):
    lines = []
    all_but_1_percent = toy_federation.algorithm(step_wise(0.99, at=(2,)))
    run_experiment(toy_federation.experiment(rounds=3, algorithm=all_but_1_percent), tmp_path, print_fn=lines.append)
    records = read_records(tmp_path)
    assert not records[0].collapsed and records[1].collapsed == records[2].collapsed != []
    warned = [line for line in lines if line.startswith("Warning")]
    assert len(warned) == 1 and all(name in warned[0] for name in records[1].collapsed)
    assert "set pruning.floor" in warned[0]


@pytest.mark.parametrize("every", [2, 4])
def test_fewer_checkpoints_give_the_same_run(tmp_path, every):
    whole = run_experiment(toy_federation.experiment(), tmp_path / "whole", print_fn=QUIET)
    with_fewer = toy_federation.experiment(every=every)
    with pytest.raises(Killed):
        run_experiment(with_fewer, tmp_path / "parts", print_fn=stop_after(3))
    parts = run_experiment(with_fewer, tmp_path / "parts", print_fn=QUIET)
    assert without_time(whole) == without_time(parts)
    with open_manager(tmp_path / "parts") as manager:
        assert 5 in manager.all_steps() and not {1, 3} & set(manager.all_steps())


def test_one_client_trains_alone_in_the_first_rounds(tmp_path):
    records = run_experiment(toy_federation.experiment(solo_rounds=2), tmp_path, print_fn=QUIET)
    cohorts = [record.cohort for record in records]
    assert len(cohorts[0]) == 1 and cohorts[0] == cohorts[1]
    assert all(len(cohort) == 2 for cohort in cohorts[2:])


def test_a_client_with_one_example_and_batches_larger_than_any_client_train(tmp_path):
    experiment = toy_federation.experiment(rounds=2, cohort_size=3)
    data = experiment.federation
    members = [data.members[0][:1], data.members[1], data.members[2]]
    tiny = experiment._replace(
        federation=data._replace(members=members), batching=experiment.batching._replace(batch_size=16)
    )
    records = run_experiment(tiny, tmp_path, print_fn=QUIET)
    assert [len(record.cohort) for record in records] == [3, 3]
    assert all(record.finite and record.drift > 0 and np.isfinite(record.train_loss) for record in records[1:])


def test_a_half_written_line_is_forgotten(tmp_path):
    run_experiment(toy_federation.experiment(rounds=2), tmp_path, print_fn=QUIET)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"round": 3, "spar')
    assert [record.round for record in metrics_log.truncate_records(tmp_path, 2)] == [1, 2]


@pytest.mark.parametrize("placement", ["server", "client"])
def test_each_of_several_test_sets_is_measured(tmp_path, placement):
    experiment = toy_federation.experiment(rounds=1, placement=placement)
    data = experiment.federation
    people = [{**row, "test_set": ("inner", "outer")[place % 3 == 0]} for place, row in enumerate(data.people)]
    experiment = experiment._replace(federation=data._replace(people=people))
    record = run_experiment(experiment, tmp_path, print_fn=QUIET)[0]
    rows = [line.split("\t") for line in (tmp_path / "predictions.tsv").read_text().splitlines()[1:]]
    outer = [int(row[0].removeprefix("sub-")) % 3 == 0 for row in rows]
    errors = np.abs([float(row[-1]) for row in rows])
    assert record.test["mae"] == pytest.approx(errors.mean(), abs=1e-2)
    assert record.test["outer_mae"] == pytest.approx(errors[outer].mean(), abs=1e-2)
    assert record.test["inner_mae"] == pytest.approx(errors[np.logical_not(outer)].mean(), abs=1e-2)
    assert read_records(tmp_path)[0].to_json()["test_outer_mae"] == record.test["outer_mae"]
    assert "MAE, test set outer" in write_report(tmp_path).read_text()

"""The run folder: resume bit for bit, the log, refusals that lose nothing."""

import json
import threading

import jax
import numpy as np
import pytest

from fedsparse_jax.core import tree
from fedsparse_jax.runs import checkpoint, loop, metrics_log
from fedsparse_jax.sparsity import criteria, pruning, schedules
from fedsparse_jax.core.types import UsageError
from tests.helpers import toy_federation


def final_state(workdir, rounds=5):
    one = toy_federation.experiment(rounds)
    with checkpoint.open_manager(workdir) as manager:
        return checkpoint.restore(manager, jax.eval_shape(one.algorithm.init, jax.random.key(0)))


def without_time(records):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


class Killed(BaseException):
    pass


def stop_after(round_):
    def say(line):
        if line.startswith(f"round {round_}/"):
            raise Killed

    return say


@pytest.mark.parametrize("placement", ["server", "client"])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, placement):
    whole = loop.run(toy_federation.experiment(placement=placement), tmp_path / "whole", say=lambda _: None)
    for stop in (2, 4):
        with pytest.raises(Killed):
            loop.run(toy_federation.experiment(placement=placement), tmp_path / "parts", say=stop_after(stop))
    parts = loop.run(toy_federation.experiment(placement=placement), tmp_path / "parts", say=lambda _: None)
    assert checkpoint.digest(final_state(tmp_path / "whole")) == checkpoint.digest(
        final_state(tmp_path / "parts")
    )
    assert without_time(whole) == without_time(parts) == without_time(metrics_log.read(tmp_path / "parts"))
    tables = [(tmp_path / name / "predictions.tsv").read_text() for name in ("whole", "parts")]
    assert tables[0] == tables[1]


def test_a_round_is_kept_while_the_next_one_is_played(tmp_path, monkeypatch):
    # The measures of round 1 wait for round 2 to begin: without overlap they would wait for ever.
    second, play, measure = threading.Event(), loop.run_round, loop.quality

    def playing(one, compiled, read, server, round_, ids, held):
        if round_ == 2:
            second.set()
        return play(one, compiled, read, server, round_, ids, held)

    def measuring(*args):
        assert second.wait(timeout=60)
        return measure(*args)

    monkeypatch.setattr(loop, "run_round", playing)
    monkeypatch.setattr(loop, "quality", measuring)
    records = loop.run(toy_federation.experiment(rounds=2), tmp_path, say=lambda _: None)
    assert [record["round"] for record in records] == [1, 2]


def test_in_groups_the_largest_clients_come_first_and_padding_is_reported(tmp_path):
    # 4, 8 and 10 examples in batches of 3, one epoch: 2, 3 and 4 steps. Lanes of 4 and of 3 + 2 steps: 10 for 9.
    one = toy_federation.experiment(rounds=1, together=2, cohort_size=3, epochs=1)
    assert loop.sample(one, 1).tolist() == [2, 1, 0]
    record = loop.run(one, tmp_path, say=lambda _: None)[0]
    assert record["cohort"] == [2, 1, 0] and record["padding"] == pytest.approx(1 - 9 / 10)


def test_two_devices_give_what_one_gives(tmp_path):
    one = loop.run(toy_federation.experiment(), tmp_path / "one", say=lambda _: None)
    with pytest.raises(Killed):
        loop.run(toy_federation.experiment(devices=2), tmp_path / "two", say=stop_after(2))
    two = loop.run(toy_federation.experiment(devices=2), tmp_path / "two", say=lambda _: None)
    states = [jax.tree.map(np.asarray, final_state(tmp_path / name).params) for name in ("one", "two")]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *states)
    assert [r["density"] for r in one] == [r["density"] for r in two]


def test_streamed_data_give_the_same_numbers(tmp_path):
    one = toy_federation.experiment(rounds=2)
    np.save(tmp_path / "inputs.npy", one.data.inputs)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    streamed = toy_federation.experiment(rounds=2, resident=False, data=one.data._replace(inputs=mapped))
    a = loop.run(one, tmp_path / "a", say=lambda _: None)
    b = loop.run(streamed, tmp_path / "b", say=lambda _: None)
    assert without_time(a) == without_time(b)


def test_a_round_is_one_complete_line(tmp_path):
    loop.run(toy_federation.experiment(tensorboard=True), tmp_path / "run", say=lambda _: None)
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    asked = {"round", "target_sparsity", "sparsity", "train_loss", "test_mae", "test_rmse", "test_r", "test_r2",
             "predict_mean_mae", "params_up", "params_down", "seconds", "density", "agreement", "drift", "flops",
             "dead_channels", "collapsed"}  # fmt: skip
    assert [record["round"] for record in records] == [1, 2, 3, 4, 5]
    assert all(asked <= record.keys() for record in records)
    assert all(len(record["cohort"]) == 2 for record in records)
    assert list((tmp_path / "run/tensorboard").glob("events*"))


def test_parameters_are_counted_by_hand(tmp_path):
    records = loop.run(toy_federation.experiment(), tmp_path / "run", say=lambda _: None)
    total = sum(leaf.size for leaf in jax.tree.leaves(final_state(tmp_path / "run").params))
    assert records[0]["params_down"] == records[0]["params_up"] == 2 * total  # two dense clients
    for before, now in zip(records, records[1:]):
        kept = round((1 - before["sparsity"]) * total)
        assert now["params_down"] == now["params_up"] == 2 * kept
    assert records[-1]["sparsity"] == pytest.approx(round(0.8 * total) / total)
    assert records[-1]["params_up_total"] == sum(record["params_up"] for record in records)


def test_the_predict_the_mean_error_by_hand(tmp_path):
    one = toy_federation.experiment(rounds=1, config={"method": "x", "task": "regression"})
    records = loop.run(one, tmp_path / "run", say=lambda _: None)
    data = one.data
    expected = np.abs(data.targets[-8:] - data.targets[:-8].mean()).mean()
    assert records[0]["predict_mean_mae"] == pytest.approx(expected, rel=1e-5)


def test_divergence_is_one_sentence_and_loses_nothing(tmp_path):
    good = toy_federation.experiment()
    with pytest.raises(Killed):
        loop.run(good, tmp_path, say=stop_after(2))
    broken = good.data._replace(targets=np.full_like(good.data.targets, np.nan))
    with pytest.raises(UsageError, match=r"diverged in round 3 .*client.optimizer.learning_rate"):
        loop.run(good._replace(data=broken), tmp_path, say=lambda _: None)
    assert int(final_state(tmp_path).round) == 2 and len(metrics_log.read(tmp_path)) == 2


def test_mask_analytics_by_hand(tmp_path):
    records = loop.run(toy_federation.experiment(), tmp_path / "run", say=lambda _: None)
    server = final_state(tmp_path / "run")
    sizes = {name: leaf.size for name, leaf in zip(tree.names(server.masks), jax.tree.leaves(server.masks))}
    kept = lambda record: {name: round(share * sizes[name]) for name, share in record["density"].items()}
    before = sizes
    for record in records:
        # Masks nest here, so that what changed is what went.
        assert record["drift"] == sum(before.values()) - sum(kept(record).values())
        assert record["flops"] == 2 * sum(kept(record).values())  # the toy counts one use a weight
        before = kept(record)
    kernel = np.asarray(server.masks["conv2"]["kernel"]).reshape(-1, 4)
    assert records[-1]["dead_channels"]["conv2/kernel"] == int((~kernel.any(0)).sum())
    assert set(records[-1]["dead_channels"]) == {"conv1/kernel", "conv2/kernel", "head/kernel"}


def test_a_collapsed_layer_is_said_once(tmp_path):
    lines = []
    one = toy_federation.experiment(rounds=3)
    schedule = schedules.step_wise(0.99, at=(2,))
    rule = pruning.Pruning(criteria.magnitude, pruning.global_, schedule, pruning.everything, ("server",))
    loop.run(one._replace(algorithm=toy_federation.algorithm(rule)), tmp_path, say=lines.append)
    records = metrics_log.read(tmp_path)
    assert not records[0]["collapsed"] and records[1]["collapsed"] == records[2]["collapsed"] != []
    warned = [line for line in lines if line.startswith("Warning")]
    assert len(warned) == 1 and all(name in warned[0] for name in records[1]["collapsed"])
    assert "set pruning.floor" in warned[0]


@pytest.mark.parametrize("every", [2, 4])
def test_fewer_checkpoints_give_the_same_run(tmp_path, every):
    whole = loop.run(toy_federation.experiment(), tmp_path / "whole", say=lambda _: None)
    sparse = toy_federation.experiment(every=every)
    with pytest.raises(Killed):
        loop.run(sparse, tmp_path / "parts", say=stop_after(3))
    parts = loop.run(sparse, tmp_path / "parts", say=lambda _: None)
    assert without_time(whole) == without_time(parts)
    with checkpoint.open_manager(tmp_path / "parts") as manager:
        assert 5 in manager.all_steps() and not {1, 3} & set(manager.all_steps())


def test_one_client_alone_in_the_first_rounds(tmp_path):
    records = loop.run(toy_federation.experiment(solo_rounds=2), tmp_path, say=lambda _: None)
    cohorts = [record["cohort"] for record in records]
    assert len(cohorts[0]) == 1 and cohorts[0] == cohorts[1] and all(len(c) == 2 for c in cohorts[2:])


def test_another_experiment_in_the_folder_is_refused(tmp_path):
    loop.run(toy_federation.experiment(rounds=1), tmp_path, say=lambda _: None)
    with pytest.raises(UsageError, match=r"there client.rate is 0.01, here it is 0.5"):
        loop.run(toy_federation.experiment(rounds=1, rate=0.5), tmp_path, say=lambda _: None)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        loop.run(toy_federation.experiment(), tmp_path, say=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_half_written_line_is_forgotten(tmp_path):
    loop.run(toy_federation.experiment(rounds=2), tmp_path, say=lambda _: None)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"round": 3, "spar')
    assert [record["round"] for record in metrics_log.truncate(tmp_path, 2)] == [1, 2]

"""Models are chosen on validation: what is measured, which rounds compete, what is kept, when training ends."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from fedsparse_jax.core.tasks import CLASSIFICATION, REGRESSION
from fedsparse_jax.reporting.report import write_report
from fedsparse_jax.runs import ModelChoice, Output, RoundRecord, best_record, checkpoint, read_records, run_experiment
from fedsparse_jax.runs.checkpoint import open_manager, restore_checkpoint, rounds_on_disk, state_digest
from fedsparse_jax.runs.console import best_line, early_end_line, round_line
from fedsparse_jax.runs.evaluation import evaluate_server
from fedsparse_jax.runs.model_choice import has_ended_early
from fedsparse_jax.runs.round import make_runner
from tests.helpers import toy_federation
from tests.helpers.interrupted import QUIET, Killed, die_before_saving, stop_after, without_time


def validating(data):
    """The toy federation, of which the last two people of each client train nobody."""
    members, validation = [rows[:-2] for rows in data.members], tuple(rows[-2:] for rows in data.members)
    return data._replace(members=members, validation=validation)


def experiment(rounds=5, final=None, patience=0, **changes):
    plain = toy_federation.experiment(rounds, **changes)
    return plain._replace(federation=validating(plain.federation), model_choice=ModelChoice(final, patience))


def rounds_of(values, may=None, measure="mae"):
    """Records of rounds with these measures on validation."""
    may = may or [value is not None for value in values]
    return [
        RoundRecord(round=number, validation={measure: value}, may_be_best=able)
        for number, (value, able) in enumerate(zip(values, may, strict=True), 1)
    ]


def scripted(monkeypatch, values):
    """Rounds whose validation measures so much, whatever was learned."""

    def evaluate(runner, server):
        return evaluate_server(runner, server)._replace(validation={"mae": values[int(server.round) - 1]})

    monkeypatch.setattr("fedsparse_jax.runs.loop.evaluate_server", evaluate)


# --- by hand ------------------------------------------------------------------------------------


def test_the_best_is_the_first_of_the_lowest_errors_that_compete():
    assert best_record(rounds_of([1.0, 5.0, 3.0, 3.0, 4.0], [False, True, True, True, True]), REGRESSION).round == 3
    assert best_record(rounds_of([0.2, 0.9, 0.4], measure="accuracy"), CLASSIFICATION).round == 2
    assert best_record(rounds_of([None, None]), REGRESSION) is None and best_record([], REGRESSION) is None


@pytest.mark.parametrize(
    ("values", "may", "patience", "ended"),
    [
        ([3.0, 2.0, 4.0, 5.0], None, 2, True),
        ([3.0, 2.0, 4.0], None, 2, False),
        ([3.0, 2.0, 2.0, 2.0], None, 2, True),  # as good is not better
        ([3.0, 2.0, 4.0, 5.0, 6.0, 7.0], None, 0, False),  # 0: never
        ([1.0, 9.0, 9.0, 9.0, 8.0, 9.0], [False] * 4 + [True] * 2, 2, False),  # dense rounds do not count
        ([1.0, 9.0, 9.0], [False] * 3, 1, False),
    ],
)
def test_patience_counts_rounds_since_the_best(values, may, patience, ended):
    assert has_ended_early(rounds_of(values, may), REGRESSION, patience) is ended


def test_what_the_console_says():
    record = dataclasses.replace(rounds_of([3.214])[0], test={"mae": 4.0})
    assert "validation MAE 3.21 y" in round_line(record, REGRESSION, 9, 1.0)
    assert "validation" not in round_line(RoundRecord(round=1, test={"mae": 4.0}), REGRESSION, 9, 1.0)
    assert best_line(record, REGRESSION) == "Best on validation: round 1, MAE 3.21 y (--which=best takes it)."
    assert best_line(None, REGRESSION).startswith("No round is the best on validation")
    assert early_end_line(record, 4, 3, REGRESSION) == (
        "Training ended after round 4: no round after 1 had a better validation MAE than 3.21 y, and "
        "early_stopping.patience is 3."
    )


# --- a run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    lines = []
    records = run_experiment(experiment(3, final=0.8), folder, print_fn=lines.append)
    return folder, records, lines


def test_the_log_holds_the_error_on_validation_and_nobody_of_it_is_trained_on(finished):
    folder, records, lines = finished
    rows = [line.split("\t") for line in (folder / "validation_predictions.tsv").read_text().splitlines()]
    data = validating(toy_federation.federation())
    assert rows[0][-2:] == ["error", "set"] and len(rows) == 7
    assert [row[0] for row in rows[1:]] == [data.people[i]["participant_id"] for i in data.validation_rows]
    assert [row[-1] for row in rows[1:]] == [f"L{i}-validation" for i in (1, 1, 2, 2, 3, 3)]
    errors = np.array([float(row[-2]) for row in rows[1:]])
    line = read_records(folder)[-1].to_json()
    assert line["validation_mae"] == pytest.approx(np.abs(errors).mean(), abs=1e-3)
    assert line["validation_rmse"] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-3)
    assert read_records(folder)[-1] == records[-1]
    assert sum("validation MAE" in one for one in lines if one.startswith("round")) == 3
    assert any(one.startswith("Best on validation: round 3") for one in lines)


def test_only_rounds_at_the_final_sparsity_compete(finished):
    _, records, _ = finished
    assert [record.may_be_best for record in records] == [False, False, True]  # 0.8 is asked for in round 3 alone
    assert records[1].target_sparsity < 0.8 == pytest.approx(records[2].target_sparsity)


def test_the_report_shows_the_last_and_the_best(finished):
    page = write_report(finished[0]).read_text()
    assert "best on validation" in page and "validation MAE" in page and "6 more of theirs form the validation" in page


def test_a_run_without_validation_says_nothing_of_it(tmp_path):
    lines = []
    record = run_experiment(toy_federation.experiment(1), tmp_path, print_fn=lines.append)[0]
    assert not any("validation" in key or key == "may_be_best" for key in record.to_json())
    assert not any("alidation" in line for line in lines) and not (tmp_path / "validation_predictions.tsv").exists()
    assert "alidation" not in (tmp_path / "people.tsv").read_text() + (tmp_path / "federation.json").read_text()
    assert "on validation" not in write_report(tmp_path).read_text().split("<h2>Reproduce")[0]


def test_where_clients_keep_masks_validation_is_the_mean_over_their_models():
    built = experiment(1)
    runner = make_runner(built)
    server = built.algorithm.init(jax.random.key(0))
    mask = jax.tree.map(
        lambda leaf: np.stack([np.ones(leaf.shape, bool)] * 2 + [np.zeros(leaf.shape, bool)]), server.masks
    )
    own = server._replace(memory=server.memory._replace(masks=mask))
    scaled = lambda factor: server._replace(params=jax.tree.map(lambda leaf: leaf * factor, server.params))
    whole, empty = (evaluate_server(runner, scaled(factor)) for factor in (1, 0))
    mean = (2 * whole.validation["mae"] + empty.validation["mae"]) / 3
    assert evaluate_server(runner, own).validation["mae"] == pytest.approx(mean)


# --- what is kept -------------------------------------------------------------------------------


def test_the_best_checkpoint_stays_beside_the_newest_and_is_saved_whatever_the_interval(tmp_path, monkeypatch):
    scripted(monkeypatch, [3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    run_experiment(experiment(6)._replace(output=Output(1, 2, False)), tmp_path / "each", print_fn=QUIET)
    assert rounds_on_disk(tmp_path / "each") == {2, 5, 6}
    assert {2, 5, 6} <= {int(path.stem) for path in (tmp_path / "each/client_records").iterdir()}
    run_experiment(experiment(6)._replace(output=Output(4, 1, False)), tmp_path / "some", print_fn=QUIET)
    assert rounds_on_disk(tmp_path / "some") == {2, 6}


def stored(built, workdir):
    """Digest of every checkpoint, the records without their times, and the tables."""
    like = jax.eval_shape(built.algorithm.init, jax.random.key(0))
    rounds = sorted(rounds_on_disk(workdir))
    with open_manager(workdir) as manager:
        digests = {one: state_digest(restore_checkpoint(manager, like, one)) for one in rounds}
    tables = [(workdir / name).read_text() for name in ("predictions.tsv", "validation_predictions.tsv", "people.tsv")]
    return digests, without_time(read_records(workdir)), tables


def test_a_stopped_run_keeps_the_same_best_bit_for_bit(tmp_path, monkeypatch):
    scripted(monkeypatch, [3.0, 1.0, 2.0, 2.0, 2.0])
    built = experiment()._replace(output=Output(1, 1, False))
    run_experiment(built, tmp_path / "whole", print_fn=QUIET)
    for stop in (1, 4):
        with pytest.raises(Killed):
            run_experiment(built, tmp_path / "parts", print_fn=stop_after(stop))
    run_experiment(built, tmp_path / "parts", print_fn=QUIET)
    assert stored(built, tmp_path / "whole") == stored(built, tmp_path / "parts")
    assert sorted(stored(built, tmp_path / "parts")[0]) == [2, 5]


# --- early stopping -----------------------------------------------------------------------------


def test_training_ends_once_nothing_gets_better_and_stays_ended(tmp_path, monkeypatch):
    scripted(monkeypatch, [9.0, 3.0, 4.0, 3.5, 1.0, 1.0])
    built, lines = experiment(6, patience=2)._replace(output=Output(5, 1, False)), []
    records = run_experiment(built, tmp_path / "run", print_fn=lines.append)
    assert [record.round for record in records] == [1, 2, 3, 4]
    assert sum("Training ended after round 4: no round after 2 had a better" in line for line in lines) == 1
    assert rounds_on_disk(tmp_path / "run") == {2, 4}  # the last is saved although its number is no multiple of 5
    before = stored(built, tmp_path / "run")
    again = run_experiment(built, tmp_path / "run", print_fn=lines.append)
    assert without_time(again) == without_time(records) and stored(built, tmp_path / "run") == before
    assert sum(line.startswith("round") for line in lines) == 4 and sum("Training ended" in line for line in lines) == 2
    whole = run_experiment(built._replace(model_choice=ModelChoice()), tmp_path / "whole", print_fn=QUIET)
    assert without_time(whole)[:4] == without_time(records)  # the round that was begun in vain left no trace


def test_a_run_that_dies_before_its_end_is_on_disk_ends_all_the_same(tmp_path, monkeypatch):
    scripted(monkeypatch, [9.0, 3.0, 4.0, 3.5, 1.0, 1.0])
    built = experiment(6, patience=2)
    run_experiment(built, tmp_path / "whole", print_fn=QUIET)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save_checkpoint", die_before_saving(4))
        run_experiment(built, tmp_path / "parts", print_fn=QUIET)
    run_experiment(built, tmp_path / "parts", print_fn=QUIET)
    assert stored(built, tmp_path / "whole") == stored(built, tmp_path / "parts")


def test_patience_begins_at_the_final_sparsity(tmp_path, monkeypatch):
    scripted(monkeypatch, [1.0, 9.0, 9.0, 9.0, 9.0])
    records = run_experiment(experiment(5, final=0.8, patience=1), tmp_path, print_fn=QUIET)
    assert [record.may_be_best for record in records] == [False] * 4 + [True]  # dense rounds could have ended it


def test_a_damaged_newest_checkpoint_falls_back_on_the_best(tmp_path, monkeypatch):
    scripted(monkeypatch, [3.0, 1.0, 2.0, 2.0, 2.0])
    built = experiment()._replace(output=Output(1, 1, False))
    run_experiment(built, tmp_path / "whole", print_fn=QUIET)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts/checkpoints/5/state")
    run_experiment(built, tmp_path / "parts", print_fn=QUIET)
    assert stored(built, tmp_path / "whole") == stored(built, tmp_path / "parts")

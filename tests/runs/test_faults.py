"""Clients that fail: who, and what becomes of a run with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.types import Absence
from fedsparse_jax.runs import run_experiment
from fedsparse_jax.runs.faults import Faults, check_faults, who_fails
from fedsparse_jax.runs.loop import initial_server, make_runner, play_round
from tests.helpers import toy_federation
from tests.helpers.interrupted import QUIET, Killed, final_state, stop_after, without_time

MANY = np.arange(4000, dtype=np.int32)


def test_chances_are_those_asked_for_and_the_fate_of_a_client_is_its_own():
    faults = Faults(dropout=0.3, stragglers=0.2, straggler_factor=3.0, deadline=2.0)
    fate = who_fails(faults, 1, 1, MANY, np.full(4000, 5))
    assert (fate == Absence.DROPPED_OUT).mean() == pytest.approx(0.3, abs=0.03)
    assert (fate == Absence.LATE).mean() == pytest.approx(0.7 * 0.2, abs=0.03)
    some = np.array([70, 7, 700], np.int32)
    assert who_fails(faults, 1, 1, some, np.full(3, 5)).tolist() == fate[some].tolist()
    assert (who_fails(faults, 1, 2, MANY, np.full(4000, 5)) != fate).any()


def test_a_large_client_is_late_without_being_slow():
    steps = np.array([4, 4, 9, 0])
    fate = who_fails(Faults(deadline=2.0), 1, 1, np.arange(4), steps)
    assert fate.tolist() == [0, 0, Absence.LATE, Absence.NO_DATA]


@pytest.mark.parametrize(
    ("faults", "named"),
    [
        (Faults(dropout=1.5), "dropout"),
        (Faults(stragglers=-0.1), "stragglers"),
        (Faults(straggler_factor=0.5), "straggler_factor"),
        (Faults(deadline=-1.0), "deadline"),
        (Faults(dropout=float("nan")), "dropout"),
    ],
)
def test_what_means_nothing_is_refused(faults, named):
    with pytest.raises(ArgumentError, match=f"^{named} is"):
        check_faults(faults)


@pytest.mark.parametrize("mode", ["measure", "transmit"])
def test_a_run_with_dropouts_is_that_of_the_others_and_goes_on_bit_for_bit(tmp_path, mode):
    """Those who dropped out were sent the model, sent nothing, and are named; whoever is left decides."""
    faults = Faults(dropout=0.4)
    experiment = toy_federation.experiment(rounds=4, cohort_size=3, mode=mode, faults=faults)
    fates = [who_fails(faults, 3, t, np.arange(3), np.ones(3)) for t in (1, 2, 3, 4)]
    gone = [np.flatnonzero(fate).tolist() for fate in fates]
    assert 0 < sum(map(len, gone)) < 12
    lines = []
    whole = run_experiment(experiment, tmp_path / "whole", print_fn=lines.append)
    assert [record.left_out.get("dropped_out", []) for record in whole] == gone
    assert sum("dropped out" in line for line in lines) == sum(map(bool, gone))
    for record in whole:
        away = [client in record.left_out.get("dropped_out", []) for client in range(3)]
        assert [size == 0 for size in record.bytes_up] == away and all(record.bytes_down)
    with pytest.raises(Killed):
        run_experiment(experiment, tmp_path / "parts", print_fn=stop_after(2))
    assert without_time(run_experiment(experiment, tmp_path / "parts", print_fn=QUIET)) == without_time(whole)
    runner = make_runner(toy_federation.experiment(rounds=4, cohort_size=3))
    server = initial_server(runner)
    for t, away in enumerate(gone, 1):
        present = np.setdiff1d(np.arange(3), away).astype(np.int32)
        server = play_round(runner, server, t, present, {}).server
    for ours, expected in zip(
        jax.tree.leaves(final_state(tmp_path / "whole", 4).params), jax.tree.leaves(server.params), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_rounds_without_anybody_change_nothing_and_say_so(tmp_path):
    experiment = toy_federation.experiment(rounds=2, faults=Faults(dropout=1.0))
    lines = []
    records = run_experiment(experiment, tmp_path, print_fn=lines.append)
    assert all(record.void for record in records) and sum("changed nothing" in line for line in lines) == 2
    start = initial_server(make_runner(experiment))
    for ours, expected in zip(
        jax.tree.leaves(final_state(tmp_path, 2).params), jax.tree.leaves(start.params), strict=True
    ):
        assert (np.asarray(ours) == np.asarray(expected)).all()


def sick(experiment, client, value):
    """The experiment with a client whose scans, or rows, are no use."""
    data = experiment.federation
    if value is None:
        members = [rows[:0] if i == client else rows for i, rows in enumerate(data.members)]
        return experiment._replace(federation=data._replace(members=members))
    inputs = data.inputs.copy()
    inputs[data.members[client]] = value
    return experiment._replace(federation=data._replace(inputs=inputs))


def test_one_sick_client_stops_no_run_also_where_it_is_alone_in_its_round(tmp_path):
    experiment = sick(toy_federation.experiment(rounds=4, cohort_size=1), 1, np.nan)
    records = run_experiment(experiment, tmp_path, print_fn=QUIET)
    alone = [record.cohort == [1] for record in records]
    assert any(alone) and not all(alone)
    assert [record.void for record in records] == alone
    assert [record.left_out for record in records] == [{"not_a_number": [1]} if bad else {} for bad in alone]


def test_clients_that_drop_out_are_not_taken_for_sound_ones(tmp_path):
    """Everybody who sends anything sends NaN, and the run ends once each has, as without dropouts."""
    experiment = toy_federation.experiment(rounds=3, cohort_size=3, faults=Faults(dropout=0.4), seed=0)
    for client in range(3):
        experiment = sick(experiment, client, np.nan)
    silent = [np.flatnonzero(who_fails(experiment.faults, 0, t, np.arange(3), np.ones(3))).tolist() for t in (1, 2)]
    assert silent == [[1], [2]]  # after round 1 somebody has sent nothing yet
    with pytest.raises(UsageError, match="diverged in round 2 "):
        run_experiment(experiment, tmp_path, print_fn=QUIET)


def test_a_client_without_data_counts_as_absent(tmp_path):
    records = run_experiment(
        sick(toy_federation.experiment(rounds=2, cohort_size=3), 2, None), tmp_path, print_fn=QUIET
    )
    assert [record.left_out for record in records] == [{"no_data": [2]}] * 2
    assert all(np.isfinite(record.train_loss) and record.finite for record in records)


def test_a_client_with_one_scan_counts(tmp_path):
    experiment = toy_federation.experiment(rounds=1, cohort_size=3)
    members = [rows[:1] if i == 0 else rows for i, rows in enumerate(experiment.federation.members)]
    one_scan = experiment._replace(federation=experiment.federation._replace(members=members))
    assert run_experiment(one_scan, tmp_path, print_fn=QUIET)[0].left_out == {}


def test_after_a_client_that_sent_no_number_its_owed_rounding_is_a_number_again():
    """With feedback a client keeps what its messages lost; that of a broken message must not spoil the next one."""
    from fedsparse_jax.communication import MessageSettings, transport
    from fedsparse_jax.core.types import Payload

    settings = MessageSettings("transmit", "int8", feedback=True)
    base = {"w": jnp.zeros((1, 8))}
    broken = Payload({"w": jnp.full((1, 8), jnp.nan)}, {"w": jnp.ones((1, 8), bool)})
    sent = transport.transmit(settings, {}, (1, 1), [0], broken, base=base)
    residual = sent.shared_masks[0].residual
    assert residual is None or np.isfinite(residual["w"]).all()
    sound = Payload({"w": jnp.arange(8.0)[jnp.newaxis]}, broken.masks)
    again = transport.transmit(settings, sent.shared_masks, (2, 1), [0], sound, base=base)
    assert np.isfinite(again.received.params["w"]).all()

"""What crosses the network in a round: sizes that are those of real messages, and a run that goes through them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.communication import MODES, ClientRecord, MessageSettings, Update, encode, make_context, transmit
from fedsparse_jax.communication.transport import check_settings, forget_records, load_records, save_records
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.types import Payload
from fedsparse_jax.runs import checkpoint, run_experiment
from tests.helpers import toy_federation
from tests.helpers.interrupted import QUIET, Killed, final_state, stop_after, without_time

MEASURE, TRANSMIT = MessageSettings("measure"), MessageSettings("transmit")
LOSSY = MessageSettings("transmit", "int8", seed=3)


def model(seed, count, clients=None):
    """Weights of 3 x 4, and a mask that keeps the first ``count``; stacked for ``clients``."""
    mask = (np.arange(12) < count).reshape(3, 4)
    weights = np.where(mask, np.random.default_rng(seed).normal(size=(3, 4)), 0).astype(np.float32)
    stack = lambda leaf: {"w": leaf if clients is None else np.stack([leaf] * clients)}
    return stack(weights), stack(mask)


def length(update, known=None):
    return len(encode(Update(*update), make_context(update[0], known)))


def test_sizes_are_those_of_real_messages_to_what_each_client_knows():
    dense, sparse = model(0, 12), model(1, 5)
    first = transmit(MEASURE, {}, (1, 0), [4, 7], Payload(*model(0, 12, 1)), same_for_all=True)
    assert first.sizes == [length(dense)] * 2
    # Client 4 knows the dense mask, client 9 nothing; 4 is told what was pruned, 9 the whole mask.
    second = transmit(MEASURE, first.shared_masks, (2, 0), [4, 9], Payload(*model(1, 5, 1)), same_for_all=True)
    assert second.sizes == [length(sparse, dense[1]), length(sparse)]
    # Up, 4 keeps its mask and 9 has pruned on.
    pruned = model(2, 3)
    both = jax.tree.map(lambda a, b: np.stack([a, b]), sparse, pruned)
    third = transmit(MEASURE, second.shared_masks, (2, 1), [4, 9], Payload(*both))
    assert third.sizes == [length(sparse, sparse[1]), length(pruned, sparse[1])]
    counts = lambda shared: {client: int(record.masks["w"].sum()) for client, record in shared.items()}
    assert counts(third.shared_masks) == {4: 5, 9: 3, 7: 12}
    # Nobody's record of an earlier moment has changed: another thread may be keeping it.
    assert counts(first.shared_masks) == {4: 12, 7: 12}
    assert counts(second.shared_masks) == {4: 5, 9: 5, 7: 12}


def test_scores_are_sent_too():
    params, masks = model(0, 5, 1)
    rising = {"w": jnp.arange(12.0).reshape(1, 3, 4)}
    constant = {"w": jnp.full((1, 3, 4), 2.0)}
    without = transmit(MEASURE, {}, (1, 1), [0], Payload(params, masks)).sizes
    sizes, received, _ = transmit(TRANSMIT, {}, (1, 1), [0], Payload(params, masks, (constant, rising)))
    lengths = [length((scores, {"w": scores["w"] != 0})) for scores in (of_client_0(constant), of_client_0(rising))]
    assert sizes[0] - without[0] == sum(lengths)
    np.testing.assert_array_equal(received.scores[0]["w"], constant["w"])
    np.testing.assert_array_equal(received.scores[1]["w"], rising["w"])


@pytest.mark.parametrize("settings", [MEASURE, TRANSMIT])
def test_where_no_score_was_asked_for_no_message_is_sent(settings):
    params, masks = model(0, 5, 1)
    none = {"w": jnp.zeros((1, 3, 4))}
    without = transmit(settings, {}, (1, 1), [0], Payload(params, masks)).sizes
    sizes, received, _ = transmit(settings, {}, (1, 1), [0], Payload(params, masks, (none,)))
    assert sizes == without and not np.asarray(received.scores[0]["w"]).any()


def of_client_0(scores):
    return {"w": np.asarray(scores["w"][0])}


def test_lossy_values_arrive_as_they_were_sent_and_depend_on_the_round():
    payload = Payload(*model(0, 8, 2))
    once, again, later = (transmit(LOSSY, {}, (t, 1), [0, 1], payload).received.params["w"] for t in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, later) and not np.array_equal(once[0], once[1])
    np.testing.assert_allclose(once, payload.params["w"], atol=np.abs(payload.params["w"]).max() / 127)


def test_feedback_sends_differences_and_in_the_end_everything():
    params, masks = model(0, 8, 2)
    near = {"w": np.where(masks["w"], params["w"] + np.float32(0.01), 0).astype(np.float32)}
    settings, shared, sums = LOSSY._replace(feedback=True), {}, []
    for t in range(1, 41):  # the same difference again and again: what arrives of it, in sum, is what was meant
        _, received, shared = transmit(settings, shared, (t, 1), [0, 1], Payload(near, masks), base=params)
        sums.append(np.asarray(received.params["w"]) - params["w"])
    plain = transmit(LOSSY, {}, (1, 1), [0, 1], Payload(near, masks)).received
    meant = near["w"] - params["w"]
    assert np.abs(sums[0] - meant).max() < 0.05 * np.abs(plain.params["w"] - near["w"]).max()
    residuals = np.stack([shared[client].residual["w"] for client in (0, 1)])
    np.testing.assert_allclose(np.sum(sums, 0) + residuals, 40 * meant, atol=1e-4)
    assert np.abs(shared[0].residual["w"]).max() < 0.02 / 127


def test_a_message_down_leaves_the_residual_of_each_client():
    residual = lambda value: {"w": np.full((3, 4), value, np.float32)}
    mask = model(0, 5)[1]
    shared = {0: ClientRecord(mask, residual(1.0)), 1: ClientRecord(mask, residual(2.0))}
    settings = MessageSettings("transmit", "int8", feedback=True)
    after = transmit(settings, shared, (1, 0), [0, 1], Payload(*model(0, 5, 1)), same_for_all=True).shared_masks
    assert [float(after[client].residual["w"][0, 0]) for client in (0, 1)] == [1.0, 2.0]


def test_what_both_sides_know_survives_a_stop(tmp_path):
    mask = model(0, 5)[1]
    residual = {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}
    shared = {3: ClientRecord(mask), 8: ClientRecord(mask, residual), 5: ClientRecord(model(0, 2)[1])}
    for round_ in (1, 2, 3, 10):
        save_records(shared, tmp_path / "client_records", round_)
    forget_records(tmp_path / "client_records", {3, 9, 10})
    assert sorted(path.name for path in (tmp_path / "client_records").iterdir()) == ["10.npz", "3.npz"]
    loaded = load_records(tmp_path / "client_records", 10, mask)
    assert loaded.keys() == shared.keys() and loaded[3].masks is loaded[8].masks
    jax.tree.map(np.testing.assert_array_equal, loaded, shared)
    assert load_records(tmp_path / "client_records", 3, mask)[8].residual["w"][2, 3] == 11
    assert load_records(tmp_path / "client_records", 2, mask) == {}


@pytest.mark.parametrize("placement", ["server", "client"])
def test_transmit_gives_what_off_gives_bit_for_bit_and_measure_its_sizes(tmp_path, placement):
    run = lambda mode: run_experiment(
        toy_federation.experiment(placement=placement, mode=mode), tmp_path / mode, print_fn=QUIET
    )
    records = {mode: run(mode) for mode in MODES}
    digests = {checkpoint.state_digest(final_state(tmp_path / mode)) for mode in MODES}
    assert len(digests) == 1
    assert without_time(records["measure"]) == without_time(records["transmit"])
    assert "bytes_up" not in records["off"][0].to_json()
    last = records["measure"][-1]
    assert last.bytes_up_total == sum(sum(record.bytes_up) for record in records["measure"])
    assert len(last.bytes_down) == len(last.cohort) == 2
    assert sum(last.bytes_up) < sum(records["measure"][0].bytes_up)


@pytest.mark.parametrize(
    "settings",
    [MessageSettings("measure"), MessageSettings("transmit", "int8", feedback=True)],
    ids=lambda settings: settings.mode,
)
def test_bytes_of_a_resumed_run_are_those_of_an_uninterrupted_one(tmp_path, settings):
    experiment = toy_federation.experiment(placement="client", messages=settings)
    whole = run_experiment(experiment, tmp_path / "whole", print_fn=QUIET)
    with pytest.raises(Killed):
        run_experiment(experiment, tmp_path / "parts", print_fn=stop_after(3))
    parts = run_experiment(experiment, tmp_path / "parts", print_fn=QUIET)
    assert without_time(whole) == without_time(parts)
    digests = {checkpoint.state_digest(final_state(tmp_path / name)) for name in ("whole", "parts")}
    assert len(digests) == 1
    json.dumps([record.to_json() for record in parts])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (MessageSettings("on"), "^mode is 'on': it must be one of off, measure, transmit"),
        (MessageSettings("transmit", "int4"), "^dtype is 'int4': it must be one of float32, bfloat16"),
        (MessageSettings("measure", "int8"), "^dtype is 'int8': .*set mode to 'transmit'"),
        (MessageSettings("transmit", feedback=True), "^feedback is True: .*'float32' loses nothing"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=message) as refusal:
        check_settings(settings)
    assert isinstance(refusal.value, UsageError)

"""What crosses the network in a round: sizes that are those of real messages, and a run that goes through them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax import communication
from fedsparse_jax.communication import transport
from fedsparse_jax.communication.transport import Known
from fedsparse_jax.core.types import Sent, UsageError
from fedsparse_jax.runs import checkpoint, loop
from tests.helpers import toy_federation
from tests.runs.test_loop import Killed, final_state, stop_after, without_time

MEASURE, THROUGH = transport.Wire("measure"), transport.Wire("through")


def model(seed, kept, clients=None):
    """Weights of 3 x 4, and a mask that keeps the first ``kept``; stacked for ``clients``."""
    mask = (np.arange(12) < kept).reshape(3, 4)
    weights = np.where(mask, np.random.default_rng(seed).normal(size=(3, 4)), 0).astype(np.float32)
    stack = lambda leaf: {"w": leaf if clients is None else np.stack([leaf] * clients)}
    return stack(weights), stack(mask)


def length(update, known=None):
    return len(communication.encode(communication.Update(*update), communication.context(update[0], known)))


def test_sizes_are_those_of_real_messages_to_what_each_client_holds():
    dense, sparse = model(0, 12), model(1, 5)
    first = transport.cross(MEASURE, {}, (1, 0), [4, 7], Sent(*model(0, 12, 1)), shared=True)
    assert first.sizes == [length(dense)] * 2
    # Client 4 holds the dense mask, client 9 nothing; 4 is told what was pruned, 9 the whole mask.
    second = transport.cross(MEASURE, first.held, (2, 0), [4, 9], Sent(*model(1, 5, 1)), shared=True)
    assert second.sizes == [length(sparse, dense[1]), length(sparse)]
    # Up, 4 keeps its mask and 9 has pruned on.
    pruned = model(2, 3)
    both = jax.tree.map(lambda a, b: np.stack([a, b]), sparse, pruned)
    third = transport.cross(MEASURE, second.held, (2, 1), [4, 9], Sent(*both))
    assert third.sizes == [length(sparse, sparse[1]), length(pruned, sparse[1])]
    kept = lambda held: {client: int(known.masks["w"].sum()) for client, known in held.items()}
    assert kept(third.held) == {4: 5, 9: 3, 7: 12}
    # Nobody's record of an earlier moment has changed: another thread may be keeping it.
    assert (kept(first.held), kept(second.held)) == ({4: 12, 7: 12}, {4: 5, 9: 5, 7: 12})


def test_scores_are_sent_too():
    params, kept = model(0, 5, 1)
    scores = {"w": jnp.arange(12.0).reshape(1, 3, 4)}
    without = transport.cross(MEASURE, {}, (1, 1), [0], Sent(params, kept)).sizes
    sizes, arrived, _ = transport.cross(THROUGH, {}, (1, 1), [0], Sent(params, kept, (None, scores)))
    given = jax.tree.map(lambda leaf: np.asarray(leaf[0]), scores)
    assert sizes[0] - without[0] == length((given, {"w": given["w"] != 0}))
    assert arrived.scores[0] is None
    np.testing.assert_array_equal(arrived.scores[1]["w"], scores["w"])


def test_lossy_values_arrive_as_they_were_sent_and_depend_on_the_round():
    sent, lossy = Sent(*model(0, 8, 2)), transport.Wire("through", "int8", seed=3)
    once, again, later = (
        transport.cross(lossy, {}, (t, 1), [0, 1], sent).arrived.params["w"] for t in (1, 1, 2)
    )
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, later) and not np.array_equal(once[0], once[1])
    np.testing.assert_allclose(once, sent.params["w"], atol=np.abs(sent.params["w"]).max() / 127)


def test_feedback_sends_differences_and_in_the_end_everything():
    params, kept = model(0, 8, 2)
    near = jax.tree.map(
        lambda leaf: np.where(kept["w"], leaf + np.float32(0.01), 0).astype(np.float32), params
    )
    lossy, held, sums = transport.Wire("through", "int8", feedback=True, seed=3), {}, []
    for t in range(
        1, 41
    ):  # the same difference again and again: what arrives of it, in sum, is what was meant
        _, arrived, held = transport.cross(lossy, held, (t, 1), [0, 1], Sent(near, kept), base=params)
        sums.append(np.asarray(arrived.params["w"]) - params["w"])
    plain = transport.cross(
        transport.Wire("through", "int8", seed=3), {}, (1, 1), [0, 1], Sent(near, kept)
    ).arrived
    meant = near["w"] - params["w"]
    assert np.abs(sums[0] - meant).max() < 0.05 * np.abs(plain.params["w"] - near["w"]).max()
    np.testing.assert_allclose(
        np.sum(sums, 0) + np.stack([held[k].owed["w"] for k in (0, 1)]), 40 * meant, atol=1e-4
    )
    assert np.abs(held[0].owed["w"]).max() < 0.02 / 127


def test_a_message_down_leaves_what_each_client_owes():
    owed = lambda value: {"w": np.full((3, 4), value, np.float32)}
    mask = model(0, 5)[1]
    held = {0: Known(mask, owed(1.0)), 1: Known(mask, owed(2.0))}
    lossy = transport.Wire("through", "int8", feedback=True)
    after = transport.cross(lossy, held, (1, 0), [0, 1], Sent(*model(0, 5, 1)), shared=True).held
    assert [float(after[client].owed["w"][0, 0]) for client in (0, 1)] == [1.0, 2.0]


def test_what_is_held_survives_a_stop(tmp_path):
    shared = model(0, 5)[1]
    owed = {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}
    held = {3: Known(shared), 8: Known(shared, owed), 5: Known(model(0, 2)[1])}
    for round_ in (1, 2, 3, 10):
        transport.save(held, tmp_path, round_, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10.npz", "3.npz"]
    found = transport.restore(tmp_path, 10, shared)
    assert found.keys() == held.keys() and found[3].masks is found[8].masks
    jax.tree.map(np.testing.assert_array_equal, found, held)
    assert transport.restore(tmp_path, 3, shared)[8].owed["w"][2, 3] == 11
    assert transport.restore(tmp_path, 2, shared) == {}


@pytest.mark.parametrize("placement", ["server", "client"])
def test_through_gives_what_off_gives_bit_for_bit_and_measure_its_sizes(tmp_path, placement):
    records = {
        mode: loop.run(
            toy_federation.experiment(placement=placement, wire=transport.Wire(mode)),
            tmp_path / mode,
            say=lambda _: None,
        )
        for mode in transport.MODES
    }
    digests = {checkpoint.digest(final_state(tmp_path / mode)) for mode in transport.MODES}
    assert len(digests) == 1
    assert without_time(records["measure"]) == without_time(records["through"])
    assert "bytes_up" not in records["off"][0]
    last = records["measure"][-1]
    assert last["bytes_up_total"] == sum(sum(record["bytes_up"]) for record in records["measure"])
    assert len(last["bytes_down"]) == len(last["cohort"]) == 2
    assert sum(last["bytes_up"]) < sum(records["measure"][0]["bytes_up"])


@pytest.mark.parametrize(
    "wire",
    [transport.Wire("measure"), transport.Wire("through", "int8", feedback=True)],
    ids=lambda w: w.mode,
)
def test_bytes_of_a_resumed_run_are_those_of_an_uninterrupted_one(tmp_path, wire):
    one = lambda: toy_federation.experiment(placement="client", wire=wire)
    whole = loop.run(one(), tmp_path / "whole", say=lambda _: None)
    with pytest.raises(Killed):
        loop.run(one(), tmp_path / "parts", say=stop_after(3))
    parts = loop.run(one(), tmp_path / "parts", say=lambda _: None)
    assert without_time(whole) == without_time(parts)
    digests = {checkpoint.digest(final_state(tmp_path / name)) for name in ("whole", "parts")}
    assert len(digests) == 1
    json.dumps(parts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (transport.Wire("on"), "wire.mode is 'on'"),
        (transport.Wire("through", "int4"), "wire.dtype is 'int4'"),
        (transport.Wire("measure", "int8"), "set wire.mode to 'through'"),
        (transport.Wire("through", feedback=True), "'float32' loses nothing"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(UsageError, match=message):
        transport.check(settings)

"""Plans of indices: everybody's examples once an epoch, drawn from seed, round and client alone."""

import numpy as np
import pytest

from fedsparse_jax.data import batching

MEMBERS = [np.arange(0, 7), np.arange(7, 9), np.arange(9, 20)]


def plan_of(client_ids, seed=0, round_=1, steps=8):
    return batching.plan_batches(seed, round_, client_ids, MEMBERS, batch_size=3, epochs=2, steps=steps)


# --- who takes part -----------------------------------------------------------------------------


def test_a_cohort_is_drawn_without_replacement_and_in_order():
    drawn = [batching.sample_clients(3, round_, 10, 4).tolist() for round_ in range(50)]
    assert all(len(set(ids)) == 4 and ids == sorted(ids) for ids in drawn)
    assert set(np.concatenate(drawn)) == set(range(10))
    assert batching.sample_clients(3, 7, 10, 4).tolist() == drawn[7] != batching.sample_clients(4, 7, 10, 4).tolist()


def test_where_all_take_part_nobody_is_drawn():
    assert batching.sample_clients(3, 1, 4, 4).tolist() == [0, 1, 2, 3]


# --- training batches ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "batch_size", "epochs", "steps"), [(7, 3, 1, 3), (6, 3, 1, 2), (7, 3, 2, 6), (1, 8, 5, 5)]
)
def test_steps_by_hand(count, batch_size, epochs, steps):
    assert batching.num_steps(count, batch_size, epochs) == steps


def test_every_example_comes_once_in_every_epoch():
    plan = plan_of([0, 1, 2])
    assert plan.rows.shape == plan.valid.shape == (3, 8, 3)
    for rows, valid, own in zip(plan.rows, plan.valid, MEMBERS):
        per_epoch = -(-len(own) // 3)
        for epoch in range(2):
            steps = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
            assert sorted(rows[steps][valid[steps]]) == own.tolist()
        assert not valid[2 * per_epoch :].any()


def test_only_the_last_batch_of_an_epoch_is_smaller():
    # 7 examples in batches of 3: 3, 3, 1, and again; 2 steps of padding.
    assert plan_of([0]).valid[0].sum(-1).tolist() == [3, 3, 1, 3, 3, 1, 0, 0]


def test_the_order_is_drawn_from_seed_round_and_client_alone():
    together, alone = plan_of([0, 1, 2]), plan_of([2], steps=11)
    assert alone.rows[0, :8].tolist() == together.rows[2].tolist()
    assert plan_of([2], seed=1).rows.tolist() != plan_of([2]).rows.tolist() != plan_of([2], round_=2).rows.tolist()


# --- batches that are scored --------------------------------------------------------------------


def test_scored_batches_show_no_example_twice():
    plan = batching.plan_scored_batches(0, 1, [1, 2], MEMBERS, batch_size=2, batches=3)
    assert plan.rows.shape == (2, 3, 2)
    assert sorted(plan.rows[0][plan.valid[0]]) == [7, 8]  # a client with fewer examples shows each of them
    assert len(set(plan.rows[1][plan.valid[1]])) == 6 and set(plan.rows[1].ravel()) <= set(MEMBERS[2])


def test_scored_batches_are_drawn_apart_from_training():
    scored = batching.plan_scored_batches(0, 1, [2], MEMBERS, batch_size=3, batches=4)
    assert scored.rows[0][scored.valid[0]].tolist() != plan_of([2]).rows[0, :4][scored.valid[0]].tolist()


# --- pieces of a plan ---------------------------------------------------------------------------


def test_pieces_of_a_plan_are_of_equal_length_and_hold_everything():
    plan = plan_of([0, 2], steps=8)  # 6 and 8 steps
    pieces = list(batching.split_plan(plan, 3))
    assert [piece.rows.shape for piece in pieces] == [(2, 3, 3)] * 3
    joined = [np.concatenate(leaves, axis=1) for leaves in zip(*pieces)]
    assert joined[0][:, :8].tolist() == plan.rows.tolist() and joined[1][:, :8].tolist() == plan.valid.tolist()
    assert not joined[1][:, 8:].any()


def test_pieces_without_an_example_are_left_out():
    assert len(list(batching.split_plan(plan_of([1], steps=8), 2))) == 1  # 2 steps of 8


# --- clients of like size -----------------------------------------------------------------------


def test_the_largest_clients_come_first_and_are_dealt_out_to_devices():
    ids, sizes = np.array([0, 1, 2, 3]), np.array([5, 9, 1, 7])
    assert batching.largest_first(ids, sizes).tolist() == [1, 3, 0, 2]
    assert batching.largest_first(ids, sizes, devices=2).tolist() == [1, 0, 3, 2]
    assert batching.largest_first(ids, np.array([2, 2, 3, 2])).tolist() == [2, 0, 1, 3]  # equals in their order


@pytest.mark.parametrize(
    ("num_parallel", "devices", "steps_per_chunk", "idle"),
    [
        (1, 1, None, 0.0),  # one after another: nobody waits
        (3, 1, None, 1 - 7 / 12),  # all at once: 3 lanes of 4 steps
        (2, 1, None, 1 - 7 / 8),  # the second lane takes both small ones: 4 and 3 steps
        (1, 3, None, 0.0),  # a device each: none computes for nobody
        (2, 2, None, 1 - 7 / 9),  # two lanes of 4 steps on the first device, one of 1 on the second
        (3, 1, 2, 1 - (5 + 2) / (6 + 6)),  # two chunks of 2 steps: 2 + 2 + 1 of 6, and 2 of 6
    ],
)
def test_padding_by_hand(num_parallel, devices, steps_per_chunk, idle):
    needed = np.array([[True] * 4, [True, True, False, False], [True, False, False, False]])
    share = batching.padding_share(needed, num_parallel, devices, steps_per_chunk)
    assert share == pytest.approx(idle)

"""A schedule that looks: it waits, pauses, and ends in time, alone and within a round."""

import numpy as np
import pytest

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.sparsity.pacing import paced


def sparsities(schedule, losses):
    """What is asked in each round, round by round, by what was reported before."""
    pace, asked = schedule.init(), []
    for t, loss in enumerate(losses, 1):
        asked.append(float(schedule(t, pace)))
        pace = schedule.update(pace, t, np.float32(loss))
    return np.array(asked)


def test_it_waits_for_the_loss_to_fall_and_then_follows_the_curve_of_the_gradual_schedule():
    asked = sparsities(paced(0.9, rounds=40, steps=0.1), [10] * 5 + [4] * 10)
    p = np.clip((np.arange(1, 16) - 6) / 4, 0, 1)  # the first good loss is that of round 6
    np.testing.assert_allclose(asked, 0.9 * (1 - (1 - p) ** 3), atol=1e-6)


def test_it_pauses_while_the_loss_is_high_and_never_goes_back():
    asked = sparsities(paced(0.9, rounds=40, steps=0.1), [10, 4, 4, 8, 8, 4, 4, 4])
    assert (np.diff(asked) >= 0).all() and asked[3] == asked[4] == asked[5] < asked[6] < asked[7] == np.float32(0.9)


@pytest.mark.parametrize("loss", [10.0, np.nan])
def test_it_ends_in_time_and_exactly_whatever_is_reported(loss):
    schedule = paced(0.95, rounds=20, steps=0.25, recover=0.4)
    asked = sparsities(schedule, [loss] * 20)
    assert (asked[:7] == 0).all() and (np.diff(asked[6:12]) > 0).all() and (asked[11:] == np.float32(0.95)).all()
    np.testing.assert_array_equal(asked, [float(schedule(t)) for t in range(1, 21)])  # the least it asks for


def test_lost_reports_change_nothing():
    whole, lost = (
        sparsities(paced(0.9, rounds=40, steps=0.1), [10, *losses]) for losses in ([4, 4, 4], [4, np.nan, 4])
    )
    assert lost[3] == whole[2] < whole[3]


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [(dict(final=2), "final"), (dict(steps=4), "steps"), (dict(learned=0), "learned"), (dict(recover=1), "recover")],
)
def test_what_makes_no_sense_is_refused(wrong, argument):
    with pytest.raises(ArgumentError, match=f"^{argument} is"):
        paced(**wrong)


def test_by_itself_it_leaves_a_fifth_of_the_rounds_to_recover():
    never = [float(paced(0.95, rounds=40)(t)) for t in range(1, 41)]
    assert never.index(np.float32(0.95)) + 1 == 32 and sum(0 < s < 0.95 for s in map(np.float32, never)) == 19
    assert [float(paced(0.95, rounds=3)(t)) for t in (1, 2, 3)] == pytest.approx([0.83125, 0.95, 0.95])

"""Aggregation rules by hand and against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.federated import aggregation
from tests.helpers import numpy_reference

PARAMS = {"w": jnp.array([[1.0, 0.0, 3.0], [3.0, 4.0, 0.0], [0.0, 0.0, 6.0]])}
MASKS = {"w": jnp.array([[True, False, True], [True, True, False], [False, False, True]])}
WEIGHTS = jnp.array([1.0, 1.0, 2.0])


def test_mean_by_hand():
    params, masks = aggregation.mean(PARAMS, MASKS, WEIGHTS)
    assert params["w"].tolist() == [1.0, 1.0, 3.75]  # (1+3)/4, 4/4, (3+12)/4
    assert masks["w"].tolist() == [True, True, True]


def test_majority_vote_by_hand():
    params, masks = aggregation.majority_vote(PARAMS, MASKS, WEIGHTS)
    assert masks["w"].tolist() == [True, False, True]  # votes 2, 1, 2 of 3
    assert params["w"].tolist() == [1.0, 0.0, 3.75]


def test_an_absent_client_has_no_vote():
    params, masks = aggregation.majority_vote(PARAMS, MASKS, jnp.array([1.0, 0.0, 2.0]))
    assert masks["w"].tolist() == [True, False, True]  # votes 1, 0, 2 of 2: half is enough
    np.testing.assert_allclose(params["w"], [1 / 3, 0.0, 5.0], rtol=1e-6)


def test_an_absent_client_may_be_nan():
    params, _ = aggregation.mean(
        {"w": jnp.array([[1.0], [jnp.nan]])}, {"w": jnp.ones((2, 1), bool)}, jnp.array([2.0, 0.0])
    )
    assert params["w"].tolist() == [1.0]


def test_keepers_mean_by_hand():
    params, masks = aggregation.keepers_mean(PARAMS, MASKS, WEIGHTS)
    assert params["w"].tolist() == [2.0, 4.0, 5.0]  # (1+3)/2, 4/1, (3+12)/3
    assert masks["w"].tolist() == [True, True, True]
    params, _ = aggregation.keepers_mean(PARAMS, MASKS, WEIGHTS, weighted=False)
    assert params["w"].tolist() == [2.0, 4.0, 4.5]


def test_vote_keepers_by_hand():
    params, masks = aggregation.vote_keepers(PARAMS, MASKS, WEIGHTS)
    assert params["w"].tolist() == [2.0, 0.0, 5.0] and masks["w"].tolist() == [True, False, True]


def test_median_and_trimmed_mean_by_hand():
    values = {"w": jnp.array([[1.0, -9.0], [2.0, 4.0], [3.0, 0.0], [100.0, 5.0], [7.0, 1.0]])}
    masks = {"w": jnp.array([[True, True], [True, True], [True, False], [True, True], [True, True]])}
    weights = jnp.array([1.0, 5.0, 1.0, 1.0, 0.0])
    assert aggregation.median(values, masks, weights)[0]["w"].tolist() == [2.5, 2.0]  # the last is absent
    assert aggregation.median(values, masks, jnp.ones(5))[0]["w"].tolist() == [3.0, 1.0]
    trimmed, _ = aggregation.trimmed_mean(values, masks, weights, trim=0.25)
    assert trimmed["w"].tolist() == [2.5, 2.0]  # (2+3)/2, (0+4)/2
    assert aggregation.trimmed_mean(values, masks, weights, trim=0.2)[0]["w"].tolist() == [26.5, 0.0]


@pytest.mark.parametrize(
    ("quorum", "needed"),
    [
        ("strict_majority", [1, 2, 2, 3, 3, 4, 4, 5]),
        ("at_least_half", [1, 1, 2, 2, 3, 3, 4, 4]),
        ("as_coded", [0, 1, 1, 2, 2, 3, 3, 4]),
        (1.0, [1, 2, 3, 4, 5, 6, 7, 8]),
        (0.3, [1, 1, 1, 2, 2, 2, 3, 3]),
    ],
)
def test_quorums_by_hand(quorum, needed):
    for n, votes in enumerate(needed, 1):
        ballots = {"w": jnp.arange(n)[:, None] < jnp.arange(n + 1)[None]}  # column v has v votes
        elected = aggregation.elect(ballots, jnp.ones(n, bool), quorum)["w"]
        assert elected.tolist() == [v >= votes for v in range(n + 1)]


@pytest.mark.parametrize("quorum", ["most", 0.0, 1.5, float("nan")])
def test_impossible_quorums_are_refused(quorum):
    with pytest.raises(ArgumentError, match=rf"^quorum is {quorum!r}: it must be one of strict_majority, "):
        aggregation.majority_vote(PARAMS, MASKS, WEIGHTS, quorum=quorum)


def test_an_impossible_trim_is_refused():
    with pytest.raises(ArgumentError, match="^trim is 0.5: "):
        aggregation.trimmed_mean(PARAMS, MASKS, WEIGHTS, trim=0.5)


def test_krum_takes_one_of_the_crowd_and_multi_krum_their_mean():
    """Four of five agree within .3; the fifth lies, with the weight of a thousand examples."""
    values = {"w": jnp.array([[1.0], [1.1], [1.2], [1.3], [50.0]])}
    masks, weights = {"w": jnp.ones((5, 1), bool)}, jnp.array([1.0, 1.0, 1.0, 1.0, 1000.0])
    assert float(aggregation.mean(values, masks, weights)[0]["w"][0]) > 49
    # Two neighbours each: squared distances .05, .02, .02, .05; the lower sum to all others decides between two.
    assert float(aggregation.krum(values, masks, weights)[0]["w"][0]) == pytest.approx(1.2)
    assert float(aggregation.multi_krum(values, masks, weights)[0]["w"][0]) == pytest.approx(1.15)


def test_who_casts_too_many_votes_has_none():
    ballots = {"w": jnp.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)}
    values, weights = {"w": jnp.where(ballots["w"], 3.0, 0.0)}, jnp.ones(4)
    assert aggregation.majority_vote(values, ballots, weights)[1]["w"].tolist() == [True, True, False, False]
    params, elected = aggregation.capped_vote(values, ballots, weights, values="mean")
    assert elected["w"].tolist() == [True, False, False, False]
    assert params["w"].tolist() == [2.25, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("rule", "options"), [("krum", {"malicious": -1}), ("capped_vote", {"slack": -0.1}),
                                               ("capped_vote", {"values": "sum"})])  # fmt: skip
def test_impossible_options_of_robust_rules_are_refused(rule, options):
    with pytest.raises(ArgumentError, match=f"^{next(iter(options))} is "):
        aggregation.AGGREGATORS[rule](PARAMS, MASKS, WEIGHTS, **options)


OPTIONS = [("mean", {}), ("keepers_mean", {}), ("keepers_mean", {"weighted": False}), ("vote_keepers", {}),
           ("median", {}), ("trimmed_mean", {"trim": 0.25}), ("trimmed_mean", {}), ("krum", {}), ("multi_krum", {}),
           ("multi_krum", {"malicious": 2}), ("capped_vote", {"slack": 0.6}), ("capped_vote", {"values": "mean"})] + [
    ("majority_vote", {"quorum": quorum}) for quorum in (*aggregation.QUORUMS, 0.25, 0.75, 1.0)
]  # fmt: skip


def test_every_rule_has_a_reference():
    assert {name for name, _ in OPTIONS} == set(aggregation.AGGREGATORS) == set(numpy_reference.AGGREGATORS)


@functools.cache
def compiled(name, options):
    return jax.jit(functools.partial(aggregation.AGGREGATORS[name], **dict(options)))


@pytest.mark.parametrize(("name", "options"), OPTIONS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_agrees_with_numpy(name, options, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((5, 4, 3)) < 0.5
    params = np.where(masks, rng.normal(size=(5, 4, 3)), 0).astype(np.float32)
    weights = rng.integers(0, 4, 5).astype(np.float32)
    weights[0] = 1
    expected = numpy_reference.AGGREGATORS[name](params, masks, weights, **options)
    rule = compiled(name, tuple(options.items()))
    merged, mask = rule({"w": jnp.array(params)}, {"w": jnp.array(masks)}, jnp.array(weights))
    np.testing.assert_array_equal(mask["w"], expected[1])
    np.testing.assert_allclose(merged["w"], expected[0], atol=1e-6)

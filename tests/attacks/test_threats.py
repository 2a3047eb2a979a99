"""Who knows what, and who goes into which shadow."""

import numpy as np
import pytest

from fedsparse_jax.attacks.evidence import Snapshot, shadow_halves
from fedsparse_jax.attacks.threats import (
    client_attacks_client,
    every_pair_of_clients,
    evidence_for,
    outsider_attacks,
    server_attacks_client,
)
from fedsparse_jax.core.errors import UsageError

MEMBERS = [np.arange(start, start + 10 + client) for client, start in enumerate(range(0, 160, 20))]
TEST = np.arange(200, 240)


def everything():
    return [
        server_attacks_client(MEMBERS, TEST, victim=2),
        client_attacks_client(MEMBERS, TEST, 1, 4),
        outsider_attacks(MEMBERS, TEST),
        *every_pair_of_clients(MEMBERS, TEST),
    ]


def test_nobody_is_known_and_scored_and_the_truth_is_true():
    for threat in everything():
        trained_on = np.concatenate(MEMBERS)
        assert np.isin(threat.members, trained_on).all() and np.isin(threat.outsiders, TEST).all()
        np.testing.assert_array_equal(np.isin(threat.scored, trained_on), threat.inside)
        rows = np.concatenate([threat.members, threat.outsiders, threat.scored])
        assert len(rows) == len(set(rows.tolist()))
        assert threat.inside.any() and not threat.inside.all()


def test_56_pairs_among_8():
    pairs = every_pair_of_clients(MEMBERS, TEST)
    assert len(pairs) == len({threat.name for threat in pairs}) == 56
    pair = next(threat for threat in pairs if threat.name == "L2->L5")
    assert pair.models == 5
    assert pair.members.tolist() == MEMBERS[1].tolist()
    assert pair.scored[pair.inside].tolist() == MEMBERS[4].tolist()
    assert len(pair.outsiders) == len(pair.scored[~pair.inside]) == 20


def test_the_server_keeps_some_models_and_knows_a_share():
    threat = server_attacks_client(MEMBERS, TEST, victim=2, known=0.25, models=3)
    assert (threat.name, threat.models) == ("server->L3", 3)
    assert len(threat.members) == 3 and np.isin(threat.members, MEMBERS[2]).all()
    assert set(threat.members) | set(threat.scored[threat.inside]) == set(MEMBERS[2])
    assert len(server_attacks_client(MEMBERS, TEST, victim=2, known=0).members) == 0


def test_the_outsider_has_one_model_and_people_of_all_clients():
    threat = outsider_attacks(MEMBERS, TEST, known=0.5)
    assert (threat.name, threat.models) == ("outsider", 1)
    assert set(threat.members) | set(threat.scored[threat.inside]) == set(np.concatenate(MEMBERS))


def test_the_seed_alone_decides():
    again = lambda seed: outsider_attacks(MEMBERS, TEST, seed=seed).scored.tolist()
    assert again(1) == again(1) != again(2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: client_attacks_client(MEMBERS, TEST, 3, 3),
        lambda: server_attacks_client(MEMBERS, TEST, victim=0, known=1.0),
    ],
)
def test_impossible_threats(make):
    with pytest.raises(UsageError, match="itself|nobody is left"):
        make()


def test_the_evidence_is_what_the_threat_says_and_holds_no_truth():
    threat, model = client_attacks_client(MEMBERS, TEST, 1, 4, models=2), Snapshot({}, {})
    evidence = evidence_for(threat, (model, model), lambda *_: {}, np.zeros(240))
    assert evidence.scored is threat.scored
    assert evidence.members is threat.members and evidence.outsiders is threat.outsiders
    assert evidence.shadows is None and not any(value is threat.inside for value in evidence)
    with pytest.raises(UsageError, match="1 to 2"):
        evidence_for(threat, (model,) * 3, lambda *_: {}, np.zeros(240))


@pytest.mark.parametrize("people, count", [(10, 6), (11, 4), (2, 2)])
def test_halves_are_balanced_both_ways(people, count):
    inside = shadow_halves(people, count, seed=3)
    assert inside.shape == (count, people) and inside.dtype == bool
    assert (inside.sum(0) == count // 2).all()
    assert set(inside.sum(1).tolist()) <= {people // 2, people - people // 2}


def test_halves_are_drawn_pair_by_pair():
    few, many = shadow_halves(40, 4, seed=3), shadow_halves(40, 8, seed=3)
    np.testing.assert_array_equal(many[:4], few)
    np.testing.assert_array_equal(many[::2], ~many[1::2])
    assert len({row.tobytes() for row in many}) == 8 and (shadow_halves(40, 4, seed=4) != few).any()


@pytest.mark.parametrize("people, count", [(10, 3), (10, 0), (1, 2)])
def test_impossible_halves(people, count):
    with pytest.raises(UsageError, match="even number|halves"):
        shadow_halves(people, count, seed=0)

"""Who knows what, and who goes into which shadow."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.attacks import statistics
from fedsparse_jax.attacks.evidence import Snapshot, shadow_halves
from fedsparse_jax.attacks.features import feature_cache
from fedsparse_jax.attacks.membership import white_box
from fedsparse_jax.attacks.threats import (
    client_attacks_client,
    every_pair_of_clients,
    evidence_for,
    outsider_attacks,
    server_attacks_client,
)
from fedsparse_jax.core import masks
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


@pytest.mark.parametrize("scans", [1, 2, 3])
def test_people_are_divided_and_not_their_scans(scans):
    """Row ``r`` is a scan of person ``r // scans``: whoever is known is known with all scans, and never scored."""
    who = np.repeat(np.arange(240), scans)
    rows = lambda people: np.flatnonzero(np.isin(who, people))
    members, test = [rows(people) for people in MEMBERS], rows(TEST)
    for threat, alone in zip(
        [
            server_attacks_client(members, test, victim=2, who=who),
            client_attacks_client(members, test, 1, 4, who=who),
            outsider_attacks(members, test, who=who),
        ],
        everything(),
    ):
        known, scored = who[np.concatenate([threat.members, threat.outsiders])], who[threat.scored]
        assert not set(known) & set(scored) and (np.bincount(known)[np.unique(known)] == scans).all()
        assert set(scored) == set(alone.scored)  # the people are chosen as where each has one scan


@pytest.mark.parametrize("scans", [1, 2, 3])
def test_a_model_that_nobody_trained_gives_nothing_away(scans):
    def auc_of(seed, people=120):
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(people), scans)
        inputs = rng.normal(size=(people, 12))[who] + 0.05 * rng.normal(size=(len(who), 12))
        ages, inside = rng.uniform(45, 80, people)[who], np.isin(who, rng.permutation(people)[: people // 2])
        kernel = jnp.asarray(rng.normal(size=(12, 1)), jnp.float32)
        params = {"head": {"bias": jnp.full((1,), 62.0), "kernel": kernel}}
        models = (Snapshot(params, masks.ones(params)),)
        apply = lambda p, x: (x @ p["head"]["kernel"])[:, 0] + p["head"]["bias"][0]
        threat = outsider_attacks([np.flatnonzero(inside)], np.flatnonzero(~inside), seed=seed, who=who)
        observe = feature_cache(apply, models, inputs.astype(np.float32), ages.astype(np.float32))
        scores = white_box()(evidence_for(threat, models, observe, ages))
        return statistics.auc(*statistics.split_scores(scores, threat.inside))

    aucs = [auc_of(seed) for seed in range(6)]
    assert abs(np.mean(aucs) - 0.5) < 2.6 * np.std(aucs, ddof=1) / 6**0.5 + 0.02  # .64 and .73 where scans were divided


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

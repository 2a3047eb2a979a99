"""The contract of attacks, met by every member of ATTACKS; features by hand; what an attacker may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from fedsparse_jax.attacks import controls, evaluate, feature_classifier, features, membership, statistics
from fedsparse_jax.attacks.evidence import (
    NOBODY,
    Evidence,
    MissingEvidence,
    Shadows,
    Snapshot,
    others_than,
    shadow_halves,
)
from fedsparse_jax.attacks.features import FEATURES, example_features, feature_cache
from fedsparse_jax.attacks.membership import ATTACKS
from fedsparse_jax.core import masks
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.tree import leaf_names
from fedsparse_jax.models.flat_cnn import flat_cnn
from tests.helpers import memorising_network
from tests.helpers.count_traces import count_traces

MADE = {name: make() for name, make in ATTACKS.items()} | {
    f"{name}:{key}={value}": ATTACKS[name](**{key: value})
    for name, key, value in (
        ("lira_online", "statistic", "log_error"),
        ("lira_online", "variance", "each"),
        ("lira_offline", "statistic", "log_error"),
        ("rmia", "offset", 1.0),
    )
}


def auc(scores, inside):
    return statistics.auc(*statistics.split_scores(scores, inside))


@pytest.mark.parametrize("name", MADE)
class TestAttacks:
    def test_finds_what_was_learned_by_heart(self, name):
        evidence, inside = memorising_network.evidence("memorised")
        assert auc(MADE[name](evidence), inside) > 0.9

    @pytest.mark.parametrize("kind", ["untrained", "elsewhere"])
    def test_finds_nothing_where_nothing_is(self, name, kind):
        evidence, inside = memorising_network.evidence(kind)
        scores = statistics.split_scores(MADE[name](evidence), inside)
        estimate = statistics.bootstrap(statistics.auc, *scores, draws=400, level=0.99)
        assert estimate.low < 0.5 < estimate.high

    def test_scores_are_finite_repeatable_and_of_the_person(self, name):
        evidence, _ = memorising_network.evidence("memorised")
        scores = MADE[name](evidence)
        assert scores.shape == (len(evidence.scored),) and scores.dtype == np.float64
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(MADE[name](evidence), scores)
        order = np.random.default_rng(0).permutation(len(scores))
        again = MADE[name](evidence._replace(scored=evidence.scored[order]))
        np.testing.assert_allclose(again, scores[order], rtol=1e-5, atol=1e-5)

    def test_reads_nobody_who_is_not_in_the_evidence(self, name):
        evidence, _ = memorising_network.evidence("memorised")
        evidence = evidence._replace(
            scored=evidence.scored[::3], outsiders=evidence.outsiders[::2], members=evidence.members[::2]
        )
        named = np.concatenate([evidence.scored, evidence.members, evidence.outsiders])
        secret = np.setdiff1d(np.arange(memorising_network.PEOPLE), named)
        scores, w = MADE[name](evidence), memorising_network.world()
        inputs, targets = (leaf.copy() for leaf in w[:2])
        inputs[secret], targets[secret] = np.nan, np.nan
        predictions = evidence.shadows.predictions.copy()
        predictions[:, secret] = np.nan
        blind = evidence._replace(
            observe=feature_cache(memorising_network.apply, evidence.models, inputs, targets),
            targets=targets,
            shadows=Shadows(predictions, evidence.shadows.inside),
        )
        np.testing.assert_array_equal(MADE[name](blind), scores)


@pytest.mark.parametrize(
    "name, lost",
    [
        ("white_box", {"members": NOBODY}),
        ("white_box", {"outsiders": NOBODY}),
        ("lira_online", {"shadows": None}),
        ("lira_offline", {"shadows": None}),
        ("rmia", {"shadows": None}),
        ("rmia", {"outsiders": NOBODY}),
    ],
)
def test_what_an_attacker_lacks_is_said(name, lost):
    evidence, inside = memorising_network.evidence("memorised", **lost)
    with pytest.raises(MissingEvidence, match=name):
        MADE[name](evidence)
    attacks = {name: MADE[name], "error_threshold": MADE["error_threshold"]}
    findings = evaluate.evaluate_attacks(evidence, inside, attacks, draws=50)
    assert findings[name].everybody is None and name in findings[name].refused
    assert findings["error_threshold"].everybody.auc.value > 0.9


def test_without_the_model_before_pruning():
    model = memorising_network.target("memorised")._replace(before=None)
    evidence, _ = memorising_network.evidence("memorised", models=(model,))
    with pytest.raises(MissingEvidence, match="from before the pruning"):
        MADE["sparsity_aware"](evidence)


def test_too_few_shadows_for_a_variance_each():
    evidence, _ = memorising_network.evidence("memorised")
    few = evidence._replace(shadows=Shadows(evidence.shadows.predictions[:4], evidence.shadows.inside[:4]))
    assert np.isfinite(MADE["lira_online"](few)).all()
    with pytest.raises(MissingEvidence, match="at least 4 shadow models with and without"):
        MADE["lira_online:variance=each"](few)


# --- formulas -----------------------------------------------------------------------------------


def hand(residuals, shadow_residuals, inside, scored=(0,), outsiders=NOBODY):
    """Evidence of people with target 0, whose residuals are given."""
    count = len(residuals)
    observe = lambda model, names, rows: {"error": np.asarray(residuals, float)[rows][:, None]}
    evidence, _ = memorising_network.evidence("memorised")
    known = Shadows(np.asarray(shadow_residuals, np.float64), np.asarray(inside, bool))
    return evidence._replace(
        observe=observe, targets=np.zeros(count), scored=np.array(scored), members=NOBODY,
        outsiders=np.asarray(outsiders, int), shadows=known,
    )  # fmt: skip


def test_lira_by_hand():
    # in: -1, 1 (mean 0, variance 2); out: 4, 8 (mean 6, variance 8); the target's residual: 1
    evidence = hand([1.0], [[-1.0], [1.0], [4.0], [8.0]], [[True], [True], [False], [False]])
    expected = (-1 / 4 - np.log(2) / 2) - (-25 / 16 - np.log(8) / 2)
    assert membership.lira_online()(evidence) == pytest.approx(expected)
    inside = norm.cdf((1 - 6) / 8**0.5) - norm.cdf((-1 - 6) / 8**0.5)
    assert membership.lira_offline()(evidence) == pytest.approx(-np.log(inside))
    phi = lambda r: -np.log(r**2 + 1e-6)
    mean, spread = np.mean(phi(np.array([4.0, 8.0]))), np.std(phi(np.array([4.0, 8.0])), ddof=1)
    score = membership.lira_offline(statistic="log_error")(evidence)
    assert score == pytest.approx(np.log(norm.cdf((phi(1.0) - mean) / spread)))


def test_pooled_variance_is_of_each_group_around_its_own_means():
    values = np.array([[0.0, 10.0], [2.0, 14.0], [5.0, 5.0]])
    chosen = np.array([[True, True], [True, True], [False, False]])
    normal = membership.fit_normal(values, chosen, "pooled")
    assert normal.mean.tolist() == [1, 12] and normal.std == pytest.approx([5**0.5, 5**0.5])  # (1+1+4+4)/2
    assert membership.fit_normal(values, chosen, "each").std == pytest.approx([2**0.5, 8**0.5])


def test_the_offline_tail_stays_finite():
    normal = membership.Normal(np.array([50.0, -50.0, 0.0]), np.array([1.0, 1.0, 1e-6]))
    tail = membership.log_within(np.array([1e-6, 1e-6, 1e-6]), normal)
    assert np.isfinite(tail).all() and tail[0] == pytest.approx(tail[1]) and tail[0] < -1000


def test_rmia_by_hand():
    # one shadow that saw nobody; sigma^2 = mean(1, 4) = 2.5 over the two non-members
    evidence = hand([0.0, 1.0, 2.0], [[1.0, 1.0, 2.0]], [[False] * 3], outsiders=(1, 2))
    p_out = np.exp(-1 / 5)
    ratio_x = 1 / (0.5 * (1.5 * p_out + 0.5))
    ratio_z = [np.exp(-e / 5) / (0.5 * (1.5 * np.exp(-e / 5) + 0.5)) for e in (1, 4)]
    assert all(ratio_x > z for z in ratio_z)
    expected = (2 + ratio_x / (1 + ratio_x)) / 3
    assert membership.rmia(offset=0.5)(evidence) == pytest.approx(expected)
    assert membership.rmia(offset=0.5, sigma=2.5**0.5)(evidence) == pytest.approx(expected)


def test_rmia_tries_its_offset_on_a_shadow():
    # the first shadow is right about its own people, unless those are easy: with a high p_out being right says little
    residual = np.array([[0.1, 0.1, 3.0, 0.2], [3.0, 3.0, 3.0, 0.2], [3.0, 3.0, 3.0, 0.2]])
    inside = np.array([[True, True, False, False], [False] * 4, [False] * 4])
    p = membership.likelihood(residual, 1.0)
    best, sigma = membership.tune(residual, inside, (0.0, 1.0), (1.0,))
    ratios = membership.ratio(p[0], p[1:], inside[1:], best)
    assert sigma == 1.0 and statistics.auc(ratios[:2], ratios[2:]) == 1
    assert membership.tune(residual[:2], inside[:2], (0.0, 1.0), (2.0, 1.0)) == (0.3, 2.0)


@pytest.mark.parametrize(
    "make", [lambda: membership.rmia(gamma=0.5), lambda: membership.lira_online(statistic="x"),
             lambda: membership.lira_offline(variance="x")],
)  # fmt: skip
def test_impossible_options(make):
    with pytest.raises(UsageError, match="must be"):
        make()


# --- features -----------------------------------------------------------------------------------


def linear(params, inputs):
    return 2 * (inputs @ params["head"]["kernel"])[:, 0] + params["head"]["bias"][0]


def linear_snapshot():
    params = {"head": {"bias": jnp.array([1.0]), "kernel": jnp.array([[3.0], [0.0]])}}
    before = {"head": {"bias": jnp.array([1.0]), "kernel": jnp.array([[3.0], [0.5]])}}
    mask = {"head": {"bias": jnp.array([True]), "kernel": jnp.array([[True], [False]])}}
    return Snapshot(params, mask, before)


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_numbers_of_one_example(name):
    w, model = memorising_network.world(), memorising_network.target("memorised")
    of_one = example_features(memorising_network.apply, (name,), ("dense1/kernel", "head/kernel"))
    see, traces = count_traces(lambda x, y: of_one(model, x, y)[name])
    alone = [np.asarray(see(w.inputs[i], w.targets[i])) for i in range(3)]
    assert traces() == 1 and all(values.ndim == 1 and values.dtype == np.float32 for values in alone)
    observe = feature_cache(memorising_network.apply, (model,), w.inputs, w.targets)
    together = observe(0, (name,), np.arange(3))[name]
    assert np.isfinite(together).all() and together.shape == (3, len(alone[0]))
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)


def test_features_by_hand():
    # x = (1, 2), y = 5: f = 2 * 3 + 1 = 7, residual 2, slope (1; 2, 4), gradient (4; 8, 16); before: f = 9, residual 4
    observe = feature_cache(linear, (linear_snapshot(),), np.array([[1.0, 2.0]]), np.array([5.0]))
    by_name = observe(0, tuple(FEATURES), np.array([0]))
    values = {name: value[0].tolist() for name, value in by_name.items()}
    assert values["error"] == [2, 4] and values["prediction"] == [7, 5] and values["label"] == [5]
    assert values["gradient_norm"] == pytest.approx([4, 320**0.5])
    assert values["gradient"] == [8, 16] and values["activation"] == [2, 4]
    assert values["gradient_mass"] == [4, 0, 8, 16]
    # squared error falls from 16 to 4; before, the gradient is (8; 16, 32), the step (0; 0, -.5): first order -16
    log2 = float(np.log(2))
    assert values["change"] == pytest.approx([4, 2, -2, -12, -16, 4, -log2, -log2], rel=1e-5)


@pytest.mark.slow
def test_features_do_not_depend_on_chunks_and_are_computed_once():
    network = flat_cnn((4, 5, 4), widths=(3, 4), poolings=1, output_mean=62.0, output_scale=10.0, zero_head=False)
    params = network.init(jax.random.key(0))
    model = Snapshot(params, masks.ones(params), jax.tree.map(lambda w: 0.9 * w, params))
    rng, calls = np.random.default_rng(0), []
    inputs, targets = rng.normal(size=(7, 4, 5, 4, 1)).astype(np.float32), rng.uniform(45, 80, 7)

    class Counted:
        def __getitem__(self, index):
            calls.append(set(index.tolist()))
            return inputs[index]

    names, rows = tuple(FEATURES), np.array([6, 0, 3, 3, 5, 1])
    small = feature_cache(network.apply, (model,), inputs, targets, chunk=2)(0, names, rows)
    observe = feature_cache(network.apply, (model,), Counted(), targets, chunk=16)
    large = observe(0, names, rows)
    # A norm follows conv2/bias: its gradient is rounding, and the change of its logarithm says nothing.
    rounding = leaf_names(params).index("conv2/bias")
    assert (large["gradient_norm"][:, rounding] < 1e-4).all()
    meaningful = lambda name, values: np.delete(values, 6 + rounding, 1) if name == "change" else values
    for name in names:
        pair = meaningful(name, small[name]), meaningful(name, large[name])
        np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(large[name][2], large[name][3])
    observe(0, names, rows[:3])
    assert calls == [set(rows.tolist())]
    observe(0, names, np.array([1, 2]))
    assert calls[1:] == [{2}]
    error = np.asarray(network.apply(params, inputs[rows])) - targets[rows]
    np.testing.assert_allclose(large["error"][:, 0], error, rtol=1e-4, atol=1e-4)


def test_leaves_are_chosen_by_name():
    params = memorising_network.init(jax.random.key(0))
    assert features.check_leaves(params) == ("dense1/kernel", "head/kernel")
    assert features.check_leaves(params, ("head/bias",)) == ("head/bias",)
    with pytest.raises(UsageError, match="dense9"):
        features.check_leaves(params, ("dense9/kernel",))
    with pytest.raises(UsageError, match="head"):
        features.check_leaves({"a": jnp.zeros((3, 2))})


def test_several_models_vote():
    evidence, inside = memorising_network.evidence("memorised")
    w, models = memorising_network.world(), (memorising_network.untrained(), *evidence.models)
    observe = feature_cache(memorising_network.apply, models, w.inputs, w.targets)
    both = evidence._replace(models=models, observe=observe)
    newest = membership.white_box(models=1)(both)
    np.testing.assert_allclose(newest, MADE["white_box"](evidence), rtol=1e-4, atol=1e-4)
    assert auc(membership.white_box()(both), inside) > 0.9


# --- controls -----------------------------------------------------------------------------------


def test_the_controls_tell_age_from_membership():
    """Older members: age alone passes for an attack on a model that saw nobody, but not on people of like age."""
    w, (evidence, _) = memorising_network.world(), memorising_network.evidence("untrained")
    age = w.targets[np.concatenate([evidence.members, evidence.outsiders, evidence.scored])]
    old = np.random.default_rng(3).normal(age, 4) > np.median(age)
    rows = np.concatenate([evidence.members, evidence.outsiders, evidence.scored])
    known, scored = np.arange(len(rows)) < 160, rows[160:]
    evidence = evidence._replace(members=rows[known & old], outsiders=rows[known & ~old], scored=scored)
    attacks = {name: evaluate.default_attacks()[name] for name in ("white_box", "age_alone")}
    for finding in evaluate.evaluate_attacks(evidence, old[160:], attacks, caliper=1.0, draws=400).values():
        assert finding.everybody.auc.low > 0.6
        assert finding.age_matched.auc.low < 0.5 < finding.age_matched.auc.high


def test_age_matching_pairs_as_many_as_can_be():
    # 50 could take 50.9 for itself, but then 51.8 would be left alone
    matched = controls.age_matched([50.0, 51.8, 49.1, 50.9], [True, True, False, False])
    assert matched.pairs.tolist() == [[0, 2], [1, 3]] and matched.dropped == 0
    none = controls.age_matched([50.0, 60.0], [True, False])
    assert none.pairs.shape == (0, 2) and none.dropped == 1 and len(none.places) == 0


def test_the_same_attack_on_a_model_of_nobody():
    evidence, inside = memorising_network.evidence("memorised")
    w, models = memorising_network.world(), (memorising_network.untrained(),)
    observe = feature_cache(memorising_network.apply, models, w.inputs, w.targets)
    other = evidence._replace(models=models, observe=observe)
    attack = MADE["error_threshold"]
    assert auc(attack(evidence), inside) > 0.9 > 0.65 > auc(attack(other), inside)


# --- the truth is not in the evidence -----------------------------------------------------------


def test_how_often_somebody_is_in_the_other_shadows_says_nothing_of_the_target():
    inside = shadow_halves(200, 8, seed=3)
    for target in range(8):
        count = inside[others_than(target, inside)].sum(0)
        assert (count == 3).all()  # without the target alone, members would be in 3 of 7 and all others in 4


@pytest.mark.parametrize("name", ["lira_online", "lira_offline", "rmia"])
def test_of_models_that_know_nothing_each_as_the_target_of_the_others_it_finds_nothing(name):
    """Every one of eight shadows in its turn; where only the target was left out, LiRA had .477."""
    aucs = []
    for draw in range(60):
        rng = np.random.default_rng(draw)
        ages, easy = rng.uniform(45, 80, 320), rng.normal(0, 4, 320)
        inside, target = shadow_halves(320, 8, seed=draw), draw % 8
        predictions = ages + easy + rng.normal(0, 2, (8, 320))
        others, truth, error = others_than(target, inside), inside[target], predictions[target] - ages
        known = np.flatnonzero(~truth)[:80]
        scored = np.setdiff1d(np.arange(320), known)
        observe = lambda k, names, rows, error=error: {"error": np.stack([error[rows], error[rows] ** 2], 1)}
        shadows = Shadows(predictions[others], inside[others])
        evidence = Evidence((Snapshot({}, {}),), observe, ages, scored, outsiders=known, shadows=shadows)
        aucs.append(auc(ATTACKS[name]()(evidence), truth[scored]))
    assert abs(np.mean(aucs) - 0.5) < 3 * np.std(aucs, ddof=1) / 60**0.5


def test_the_tuning_of_rmia_leaves_the_pair_out_too():
    """Shadow 1 is the complement of shadow 0: with it, a person in few of the others would be in shadow 0."""
    rng = np.random.default_rng(0)
    inside = shadow_halves(100, 6, seed=1)
    residual = rng.normal(0, 3, (6, 100))
    changed = residual.copy()
    changed[1] = rng.normal(0, 3, 100)
    grid = ((0.0, 0.3, 1.0), (0.3, 1.0, 3.0))
    assert membership.tune(residual, inside, *grid) == membership.tune(changed, inside, *grid)
    assert membership.tune(residual[:2], inside[:2], *grid) == (0.3, 0.3)  # nothing to try them on


# --- people, never scans ------------------------------------------------------------------------


def test_a_person_with_several_scans_is_judged_once():
    """Three scans of each of 40 people: intervals are those of 40, and a score is the mean of three."""
    who = np.repeat(np.arange(40), 3)
    rng = np.random.default_rng(0)
    residual = rng.normal(0, 3, 120)
    observe = lambda k, names, rows: {"error": np.stack([residual[rows], residual[rows] ** 2], 1)}
    rows = np.arange(120)
    evidence = Evidence((Snapshot({}, {}),), observe, np.full(120, 60.0), rows, who=who)
    finding = evaluate.evaluate_attacks(evidence, who < 20, {"error_threshold": ATTACKS["error_threshold"]()})[
        "error_threshold"
    ]
    np.testing.assert_allclose(finding.scores, -np.abs(residual).reshape(40, 3).mean(1))
    assert finding.everybody.members == finding.everybody.outsiders == 20 and finding.inside.sum() == 20
    assert finding.everybody.auc.value == auc(finding.scores, np.arange(40) < 20)


def test_nobody_is_in_training_and_in_the_validation_of_the_classifier():
    owners = np.repeat(np.arange(50), 3)
    held = feature_classifier._held_out(owners, 0.2, np.random.default_rng(0))
    assert set(np.bincount(owners, held)) == {0, 3} and held.sum() == 30

"""The contract of attacks, held by every member of ATTACKS; features by hand; what an attacker may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.attacks import controls, evaluate, features, membership, statistics
from fedsparse_jax.attacks.evidence import NOBODY, Lacking, Shadows, Snapshot
from fedsparse_jax.attacks.features import FEATURES
from fedsparse_jax.attacks.membership import ATTACKS
from fedsparse_jax.core import masks
from fedsparse_jax.core.types import UsageError
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
    return statistics.auc(*statistics.split(scores, inside))


@pytest.mark.parametrize("name", MADE)
class TestAttacks:
    def test_finds_what_was_learned_by_heart(self, name):
        held, inside = memorising_network.evidence("memorised")
        assert auc(MADE[name](held), inside) > 0.9

    @pytest.mark.parametrize("kind", ["untrained", "elsewhere"])
    def test_finds_nothing_where_nothing_is(self, name, kind):
        held, inside = memorising_network.evidence(kind)
        found = statistics.bootstrap(
            statistics.auc, *statistics.split(MADE[name](held), inside), draws=400, level=0.99
        )
        assert found.low < 0.5 < found.high

    def test_scores_are_finite_repeatable_and_of_the_person(self, name):
        held, _ = memorising_network.evidence("memorised")
        scores = MADE[name](held)
        assert (
            scores.shape == (len(held.scored),) and scores.dtype == np.float64 and np.isfinite(scores).all()
        )
        np.testing.assert_array_equal(MADE[name](held), scores)
        order = np.random.default_rng(0).permutation(len(scores))
        again = MADE[name](held._replace(scored=held.scored[order]))
        np.testing.assert_allclose(again, scores[order], rtol=1e-5, atol=1e-5)

    def test_reads_nobody_who_is_not_in_the_evidence(self, name):
        held, _ = memorising_network.evidence("memorised")
        held = held._replace(
            scored=held.scored[::3], outsiders=held.outsiders[::2], members=held.members[::2]
        )
        named = np.concatenate([held.scored, held.members, held.outsiders])
        secret = np.setdiff1d(np.arange(memorising_network.PEOPLE), named)
        scores, w = MADE[name](held), memorising_network.world()
        inputs, targets = (leaf.copy() for leaf in w[:2])
        inputs[secret], targets[secret] = np.nan, np.nan
        predictions = held.shadows.predictions.copy()
        predictions[:, secret] = np.nan
        blind = held._replace(
            observe=features.observer(memorising_network.apply, held.models, inputs, targets),
            targets=targets,
            shadows=Shadows(predictions, held.shadows.inside),
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
    held, inside = memorising_network.evidence("memorised", **lost)
    with pytest.raises(Lacking, match=name):
        MADE[name](held)
    findings = evaluate.audit(
        held, inside, {name: MADE[name], "error_threshold": MADE["error_threshold"]}, draws=50
    )
    assert findings[name].everybody is None and name in findings[name].refused
    assert findings["error_threshold"].everybody.auc.value > 0.9


def test_without_the_model_before_pruning():
    model = memorising_network.target("memorised")._replace(before=None)
    held, _ = memorising_network.evidence("memorised", models=(model,))
    with pytest.raises(Lacking, match="before pruning"):
        MADE["sparsity_aware"](held)


def test_too_few_shadows_for_a_variance_each():
    held, _ = memorising_network.evidence("memorised")
    few = held._replace(shadows=Shadows(held.shadows.predictions[:4], held.shadows.inside[:4]))
    assert np.isfinite(MADE["lira_online"](few)).all()
    with pytest.raises(Lacking, match="at least 4 shadow models with and without"):
        MADE["lira_online:variance=each"](few)


# --- formulas -----------------------------------------------------------------------------------


def hand(residuals, shadow_residuals, inside, scored=(0,), outsiders=NOBODY):
    """Evidence of people with target 0, whose residuals are given."""
    count = len(residuals)
    observe = lambda model, names, rows: {"error": np.asarray(residuals, float)[rows][:, None]}
    held, _ = memorising_network.evidence("memorised")
    known = Shadows(np.asarray(shadow_residuals, np.float64), np.asarray(inside, bool))
    return held._replace(
        observe=observe, targets=np.zeros(count), scored=np.array(scored), members=NOBODY,
        outsiders=np.asarray(outsiders, int), shadows=known,
    )  # fmt: skip


def test_lira_by_hand():
    # in: -1, 1 (mean 0, variance 2); out: 4, 8 (mean 6, variance 8); the target's residual: 1
    held = hand([1.0], [[-1.0], [1.0], [4.0], [8.0]], [[True], [True], [False], [False]])
    expected = (-1 / 4 - np.log(2) / 2) - (-25 / 16 - np.log(8) / 2)
    assert membership.lira_online()(held) == pytest.approx(expected)
    from scipy.stats import norm

    inside = norm.cdf((1 - 6) / 8**0.5) - norm.cdf((-1 - 6) / 8**0.5)
    assert membership.lira_offline()(held) == pytest.approx(-np.log(inside))
    phi = lambda r: -np.log(r**2 + 1e-6)
    mean, spread = np.mean(phi(np.array([4.0, 8.0]))), np.std(phi(np.array([4.0, 8.0])), ddof=1)
    found = membership.lira_offline(statistic="log_error")(held)
    assert found == pytest.approx(np.log(norm.cdf((phi(1.0) - mean) / spread)))


def test_pooled_variance_is_of_each_group_around_its_own_means():
    values = np.array([[0.0, 10.0], [2.0, 14.0], [5.0, 5.0]])
    chosen = np.array([[True, True], [True, True], [False, False]])
    normal = membership.fit_normal(values, chosen, "pooled")
    assert normal.mean.tolist() == [1, 12] and normal.spread == pytest.approx([5**0.5, 5**0.5])  # (1+1+4+4)/2
    assert membership.fit_normal(values, chosen, "each").spread == pytest.approx([2**0.5, 8**0.5])


def test_the_offline_tail_stays_finite():
    normal = membership.Normal(np.array([50.0, -50.0, 0.0]), np.array([1.0, 1.0, 1e-6]))
    found = membership.log_within(np.array([1e-6, 1e-6, 1e-6]), normal)
    assert np.isfinite(found).all() and found[0] == pytest.approx(found[1]) and found[0] < -1000


def test_rmia_by_hand():
    # one shadow that saw nobody; sigma^2 = mean(1, 4) = 2.5 over the two non-members
    held = hand([0.0, 1.0, 2.0], [[1.0, 1.0, 2.0]], [[False] * 3], outsiders=(1, 2))
    p_out = np.exp(-1 / 5)
    ratio_x = 1 / (0.5 * (1.5 * p_out + 0.5))
    ratio_z = [np.exp(-e / 5) / (0.5 * (1.5 * np.exp(-e / 5) + 0.5)) for e in (1, 4)]
    assert all(ratio_x > z for z in ratio_z)
    expected = (2 + ratio_x / (1 + ratio_x)) / 3
    assert membership.rmia(offset=0.5)(held) == pytest.approx(expected)
    assert membership.rmia(offset=0.5, sigma=2.5**0.5)(held) == pytest.approx(expected)


def test_rmia_tries_its_offset_on_a_shadow():
    # the first shadow is right about its own people, unless those are easy: where p_out is high, being right says little
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
    kept = {"head": {"bias": jnp.array([True]), "kernel": jnp.array([[True], [False]])}}
    return Snapshot(params, kept, before)


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_numbers_of_one_example(name):
    w, model = memorising_network.world(), memorising_network.target("memorised")
    of_one = features.look(memorising_network.apply, (name,), ("dense1/kernel", "head/kernel"))
    see, traces = count_traces(lambda x, y: of_one(model, x, y)[name])
    alone = [np.asarray(see(w.inputs[i], w.targets[i])) for i in range(3)]
    assert traces() == 1 and all(one.ndim == 1 and one.dtype == np.float32 for one in alone)
    together = features.observer(memorising_network.apply, (model,), w.inputs, w.targets)(
        0, (name,), np.arange(3)
    )[name]
    assert np.isfinite(together).all() and together.shape == (3, len(alone[0]))
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)


def test_features_by_hand():
    # x = (1, 2), y = 5: f = 2 * 3 + 1 = 7, residual 2, slope (1; 2, 4), gradient (4; 8, 16); before: f = 9, residual 4
    observe = features.observer(linear, (linear_snapshot(),), np.array([[1.0, 2.0]]), np.array([5.0]))
    found = {name: value[0].tolist() for name, value in observe(0, tuple(FEATURES), np.array([0])).items()}
    assert found["error"] == [2, 4] and found["prediction"] == [7, 5] and found["label"] == [5]
    assert found["gradient_norm"] == pytest.approx([4, 320**0.5])
    assert found["gradient"] == [8, 16] and found["activation"] == [2, 4]
    assert found["gradient_mass"] == [4, 0, 8, 16]
    # squared error falls from 16 to 4; before, the gradient is (8; 16, 32), the step (0; 0, -.5): first order -16
    log2 = float(np.log(2))
    assert found["change"] == pytest.approx([4, 2, -2, -12, -16, 4, -log2, -log2], rel=1e-5)


def test_features_do_not_depend_on_chunks_and_are_computed_once():
    network = flat_cnn(
        (4, 5, 4), widths=(3, 4), poolings=1, output_mean=62.0, output_scale=10.0, zero_head=False
    )
    params = network.init(jax.random.key(0))
    model = Snapshot(params, masks.ones(params), jax.tree.map(lambda w: 0.9 * w, params))
    rng, calls = np.random.default_rng(0), []
    inputs, targets = rng.normal(size=(7, 4, 5, 4, 1)).astype(np.float32), rng.uniform(45, 80, 7)

    class Counted:
        def __getitem__(self, index):
            calls.append(set(index.tolist()))
            return inputs[index]

    names, rows = tuple(FEATURES), np.array([6, 0, 3, 3, 5, 1])
    small = features.observer(network.apply, (model,), inputs, targets, chunk=2)(0, names, rows)
    observe = features.observer(network.apply, (model,), Counted(), targets, chunk=16)
    large = observe(0, names, rows)
    for name in names:
        np.testing.assert_allclose(small[name], large[name], rtol=1e-4, atol=1e-4)
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
    held, inside = memorising_network.evidence("memorised")
    w, models = memorising_network.world(), (memorising_network.untrained(), *held.models)
    both = held._replace(
        models=models, observe=features.observer(memorising_network.apply, models, w.inputs, w.targets)
    )
    newest = membership.white_box(models=1)(both)
    np.testing.assert_allclose(newest, MADE["white_box"](held), rtol=1e-4, atol=1e-4)
    assert auc(membership.white_box()(both), inside) > 0.9


# --- controls -----------------------------------------------------------------------------------


def test_the_controls_tell_age_from_membership():
    """Members who are older: age alone passes for an attack on a model that saw nobody, but not on people of like age."""
    w, (held, _) = memorising_network.world(), memorising_network.evidence("untrained")
    age = w.targets[np.concatenate([held.members, held.outsiders, held.scored])]
    old = np.random.default_rng(3).normal(age, 4) > np.median(age)
    rows = np.concatenate([held.members, held.outsiders, held.scored])
    known, scored = np.arange(len(rows)) < 160, rows[160:]
    held = held._replace(members=rows[known & old], outsiders=rows[known & ~old], scored=scored)
    attacks = {name: evaluate.default_attacks()[name] for name in ("white_box", "age_alone")}
    for finding in evaluate.audit(held, old[160:], attacks, caliper=1.0, draws=400).values():
        assert finding.everybody.auc.low > 0.6
        assert finding.age_matched.auc.low < 0.5 < finding.age_matched.auc.high


def test_age_matching_pairs_as_many_as_can_be():
    # 50 could take 50.9 for itself, but then 51.8 would be left alone
    matched = controls.age_matched([50.0, 51.8, 49.1, 50.9], [True, True, False, False])
    assert matched.pairs.tolist() == [[0, 2], [1, 3]] and matched.dropped == 0
    none = controls.age_matched([50.0, 60.0], [True, False])
    assert none.pairs.shape == (0, 2) and none.dropped == 1 and len(none.places) == 0


def test_each_shadow_takes_its_turn():
    inside = np.array([[1, 0], [0, 1], [1, 1]], bool)
    turns = controls.turns(np.arange(6.0).reshape(3, 2), inside)
    assert [t for t, _ in turns] == [0, 1, 2]
    assert (
        turns[1][1].predictions.tolist() == [[0, 1], [4, 5]]
        and turns[1][1].inside.tolist() == inside[[0, 2]].tolist()
    )


def test_the_same_attack_on_a_model_of_nobody():
    held, inside = memorising_network.evidence("memorised")
    w, models = memorising_network.world(), (memorising_network.untrained(),)
    other = controls.on_model(
        held, models, features.observer(memorising_network.apply, models, w.inputs, w.targets)
    )
    assert (
        auc(MADE["error_threshold"](held), inside) > 0.9 > 0.65 > auc(MADE["error_threshold"](other), inside)
    )


def test_the_best_attack_is_chosen_elsewhere():
    held, inside = memorising_network.evidence("memorised")
    attacks = {"error_threshold": MADE["error_threshold"], "rmia": MADE["rmia"]}
    here = evaluate.audit(held, inside, attacks, draws=20)
    worse = here["rmia"].everybody._replace(auc=statistics.Estimate(0.4))
    assert evaluate.best(here, {**here, "rmia": here["rmia"]._replace(everybody=worse)}) == "error_threshold"

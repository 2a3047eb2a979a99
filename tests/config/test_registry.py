"""A section names a member and its arguments; what is wrong is said with the path of the key."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedsparse_jax.config.registry import (
    OPTIMIZERS,
    RATE_SCHEDULES,
    argument_path,
    bind_options,
    lookup,
    optimizer,
    rate_schedule,
)
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.optimizers import optimizer_step, rate_factor_of_round
from fedsparse_jax.sparsity import gradual
from tests.helpers.count_traces import count_traces


def test_an_unknown_name_is_refused_with_those_that_there_are():
    assert lookup({"a": 1, "b": 2}, "b", "some.key") == 2
    with pytest.raises(UsageError, match=r"^some.key is 'c': it must be one of a, b.$"):
        lookup({"a": 1, "b": 2}, "c", "some.key")


def power(base, exponent=2, offset=0):
    return base**exponent + offset


def test_the_keys_of_a_section_become_arguments():
    bound = bind_options({"power": power}, dict(name="power", exponent=3, offset=1), "rule", "base")
    assert bound(2) == 9 and bound.keywords == dict(exponent=3, offset=1)


@pytest.mark.parametrize("key", ["base", "exponnet"])
def test_a_key_that_the_member_does_not_take_is_refused(key):
    message = rf"^rule.{key} is not an option of 'power', which takes: exponent, offset"
    with pytest.raises(UsageError, match=message):
        bind_options({"power": power}, {"name": "power", key: 3}, "rule", "base")


def test_the_options_may_be_those_of_another_function():
    through = lambda root, **options: power(root, **options)
    section = dict(name="power", exponent=3)
    assert bind_options({"power": through}, section, "rule", "base", options_of=power)(2) == 8
    with pytest.raises(UsageError, match="rule.exponent is not an option of 'power', which takes: root, options"):
        bind_options({"power": through}, section, "rule")


def refused(argument, path, **elsewhere):
    with pytest.raises(UsageError) as refusal, argument_path(path, **elsewhere):
        raise ArgumentError(argument, 3, "it must be less")
    assert not isinstance(refusal.value, ArgumentError)  # so that no outer path is put before it, too
    return str(refusal.value)


def test_the_path_of_the_section_stands_before_the_argument():
    assert refused("end", "pruning.schedule") == "pruning.schedule.end is 3: it must be less."
    assert refused("participation", "") == "participation is 3: it must be less."


def test_an_argument_may_stand_in_another_section():
    elsewhere = dict(test_share="data.test_share")
    assert refused("test_share", "partition", **elsewhere) == "data.test_share is 3: it must be less."
    assert refused("classes", "partition", **elsewhere) == "partition.classes is 3: it must be less."


def test_paths_of_inner_sections_win():
    with pytest.raises(UsageError, match=r"^inner.end is 3: it must be less.$"), argument_path("outer"):
        refused_within("inner")


def refused_within(path):
    with argument_path(path):
        raise ArgumentError("end", 3, "it must be less")


def test_only_the_first_place_of_the_name_is_replaced():
    message = r"^end.begin is 9: it must be at least 0 and below end, 4.$"
    with pytest.raises(UsageError, match=message), argument_path("end"):
        gradual(begin=9, end=4)


@pytest.mark.parametrize("error", [UsageError("There is no folder."), KeyError("x"), TypeError("y")])
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)) as passed, argument_path("section"):
        raise error
    assert passed.value is error


def test_without_an_error_nothing_happens():
    with argument_path("section"):
        value = 3
    assert value == 3


# --- optimizers ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.optimistic_adam. is deprecated", "ignore:Specifying a key will be required")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_with_gradients_alone(name):
    tx = optimizer(dict(name=name, learning_rate=0.1), "client.optimizer")
    params = {"w": jnp.array([[1.0, -2.0]]), "b": jnp.array([0.5])}
    gradient = {"w": jnp.array([[0.3, -0.1]]), "b": jnp.array([0.2])}
    moved, state = params, tx.init(params)
    for _ in range(2):  # rprop only looks at the first gradient
        moved, state = optimizer_step(tx, gradient, state, moved)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in moved.values())
    assert bool((moved["w"] != params["w"]).any())


def test_sgd_by_hand():
    tx = optimizer(dict(name="sgd", learning_rate=0.1, momentum=0.5), "client.optimizer")
    state, params, gradient = tx.init(jnp.array(1.0)), jnp.array(1.0), jnp.array(2.0)
    for expected in (-0.2, -0.3):  # -0.1 * 2, then -0.1 * (2 + 0.5 * 2)
        update, state = tx.update(gradient, state, params)
        assert float(update) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["lbfgs", "polyak_sgd", "tree", "Adam"])
def test_what_is_not_in_the_table_is_no_optimizer(name):
    message = rf"^client.optimizer.name is '{name}': it must be one of adabelief, "
    with pytest.raises(UsageError, match=message):
        optimizer(dict(name=name, learning_rate=0.1), "client.optimizer")


def test_an_optimizer_without_its_rate_is_refused():
    with pytest.raises(UsageError, match=r"^server.optimizer: 'sgd' lacks an argument \(.*learning_rate"):
        optimizer(dict(name="sgd"), "server.optimizer")


# --- schedules of learning rates ----------------------------------------------------------------

NEEDED = {
    "constant_schedule": dict(value=0.5),
    "exponential_decay": dict(decay_rate=0.1),
    "linear_schedule": dict(end_value=0.0),
    "piecewise_interpolate_schedule": dict(interpolate_type="linear", boundaries_and_scales={"2": 0.5}),
    "polynomial_schedule": dict(end_value=0.1, power=2),
    "warmup_constant_schedule": dict(warmup_steps=3),
    "warmup_cosine_decay_schedule": dict(warmup_steps=3),
    "warmup_exponential_decay_schedule": dict(warmup_steps=3, decay_rate=0.1),
}


@pytest.mark.parametrize("name", RATE_SCHEDULES)
def test_every_schedule_of_rates_is_traced_once_and_says_the_same_then(name):
    schedule = rate_schedule(dict(name=name, **NEEDED.get(name, {})), "path", 8)
    factor, traces = count_traces(lambda t: rate_factor_of_round(schedule, t))
    for t in range(1, 9):
        value = factor(jnp.int32(t))
        assert value.dtype == jnp.float32 and value.shape == () and 0 <= value <= 1
        assert float(value) == pytest.approx(float(rate_factor_of_round(schedule, t)), abs=1e-6)
    assert traces() == 1


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (dict(name="cosine_decay_schedule"), (1 + np.cos(np.pi * np.arange(4) / 4)) / 2),
        (dict(name="cosine_decay_schedule", decay_steps=0, alpha=1.0), np.ones(4)),
        (dict(name="exponential_decay", decay_rate=0.1), 0.1 ** (np.arange(4) / 4)),
        (dict(name="linear_schedule", end_value=0.2, transition_steps=2), [1.0, 0.6, 0.2, 0.2]),
        (dict(name="warmup_constant_schedule", warmup_steps=2), [1 / 3, 2 / 3, 1.0, 1.0]),
        (dict(name="piecewise_constant_schedule", boundaries_and_scales={"1": 0.5, 3: 0.1}), [1.0, 0.5, 0.5, 0.05]),
    ],
)
def test_schedules_of_rates_by_hand(section, expected):
    schedule = rate_schedule(section, "path", 4)
    got = [float(rate_factor_of_round(schedule, t)) for t in (1, 2, 3, 4)]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_no_schedule_is_none():
    assert rate_schedule(dict(name="none"), "path", 4) is None

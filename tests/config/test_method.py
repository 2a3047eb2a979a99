"""The method half of a config: hooks and their order, what is filled in, and what is said before the first round."""

import pytest

from fedsparse_jax.config import defaults, experiment_from_config, load_config, recipe_from_config, sparsify
from fedsparse_jax.config.method import (
    aggregator_from_config,
    fill_schedule_defaults,
    hooks_from_config,
    placements,
    regrowth_from_config,
    resolve_client_map,
)
from fedsparse_jax.federated import SERVER_OWNS
from fedsparse_jax.models import flat_cnn
from fedsparse_jax.sparsity import REGROWTH, SCHEDULES


@pytest.mark.parametrize(("trim", "said"), [(0.05, True), (0.1, False), (None, False)])
def test_a_trim_that_cuts_nobody_off_is_said(repository, trim, said):
    config = load_config(f"{repository}/configs/methods/fedavg.py:digits")  # ten clients
    config.aggregation = {"name": "trimmed_mean"} | ({} if trim is None else {"trim": trim})
    remarks = experiment_from_config(config).remarks
    assert [remark for remark in remarks if "cuts nobody off; from 0.100 on it cuts one" in remark] == list(remarks)
    assert bool(remarks) == said


@pytest.mark.parametrize(
    ("spec", "rounds", "expected"),
    [
        ("one_shot.py:digits+tuned", 20, ["Note: after 20 rounds the schedule asks for a sparsity of 0.000, not 0.95"]),
        ("fedsparsify_global.py:digits", 20, []),
        ("prunefl.py:digits", 5, ["Note: solo_rounds is 10 of 5 rounds"]),
        ("feddst.py:digits", 5, []),
        ("lotteryfl.py:digits", 5, ["Note: after 5 rounds the schedule asks for a sparsity of 0.672"]),
    ],
)
def test_what_does_not_fit_the_rounds_is_said_before_the_first(spec, rounds, expected, repository):
    config = load_config(f"{repository}/configs/methods/{spec}")
    config.rounds = rounds
    remarks = experiment_from_config(config).remarks
    assert len(remarks) == len(expected)
    assert all(remark.startswith(start) for remark, start in zip(remarks, expected))


def test_a_quorum_from_the_command_line_is_text(repository):
    config = load_config(f"{repository}/configs/methods/fedsparsify_local.py:digits")
    config.aggregation.quorum = "0.6"
    assert aggregator_from_config(config).keywords["quorum"] == 0.6
    config.aggregation.quorum = "strict_majority"
    assert aggregator_from_config(config).keywords["quorum"] == "strict_majority"


@pytest.mark.parametrize(
    ("text", "parts"), [("none", ()), ("server", ("server",)), ("init+server", ("init", "server"))]
)
def test_placements_are_joined_by_plus(text, parts):
    config = defaults()
    config.pruning.placement = text
    assert placements(config) == parts


PLACES = ("at_init", "before_training", "after_training", "upload_scores", "after_aggregation")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("fedavg", []),
        ("snip", ["at_init"]),
        ("fedsparsify_local", ["after_training"]),
        ("fedsparsify_global", ["after_aggregation"]),
        ("lotteryfl", ["before_training"]),
        ("feddst", ["at_init", "after_aggregation", "after_training"]),
        ("prunefl", ["upload_scores+after_aggregation"]),
    ],
)
def test_a_method_is_a_choice_of_hooks(method, expected, repository):
    config = load_config(f"{repository}/configs/methods/{method}.py")
    steps = ["+".join(p for p in PLACES if getattr(hook, p)) for hook in hooks_from_config(config)]
    assert steps == expected


def test_a_hook_stands_behind_what_is_pruned_before_round_1():
    config = defaults()
    with config.unlocked():
        config.pruning.update(placement="init", schedule=dict(name="constant"))
        config.hooks = dict(name="lottery_tickets", reset_to_initial=False)
    first, second = hooks_from_config(config)
    assert first.at_init and second.before_training
    assert second.mask_ownership is not SERVER_OWNS


def test_what_a_schedule_leaves_out_is_filled_in():
    config = sparsify(defaults(), "server")
    fill = lambda section, registry=SCHEDULES: fill_schedule_defaults(config, section, registry, "path")
    assert fill(dict(name="constant")) == dict(name="constant", final=0.95)
    assert fill(dict(name="gradual", begin=2)) == dict(name="gradual", begin=2, final=0.95, end=40)
    assert fill(dict(name="gradual", final=0.5, end=9)) == dict(name="gradual", final=0.5, end=9)
    assert fill(dict(name="one_shot", at=0)) == dict(name="one_shot", final=0.95, at=40)
    assert fill(dict(name="swap"), REGROWTH) == dict(name="swap", end=40)


def test_regrowth_ends_with_the_last_round_where_nothing_else_is_said():
    config = sparsify(defaults(), "server")
    assert regrowth_from_config(config).end == 40
    config.regrowth.end = 7
    assert regrowth_from_config(config).end == 7


def test_the_parts_of_a_recipe():
    config = defaults()
    config.client.proximal, config.client.optimizer_state = 0.01, "kept"
    config.execution.devices = 2
    network = flat_cnn((8, 8, 8), widths=(4,))
    recipe = recipe_from_config(config, network)
    assert recipe.model is network and recipe.hooks == () and recipe.private is None
    assert recipe.proximal == 0.01 and recipe.proximal_anchor == "global" and recipe.keep_opt_state
    assert recipe.num_clients == 8 and recipe.devices == 2


@pytest.mark.parametrize(("setting", "resolved"), [("auto", "scan"), ("vmap", "vmap"), ("4", 4), (4, 4)])
def test_the_client_map_of_a_cpu(setting, resolved):
    assert resolve_client_map(setting) == resolved

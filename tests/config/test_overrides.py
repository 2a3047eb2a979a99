"""Keys that are set one by one: those of the member that a section picks, and of no other."""

import inspect

import pytest

from fedsparse_jax.config import base_config, defaults, load_config, override
from fedsparse_jax.config.overrides import CHOICES, SUPPLIED_TO_SOURCES
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.scan_sources import SCAN_SOURCES
from fedsparse_jax.runs.migrations import RENAMED_KEYS


def value(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def after(*settings, config=None):
    return override(config or defaults(), [text.split("=", 1) for text in settings])


@pytest.mark.parametrize("source", sorted(set(SCAN_SOURCES) - {"phantom"}))
def test_every_option_of_a_source_of_scans_can_be_set(source):
    texts, values = {bool: "true", str: "x", int: "2"}, {"true": True, "x": "x", "2": 2}
    for name, parameter in inspect.signature(SCAN_SOURCES[source].options_of).parameters.items():
        if name not in SUPPLIED_TO_SOURCES:
            text = texts[type(parameter.default) if parameter.default is not None else str]
            config = after(f"data.source={source}", f"data.options.{name}={text}")
            assert config.data.options.to_dict() == {name: values[text]}


def test_options_of_the_source_before_are_left_behind_in_any_order_of_the_settings():
    for settings in (["data.source=bids", "data.options.space=A"], ["data.options.space=A", "data.source=bids"]):
        assert after(*settings).data.options.to_dict() == dict(space="A")
    assert after("data.source=phantom").data.options == defaults().data.options
    assert after("data.source=digits").data.options.to_dict() == {}


def test_options_that_both_sources_take_stay():
    config = after("data.source=bids", "data.options.age_col=years", "data.options.space=A")
    assert after("data.source=table", config=config).data.options.to_dict() == dict(age_col="years")


@pytest.mark.parametrize(
    "settings", [["partition.alpha=0.3", "partition.name=dirichlet"], ["partition={'name': 'dirichlet', 'alpha': 0.3}"]]
)
def test_a_section_that_is_picked_by_name_takes_the_keys_of_the_member(settings):
    assert after(*settings).partition.to_dict() == dict(name="dirichlet", alpha=0.3, num_clients=8)


MEMBERS = {
    "model": ["name=flat_cnn", "widths=4,8", "output_mean=62", "zero_head=false"],
    "client.optimizer": ["name=adam", "b1=0.8", "eps=1e-6"],
    "client.learning_rate_schedule": ["name=cosine_decay_schedule", "init_value=0.5", "alpha=0.1", "decay_steps=7"],
    "client.augmentation": ["name=basic", "shift=1", "flip=0", "noise=0.2"],
    "server.learning_rate_schedule": ["name=linear_schedule", "end_value=0.1", "transition_begin=3"],
    "server.optimizer": ["name=sgd", "learning_rate=1", "momentum=0.9", "nesterov=true"],
    "aggregation": ["name=majority_vote", "quorum=0.5"],
    "pruning.schedule": ["name=gradual", "begin=2", "power=2", "final=0.8"],
    "regrowth.rule": ["name=swap", "fraction=0.2", "end=9"],
    "hooks": ["name=lottery_tickets", "min_accuracy=0.1", "reset_to_initial=no"],
    "poison": ["name=scaling", "factor=3", "clients=2"],
    "partition": ["name=skewed_iid", "ratio=1.5", "num_clients=4"],
}


def sections_with_a_name(config, path=""):
    for key, section in config.items():
        if hasattr(section, "items"):
            yield from [f"{path}{key}"] if "name" in section else []
            yield from sections_with_a_name(section, f"{path}{key}.")


def test_each_section_that_picks_a_member_is_known_and_tried_below():
    assert MEMBERS.keys() == CHOICES.keys() == set(sections_with_a_name(defaults()))


@pytest.mark.parametrize("path", MEMBERS)
def test_all_arguments_of_a_member_can_be_set(path):
    section = value(after(*(f"{path}.{text}" for text in MEMBERS[path])), path)
    for text in MEMBERS[path]:
        name, _, written = text.partition("=")
        found = section[name]
        assert str(found).lower() in (written, f"{written}.0", "1e-06", "(4, 8)", "false")
        assert isinstance(found, float) == (name in {"b1", "eps", "learning_rate", "momentum", "quorum", "power", "final", "fraction", "min_accuracy", "factor", "ratio", "init_value", "alpha", "end_value", "flip", "noise"})  # fmt: skip


@pytest.mark.parametrize("name", CHOICES["aggregation"].members)
def test_another_member_leaves_the_arguments_of_the_one_before_behind(name):
    config = after("aggregation.name=majority_vote", "aggregation.quorum=0.5")
    takes = inspect.signature(CHOICES["aggregation"].members[name]).parameters
    assert ("quorum" in after(f"aggregation.name={name}", config=config).aggregation) == ("quorum" in takes)


def test_a_config_stays_as_it_is_and_what_comes_back_is_locked():
    config = load_config("configs/quickstart.py")
    changed = override(config, [("model.name", "brain_age_cnn"), ("rounds", "3"), ("rounds", "4")])
    assert config.rounds == 26 and config.model.name == "flat_cnn" and changed.rounds == 4 and changed.is_locked


@pytest.mark.parametrize(("settings", "message"), [
    (["rouns=3"], "^The config has no key 'rouns'; did you mean 'rounds'?"),
    (["client.epoch=3"], r"no key 'epoch' \(client.epoch\); did you mean 'epochs'?"),
    (["clients.epochs=3"], "no key 'clients'"),
    (["rounds.x=3"], "no key 'rounds'"),
    (["rounds=many"], "^rounds is 'many': it must be a whole number.$"),
    (["log.report=perhaps"], "^log.report is 'perhaps': it must be true or false.$"),
    (["data.source=bids", "data.options.cap_89=maybe"], "^data.options.cap_89 is 'maybe': it must be true or false.$"),
    (["data.source=bids", "data.options.agecol=x"], r"data.options.agecol is not an option of 'bids', .*did you mean age_col"),
    (["data.options.path_col=x"], "data.options.path_col is not an option of 'phantom', .* it is one of table"),
    (["data.source=bids", "data.options.root=x"], "data.options.root is not an option of 'bids'"),
    (["data.source=dicom"], "^data.source is 'dicom': it must be one of phantom, bids, table"),
    (["partition.alpha=0.3"], "partition.alpha is not an option of 'uniform_iid', .* it is one of dirichlet"),
    (["partition.name=fair"], "^partition.name is 'fair': it must be one of uniform_iid"),
    (["aggregation=median"], "aggregation is a section, .*such as aggregation.name=median"),
    (["client=3"], "client is a section"),
    (["poison.factor=3"], "poison.factor is not an option of 'none'"),
])  # fmt: skip
def test_what_cannot_be_set_is_one_sentence(settings, message):
    with pytest.raises(UsageError, match=message) as refusal:
        after(*settings)
    assert "\n" not in str(refusal.value)


def test_a_key_by_an_older_name_is_refused_with_the_new_one():
    for old, new in RENAMED_KEYS.items():
        with pytest.raises(UsageError, match=f"{old} is now called {new}"):
            after(f"{old}=1")


def test_whole_plain_sections_are_set_key_by_key():
    config = after("client={'epochs': 2, 'clip': 1}")
    assert (config.client.epochs, config.client.clip, config.client.loss) == (2, 1.0, "squared")


def test_a_second_task_takes_keys_of_its_own():
    config, _ = base_config("digits")
    assert after("partition.classes=2", "model.hidden=16,8", config=config).model.hidden == (16, 8)


def test_an_argument_may_be_a_dict_and_be_set_anew():
    path = "client.learning_rate_schedule"
    config = after(f"{path}={{'name': 'piecewise_constant_schedule', 'boundaries_and_scales': {{3: 0.1}}}}")
    assert config.client.learning_rate_schedule.boundaries_and_scales.to_dict() == {3: 0.1}
    config = after(f"{path}.boundaries_and_scales={{5: 0.5}}", config=config)
    assert config.client.learning_rate_schedule.boundaries_and_scales.to_dict() == {5: 0.5}
    with pytest.raises(UsageError, match=rf"^{path}.boundaries_and_scales is '3': it must be a dict, such as"):
        after(f"{path}.boundaries_and_scales=3", config=config)

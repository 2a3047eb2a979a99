"""The forms behind a file's name, and where the files in configs/ begin."""

import pytest

from fedsparse_jax.config import base_config, defaults, load_config, parse_forms, shrink_for_smoke_test, sparsify
from fedsparse_jax.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "forms", "number"),
    [
        ("", set(), None),
        ("smoke", {"smoke"}, None),
        ("tuned+90+smoke", {"smoke", "tuned"}, 90.0),
        ("97.5", set(), 97.5),
        ("0", set(), 0.0),
        ("smoke++smoke", {"smoke"}, None),
    ],
)
def test_forms_by_hand(text, forms, number):
    assert parse_forms(text, "smoke", "tuned", percent=True) == (forms, number)


def test_two_numbers_at_once_are_refused():
    with pytest.raises(UsageError, match=r"asked for 90 and 95 % at once; give one sparsity"):
        parse_forms("95+smoke+90", "smoke", percent=True)
    assert parse_forms("90+90", percent=True) == (set(), 90.0)


@pytest.mark.parametrize("text", ["tiny", "smoke+tiny", "9x", "1.2.3", "-5"])
def test_an_unknown_form_is_refused_with_those_that_there_are(text):
    message = r"no form '\S+'; behind the file name may stand: smoke, a sparsity in percent"
    with pytest.raises(UsageError, match=message):
        parse_forms(text, "smoke", percent=True)


def test_a_number_is_refused_where_no_sparsity_may_stand():
    with pytest.raises(UsageError, match=r"no form '90'; behind the file name may stand: smoke$"):
        parse_forms("90", "smoke")


def test_a_sparsity_in_percent(repository):
    snip = f"{repository}/configs/methods/snip.py"
    assert load_config(f"{snip}:digits+90").pruning.sparsity == 0.9
    assert load_config(f"{snip}:97.5").pruning.sparsity == 0.975
    assert load_config(snip).pruning.sparsity == 0.95


def test_forms_of_the_second_task_stand_behind_digits_alone(repository):
    with pytest.raises(UsageError, match="no form 'cnn'"):
        load_config(f"{repository}/configs/methods/fedavg.py:cnn")
    config, others = base_config("digits+cnn+iid+mine", "mine", "theirs")
    assert others == {"mine"} and config.task == "classification"
    assert config.model.name == "image_cnn" and config.partition.name == "uniform_iid"
    assert config.partition.num_clients == 10


def test_without_forms_a_method_begins_with_the_defaults():
    config, others = base_config("", "tuned")
    assert config.to_dict() == defaults().to_dict() and others == set()


def test_the_smallest_run_keeps_the_method():
    config = shrink_for_smoke_test(sparsify(defaults(), "client", begin=3, end=17, every=2))
    assert config.rounds == 3 and config.data.shape == (16, 18, 16) and config.model.name == "flat_cnn"
    assert config.pruning.placement == "client" and config.pruning.sparsity == 0.95
    assert config.pruning.schedule.to_dict() == dict(name="gradual", initial=0.0, begin=1, end=3, every=2)


def test_what_is_sparsified_keeps_the_other_keys():
    config = sparsify(defaults(), "server", begin=8, end=18)
    assert config.pruning.schedule.to_dict() == dict(name="gradual", initial=0.0, begin=8, end=18, every=1)
    assert config.pruning.placement == "server" and config.pruning.criterion == "magnitude"
    with pytest.raises(AttributeError):
        config.pruning.palcement = "client"  # still locked

"""Run folders of earlier versions: their configs in today's words, their folders under today's names."""

import copy

import pytest

from fedsparse_jax.runs.migrations import upgrade_folder, upgrade_stored_config

OLD = {
    "method": "lotteryfl",
    "seed": 3,
    "client": {"proximal": 0.1, "towards": "zero", "optimizer": {"name": "sgd", "learning_rate": 0.5}},
    "pruning": {"placement": "arrival", "sparsity": 0.9, "over": "one", "gate": 0.5, "rewind": True},
    "wire": {"mode": "through", "dtype": "int8", "feedback": True},
}
NEW = {
    "method": "lotteryfl",
    "seed": 3,
    "client": {"proximal": 0.1, "proximal_anchor": "zero", "optimizer": {"name": "sgd", "learning_rate": 0.5}},
    "pruning": {"placement": "none", "sparsity": 0.9, "scored_clients": "one"},
    "hooks": {"name": "lottery_tickets", "min_accuracy": 0.5, "reset_to_initial": True},
    "communication": {"mode": "transmit", "dtype": "int8", "feedback": True},
}


def test_every_old_key_gets_its_new_name():
    assert upgrade_stored_config(OLD) == NEW


def test_what_is_stored_stays_as_it_is():
    stored = copy.deepcopy(OLD)
    upgrade_stored_config(stored)
    assert stored == OLD


def test_a_config_of_today_is_left_alone():
    assert upgrade_stored_config(NEW) == NEW


@pytest.mark.parametrize("mode", ["off", "measure"])
def test_the_other_message_modes_keep_their_names(mode):
    assert upgrade_stored_config({"wire": {"mode": mode}})["communication"] == {"mode": mode}


def test_other_placements_stay_beside_the_lottery():
    old = {"pruning": {"placement": "init+arrival+server"}}
    assert upgrade_stored_config(old)["pruning"] == {"placement": "init+server"}


def test_a_method_without_lottery_loses_the_options_of_it():
    old = {"pruning": {"placement": "server", "gate": 0.0, "rewind": False}}
    assert upgrade_stored_config(old) == {"pruning": {"placement": "server"}, "hooks": {"name": "none"}}


def test_a_config_of_before_there_were_messages_gets_none():
    assert "communication" not in upgrade_stored_config({"seed": 1})


def test_the_folder_of_client_records_gets_its_new_name(tmp_path):
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "5.npz").write_bytes(b"masks")
    for _ in range(2):  # the second time there is nothing left to do
        upgrade_folder(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["client_records"]
        assert (tmp_path / "client_records" / "5.npz").read_bytes() == b"masks"


def test_client_records_of_today_are_never_overwritten(tmp_path):
    for name in ("held", "client_records"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "5.npz").write_text(name)
    upgrade_folder(tmp_path)
    assert (tmp_path / "client_records" / "5.npz").read_text() == "client_records"
    assert (tmp_path / "held" / "5.npz").exists()

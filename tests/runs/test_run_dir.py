"""The run folder: what is written when it is opened, and which folders are refused or taken over."""

import json
import shutil
import subprocess
import sys

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json, write_json
from fedsparse_jax.runs import run_dir, run_experiment, stored_config
from fedsparse_jax.runs.run_dir import open_run_dir
from tests.helpers import toy_federation
from tests.helpers.interrupted import QUIET, Killed, stop_after, without_time

IN_OLD_NAMES = {
    "method": "server",
    "seed": 3,
    "task": "regression",
    "client": {"rate": 0.01, "towards": "zero"},
    "pruning": {"placement": "arrival", "over": "all", "gate": 0.5, "rewind": True},
    "wire": {"mode": "through", "dtype": "float32", "feedback": False},
    "log": {},
}
IN_NEW_NAMES = {
    "method": "server",
    "seed": 3,
    "task": "regression",
    "client": {"rate": 0.01, "proximal_anchor": "zero"},
    "pruning": {"placement": "none", "scored_clients": "all"},
    "hooks": {"name": "lottery_tickets", "min_accuracy": 0.5, "reset_to_initial": True},
    "communication": {"mode": "transmit", "dtype": "float32", "feedback": False},
    "log": {},
}


def changed(config, section, **values):
    return {**config, section: {**config[section], **values}}


def test_an_opened_folder_says_what_the_run_is_about(tmp_path):
    experiment = toy_federation.experiment()
    open_run_dir(tmp_path / "run", experiment)
    assert read_json(tmp_path / "run/config.json") == {"config": experiment.config}
    federation, environment = (read_json(tmp_path / f"run/{name}.json") for name in ("federation", "environment"))
    assert [client["n"] for client in federation["clients"]] == [4, 8, 10] and federation["test"]["n"] == 8
    assert federation["shape"] == [4, 5, 4] and federation["total_weights"] == sum(federation["layers"].values())
    assert federation["flops"] == 2 * federation["total_weights"]  # the toy counts one use a weight
    assert environment["seed"] == 3


def test_another_experiment_in_the_folder_is_refused(tmp_path):
    run_experiment(toy_federation.experiment(rounds=1), tmp_path, print_fn=QUIET)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(UsageError, match=r"there client.rate is 0.01, here it is 0.5"):
        run_experiment(toy_federation.experiment(rounds=1, rate=0.5), tmp_path, print_fn=QUIET)
    assert (tmp_path / "config.json").read_text() == before


def test_all_keys_that_differ_are_named(tmp_path):
    write_json(tmp_path / "config.json", {"config": IN_NEW_NAMES})
    other = changed({**IN_NEW_NAMES, "seed": 4}, "client", rate=0.5)
    with pytest.raises(UsageError) as refused:
        open_run_dir(tmp_path, toy_federation.experiment(config=other))
    assert str(refused.value) == (
        f"{tmp_path} holds another experiment: there client.rate is 0.01, here it is 0.5; there seed is 3, here it is 4; "
        "choose another --workdir."
    )


@pytest.mark.parametrize("name", ["checkpoints", "client_records"])
def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path, name):
    run_experiment(toy_federation.experiment(rounds=1), tmp_path, print_fn=QUIET)
    shutil.rmtree(tmp_path / name)
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"{name} is a file, and a folder is needed there; move it away"):
        run_experiment(toy_federation.experiment(rounds=2), tmp_path, print_fn=QUIET)


def test_what_a_killed_process_began_to_write_is_deleted(tmp_path):
    for folder in (tmp_path, tmp_path / "client_records"):
        folder.mkdir(exist_ok=True)
        (folder / ".3.npz.0a1b2c3d.partial").write_bytes(b"half")
    open_run_dir(tmp_path, toy_federation.experiment())
    assert not list(tmp_path.rglob("*.partial"))


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    hold = "import sys, time; from pathlib import Path; from fedsparse_jax.runs.run_dir import lock_run_dir\n"
    hold += "with lock_run_dir(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "run")], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=r"^Another process trains in .*run; wait for it to end, or stop it"):
            run_experiment(toy_federation.experiment(rounds=1), tmp_path / "run", print_fn=QUIET)
        other.kill()
    assert len(run_experiment(toy_federation.experiment(rounds=1), tmp_path / "run", print_fn=QUIET)) == 1


@pytest.mark.parametrize("name", ["environment", "federation", "people", "config"])
def test_a_start_that_was_stopped_can_be_made_again(tmp_path, monkeypatch, name):
    """Killed before one of the files that make a run folder: the next start makes a whole one."""

    def dies_before(write):
        def writing(path, *args):
            if path.name.startswith(name):
                raise Killed
            write(path, *args)

        return writing

    with monkeypatch.context() as patch:
        patch.setattr(run_dir, "write_json", dies_before(run_dir.write_json))
        patch.setattr(run_dir.roster, "write_roster", dies_before(run_dir.roster.write_roster))
        with pytest.raises(Killed):
            run_experiment(toy_federation.experiment(rounds=1), tmp_path, print_fn=QUIET)
    other = toy_federation.experiment(rounds=1, config={**IN_NEW_NAMES, "seed": 4})
    assert len(run_experiment(other, tmp_path, print_fn=QUIET)) == 1
    assert not run_dir.is_of_0_1(tmp_path) and len(run_dir.recorded_people(tmp_path)) == 30


@pytest.mark.parametrize("content", ["", '{"config": {"seed": ', "\ufffd\x00"])
def test_a_damaged_config_is_one_sentence(tmp_path, content):
    run_experiment(toy_federation.experiment(rounds=1), tmp_path, print_fn=QUIET)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"config.json is damaged .*; put a sound copy in its place"):
        run_experiment(toy_federation.experiment(rounds=1), tmp_path, print_fn=QUIET)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UsageError, match="run is a file, and a folder is needed there; move it away"):
        run_experiment(toy_federation.experiment(rounds=1), tmp_path / "run", print_fn=QUIET)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        run_experiment(toy_federation.experiment(), tmp_path, print_fn=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_without_a_run_has_no_config(tmp_path):
    with pytest.raises(UsageError, match=r"holds no run \(no config.json\)"):
        stored_config(tmp_path)


@pytest.mark.parametrize("section", ["execution", "checkpoint", "log"])
def test_what_changes_only_the_cost_may_differ(tmp_path, section):
    open_run_dir(tmp_path, toy_federation.experiment(config={**IN_NEW_NAMES, section: {"every": 1}}))
    open_run_dir(tmp_path, toy_federation.experiment(config={**IN_NEW_NAMES, section: {"every": 2}}))
    assert stored_config(tmp_path)[section] == {"every": 2}


def test_the_same_config_in_old_names_is_accepted(tmp_path):
    write_json(tmp_path / "config.json", {"config": IN_OLD_NAMES})
    assert stored_config(tmp_path) == IN_NEW_NAMES
    open_run_dir(tmp_path, toy_federation.experiment(config=IN_NEW_NAMES))
    assert read_json(tmp_path / "config.json") == {"config": IN_NEW_NAMES}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(IN_OLD_NAMES, "client", towards="global"), "client.proximal_anchor is 'global', here it is 'zero'"),
        (changed(IN_OLD_NAMES, "wire", mode="measure"), "communication.mode is 'measure', here it is 'transmit'"),
        (changed(IN_OLD_NAMES, "pruning", gate=0.25), "hooks.min_accuracy is 0.25, here it is 0.5"),
    ],
)
def test_another_config_in_old_names_is_refused_in_new_ones(tmp_path, config, message):
    write_json(tmp_path / "config.json", {"config": config})
    with pytest.raises(UsageError, match=message):
        open_run_dir(tmp_path, toy_federation.experiment(config=IN_NEW_NAMES))
    assert read_json(tmp_path / "config.json") == {"config": config}


def test_a_method_without_lottery_in_old_names_is_accepted(tmp_path):
    old = changed(IN_OLD_NAMES, "pruning", placement="server", gate=0.0, rewind=False)
    new = {**changed(IN_NEW_NAMES, "pruning", placement="server"), "hooks": {"name": "none"}}
    write_json(tmp_path / "config.json", {"config": old})
    open_run_dir(tmp_path, toy_federation.experiment(config=new))
    assert read_json(tmp_path / "config.json") == {"config": new}


def test_a_run_goes_on_in_a_folder_with_old_names(tmp_path):
    old = {"method": "server", "seed": 3, "task": "regression", "wire": {"mode": "through"}}
    new = {"method": "server", "seed": 3, "task": "regression", "communication": {"mode": "transmit"}}
    experiment = toy_federation.experiment(mode="transmit", config=new)
    whole = run_experiment(experiment, tmp_path / "whole", print_fn=QUIET)
    with pytest.raises(Killed):
        run_experiment(experiment, tmp_path / "parts", print_fn=stop_after(2))
    (tmp_path / "parts/client_records").rename(tmp_path / "parts/held")
    (tmp_path / "parts/config.json").write_text(json.dumps({"config": old}))
    parts = run_experiment(experiment, tmp_path / "parts", print_fn=QUIET)
    assert without_time(whole) == without_time(parts)  # with the bytes, which depend on what both sides know
    assert (tmp_path / "parts/client_records/5.npz").exists() and not (tmp_path / "parts/held").exists()


def test_without_its_client_records_a_run_sends_whole_masks_again(tmp_path):
    """The test above would notice a folder that is not found."""
    with pytest.raises(Killed):
        run_experiment(toy_federation.experiment(), tmp_path / "parts", print_fn=stop_after(2))
    shutil.copytree(tmp_path / "parts", tmp_path / "without")
    shutil.rmtree(tmp_path / "without/client_records")
    parts, without = (
        run_experiment(toy_federation.experiment(), tmp_path / name, print_fn=QUIET) for name in ("parts", "without")
    )
    assert without[2].bytes_down_total > parts[2].bytes_down_total

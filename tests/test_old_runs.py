"""A run folder that version 0.1 has written: it goes on, is evaluated and reported, in today's words.

``tests/files/run_of_0_1.tar.gz`` was made at commit e986826, when every key had its old name, by a method with all that a
folder can hold (masks and optimizers of the clients, lossy messages with feedback), of three rounds:

    python scripts/train.py --config=configs/lotteryfl.py:digits+smoke --config.model.hidden="(4,)" \
        --config.participation=0.5 --config.wire.mode=through --config.wire.dtype=int8 --config.wire.feedback=True \
        --config.client.optimizer_state=kept --config.checkpoint.keep=2 --workdir=run_of_0_1
"""

import json
import shutil
import tarfile

import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config, load_run
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.reporting import write_report
from fedsparse_jax.runs import read_records, run_experiment
from fedsparse_jax.studies import evaluate_run

QUIET = lambda _: None


@pytest.fixture
def old_run(repository, tmp_path):
    with tarfile.open(repository / "tests/files/run_of_0_1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run_of_0_1"


def todays_config(repository):
    config = load_config(str(repository / "configs/methods/lotteryfl.py:digits+smoke"))
    config.model.hidden, config.participation, config.checkpoint.keep = (4,), 0.5, 2
    config.communication.update(mode="transmit", dtype="int8", feedback=True)
    config.client.optimizer_state = "kept"
    return config


def test_it_is_loaded_with_the_new_names(old_run):
    config, network, server = load_run(old_run)
    assert config.hooks.to_dict() == {"name": "lottery_tickets", "min_accuracy": 0.2, "reset_to_initial": True}
    assert config.pruning.placement == "none" and config.pruning.scored_clients == "all"
    assert config.communication.to_dict() == {"mode": "transmit", "dtype": "int8", "feedback": True}
    assert config.client.proximal_anchor == "global" and "wire" not in config
    assert int(server.round) == 3 and server.memory.state.shape == (10,)
    assert np.isfinite(network.apply(server.params, np.zeros((1, 8, 8, 1), np.float32))).all()


def test_it_is_not_judged_while_nobody_knows_whom_it_was_trained_on(old_run):
    with pytest.raises(UsageError, match=r"recorded nobody.* Give the command that trained it once more"):
        evaluate_run(old_run, "nowhere")


def test_it_goes_on_from_where_it_stopped(old_run, repository):
    whole = read_records(old_run)
    for part in ("checkpoints/3", "held/3.npz"):
        path = old_run / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    lines = []
    config = todays_config(repository)
    with pytest.raises(UsageError, match=r"divided them otherwise \(federation.json, clients\)"):
        run_experiment(experiment_from_config(config), old_run, lines.append)
    records = run_experiment(experiment_from_config(config, workdir=old_run), old_run, lines.append)
    assert f"{old_run} holds 2 of 3 rounds: going on from there." in lines
    assert [record.round for record in records] == [1, 2, 3] and records[:2] == whole[:2]
    assert records[2].density == pytest.approx(whole[2].density, abs=1e-3)
    assert records[2].bytes_up_total == pytest.approx(whole[2].bytes_up_total, rel=0.01)
    assert records[2].test["accuracy"] == pytest.approx(whole[2].test["accuracy"], abs=0.01)
    assert (old_run / "client_records/3.npz").exists() and not (old_run / "held").exists()
    assert json.loads((old_run / "config.json").read_text())["config"]["hooks"]["name"] == "lottery_tickets"


def test_another_experiment_is_refused_in_todays_words(old_run, repository):
    config = todays_config(repository)
    config.hooks.min_accuracy = 0.5
    with pytest.raises(UsageError, match=r"there hooks.min_accuracy is 0.2, here it is 0.5"):
        run_experiment(experiment_from_config(config), old_run, QUIET)


def test_its_report_is_written(old_run):
    page = write_report(old_run).read_text()
    assert "lotteryfl, seed 1990" in page and "3 of 3" in page

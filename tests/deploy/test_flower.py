"""Three sites by Flower, processes on loopback, against the simulation of the same federation."""

from pathlib import Path

import pytest

from fedsparse_jax.config import experiment_from_config
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.deploy import flower_job
from fedsparse_jax.runs import read_records, run_experiment
from tests.helpers import three_sites
from tests.helpers.interrupted import QUIET

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow  # minutes, since Flower starts a process for each message to a site

LIMITS = dict(round_timeout=600, join_timeout=600)
METHODS = {
    "global": ("configs/quickstart.py:smoke", {}),
    "local": ("configs/quickstart.py:local+smoke", {}),
    "local, int8": (
        "configs/quickstart.py:local+smoke",
        {"communication.dtype": "int8", "communication.feedback": "true"},
    ),
    "feddst": ("configs/methods/feddst.py:coarse+smoke", {}),
}


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    root = tmp_path_factory.mktemp("sites")
    three_sites.write_sites(root)
    return root


def deploy(config, sites, workdir):
    folders = [sites / name for name in three_sites.NAMES]
    flower_job.simulate_by_flower(config, folders, sites / "test", workdir, **LIMITS)


@pytest.mark.parametrize("method", METHODS)
def test_three_processes_end_where_the_simulation_ends_and_send_the_bytes_that_it_counts(method, sites, tmp_path):
    spec, settings = METHODS[method]
    settings |= {"communication.mode": "transmit"}
    whole = three_sites.config(
        spec, tmp_path / "cache", **three_sites.OF_ALL | {"data.root": str(sites / "all")} | settings
    )
    simulated = run_experiment(experiment_from_config(whole), tmp_path / "simulated", QUIET)
    deploy(three_sites.config(spec, tmp_path / "cache", **settings), sites, tmp_path / "deployed")
    deployed = read_records(tmp_path / "deployed")
    assert three_sites.distance(tmp_path / "simulated", tmp_path / "deployed") == 0
    for a, b in zip(simulated, deployed, strict=True):
        assert (a.bytes_down, a.bytes_up, a.density) == (b.bytes_down, b.bytes_up, b.density)
        assert a.left_out == b.left_out == {}


def test_the_rounds_go_on_without_those_who_die_or_send_rubbish_and_name_them(sites, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(flower_job, "SITE_APP", "tests.helpers.hostile_flower_site:client_app")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    config = three_sites.config("configs/quickstart.py:dense+smoke", tmp_path / "cache", rounds="4")
    deploy(config, sites, tmp_path / "run")
    told = capfd.readouterr().out
    assert [one.left_out for one in read_records(tmp_path / "run")] == [
        {"refused": [0]}, {"dropped_out": [1], "refused": [0]}, {"not_a_number": [2]}, {},
    ]  # fmt: skip
    assert "The reply of site 0 (site-1) in round 1 is refused: What came is no envelope" in told
    assert "The reply of site 0 (site-1) in round 2 is refused: it is of round 1." in told
    assert "Site 1 (site-2) gives no answer; its console says why." in told
    assert "The reply of site 2 (site-3) holds a loss, weight or score that is not a number." in told


def test_a_site_with_nothing_to_read_is_named_and_the_run_does_not_begin(sites, tmp_path, capfd):
    config = three_sites.config("configs/quickstart.py:dense+smoke", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    folders = [sites / "north", tmp_path / "empty"]
    with pytest.raises(UsageError, match="Of 2 sites these have not joined: 1; start them"):
        flower_job.simulate_by_flower(config, folders, sites / "test", tmp_path / "run", **LIMITS)
    assert "site-2: " in capfd.readouterr().out

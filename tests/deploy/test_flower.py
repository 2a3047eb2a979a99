"""Three sites by Flower, processes on loopback, against the simulation of the same federation."""

from pathlib import Path

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.deploy import flower_job
from tests.helpers import three_sites

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow  # minutes, since Flower starts a process for each message to a site

LIMITS = dict(round_timeout=600, join_timeout=600)


def deploy(config, sites, workdir):
    folders = [sites / name for name in three_sites.NAMES]
    flower_job.simulate_by_flower(config, folders, sites / "test", workdir, **LIMITS)


@pytest.mark.parametrize("method", three_sites.METHODS)
def test_three_processes_end_where_the_simulation_ends_and_send_the_bytes_that_it_counts(method, sites, tmp_path):
    play = lambda config, workdir: deploy(config, sites, workdir)
    three_sites.check_they_end_where_the_simulation_ends(method, sites, tmp_path, play, within=0)


def test_the_rounds_go_on_without_those_who_die_or_send_rubbish_and_name_them(sites, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(flower_job, "SITE_APP", "tests.helpers.hostile_flower_site:client_app")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    config = three_sites.config("configs/quickstart.py:dense+smoke", tmp_path / "cache", rounds="4")
    deploy(config, sites, tmp_path / "run")
    three_sites.check_the_hostile_are_named(tmp_path / "run", capfd.readouterr().out)


def test_a_site_with_nothing_to_read_is_named_and_the_run_does_not_begin(sites, tmp_path, capfd):
    config = three_sites.config("configs/quickstart.py:dense+smoke", tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    folders = [sites / "north", tmp_path / "empty"]
    with pytest.raises(UsageError, match="Of 2 sites these have not joined: 1; start them"):
        flower_job.simulate_by_flower(config, folders, sites / "test", tmp_path / "run", **LIMITS)
    assert "site-2: " in capfd.readouterr().out

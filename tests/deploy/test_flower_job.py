"""The app and the folders of Flower's sides, as files; Flower itself is not needed to write them."""

import importlib
import json
import tomllib
from typing import Any

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.deploy import flower, flower_job
from tests.helpers import three_sites

SPEC = "configs/quickstart.py:smoke"


def test_an_app_tells_nobody_where_scans_lie_and_holds_no_code(tmp_path):
    place = {"data.source": "bids", "data.root": "/my/scans", "data.options.participants": "/my/ages.csv"}
    config = three_sites.config(SPEC, tmp_path, **place)
    flower_job.write_app(config, three_sites.NAMES, tmp_path / "app", "brain-age", round_timeout=60)
    (file,) = (tmp_path / "app").iterdir()
    app = tomllib.loads(file.read_text())["tool"]["flwr"]["app"]
    settings = app["config"]
    shared = json.loads(settings.pop("experiment"))
    assert shared["partition"]["num_clients"] == 3 and "/my" not in file.read_text()
    assert settings == {"run": "brain-age", "sites": "north,south,west", "round-timeout": 60, "join-timeout": 3600}
    assert {reference.partition(":")[0] for reference in app["components"].values()} == {flower.__name__}


def test_what_an_app_names_is_there():
    pytest.importorskip("flwr")
    for reference in (flower_job.SERVER_APP, flower_job.SITE_APP):
        module, _, name = reference.partition(":")
        assert hasattr(importlib.import_module(module), name)


def test_where_flower_is_not_installed_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(flower, "ServerApp", Any)
    with pytest.raises(UsageError, match=r"install the extra by: pip install -e '\.\[flower\]'"):
        flower_job.simulate_by_flower(None, [], tmp_path, tmp_path / "run")


@pytest.mark.parametrize("sites", [["north", "north"], ["a b", "c"], ["server", "c"], ["../a", "c"], ["a,b", "c"]])
def test_impossible_names_of_sites_are_refused(sites, tmp_path):
    with pytest.raises(UsageError, match="cannot be the name of a site"):
        flower_job.write_app(three_sites.config(SPEC, tmp_path), sites, tmp_path / "app", "run")


def test_a_side_learns_where_its_scans_lie_and_starts_with_everything_switched_off(tmp_path):
    certificate = tmp_path / "server.crt"
    certificate.write_text("certificate")
    for name in ("server", "north"):
        flower_job.prepare_folder(tmp_path / name, name, {"data.root": "/scans"}, "fl.org:9400", certificate)
        assert json.loads((tmp_path / name / "fedsparse_jax.json").read_text()) == {name: {"data.root": "/scans"}}
        assert (tmp_path / name / "server.crt").read_text() == "certificate"
        start = tmp_path / name / "start.sh"
        assert start.stat().st_mode & 0o111
        for key, value in flower_job.QUIET.items():
            assert f" {key}={value}" in start.read_text()
    connection = tomllib.loads((tmp_path / "server/config.toml").read_text())["superlink"]["server"]
    assert connection == {"address": "fl.org:9400", "root-certificates": str(tmp_path / "server/server.crt")}
    assert "--port 9400 --enable-supernode-auth" in (tmp_path / "server/start.sh").read_text()
    assert "--superlink fl.org:9400 " in (tmp_path / "north/start.sh").read_text()


@pytest.mark.parametrize(
    ("name", "address", "certificate", "sentence"),
    [
        ("", "fl.org:9400", "server.crt", "'' cannot be the name of a site"),
        ("north", "fl.org", "server.crt", "'fl.org' is no address of a server; give host:port"),
        ("north", "fl.org:9400", "other.crt", "other.crt: there is no such certificate"),
    ],
)
def test_a_side_that_cannot_start_is_refused(name, address, certificate, sentence, tmp_path):
    (tmp_path / "server.crt").touch()
    with pytest.raises(UsageError, match=sentence):
        flower_job.prepare_folder(tmp_path / "kit", name, {"data.root": "/scans"}, address, tmp_path / certificate)
    assert not (tmp_path / "kit").exists()

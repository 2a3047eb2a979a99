"""The job and the start-up kits of NVIDIA FLARE, as files; NVFlare itself is not needed to write them."""

import json

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.deploy import flare, flare_job
from fedsparse_jax.deploy.own_scans import own_config, shared_config
from tests.helpers import three_sites

SPEC = "configs/quickstart.py:smoke"


def test_a_job_tells_nobody_where_scans_lie_and_holds_no_code(tmp_path):
    place = {"data.source": "bids", "data.root": "/my/scans", "data.options.participants": "/my/ages.csv"}
    config = three_sites.config(SPEC, tmp_path, **place)
    flare_job.write_job(config, three_sites.NAMES, tmp_path / "job", "brain-age", round_timeout=60)
    files = sorted(
        path.relative_to(tmp_path / "job").as_posix() for path in tmp_path.rglob("job/**/*") if path.is_file()
    )
    names = ["config_fed_client.json", "config_fed_server.json", "experiment.json"]
    assert files == [*(f"app/config/{name}" for name in names), "meta.json"]
    shared = json.loads((tmp_path / "job/app/config/experiment.json").read_text())
    assert shared["partition"]["num_clients"] == 3 and "/my" not in json.dumps(shared)
    server = json.loads((tmp_path / "job/app/config/config_fed_server.json").read_text())["workflows"][0]
    assert server["args"] == {"sites": three_sites.NAMES, "run": "brain-age", "round_timeout": 60, "join_timeout": 3600}
    for kind in (
        server["path"],
        json.loads((tmp_path / "job" / files[0]).read_text())["executors"][0]["executor"]["path"],
    ):
        assert hasattr(flare, kind.removeprefix("fedsparse_jax.deploy.flare."))


@pytest.mark.parametrize("sites", [["north", "north"], ["a b", "c"], ["server", "c"], ["../a", "c"]])
def test_impossible_names_of_sites_are_refused(sites, tmp_path):
    with pytest.raises(UsageError, match="cannot be the name of a site"):
        flare_job.write_job(three_sites.config(SPEC, tmp_path), sites, tmp_path / "job", "run")


def test_each_side_sets_its_own_keys_and_no_others(tmp_path):
    shared = json.loads(json.dumps(shared_config(three_sites.config(SPEC, tmp_path))))
    config = own_config(shared, {"data.root": "/scans", "data.workers": 3, "data.source": "table"}, "own.json")
    assert (config.data.root, config.data.workers, config.data.source) == ("/scans", 3, "table")
    with pytest.raises(UsageError, match=r"own\.json: client\.epochs must be the same for all sides"):
        own_config(shared, {"data.root": "/scans", "client.epochs": 9}, "own.json")
    with pytest.raises(UsageError, match=r"own\.json: data\.root is missing"):
        own_config({**shared, "data": {**shared["data"], "root": "/somebody's"}}, {}, "own.json")


def test_a_kit_learns_where_its_scans_lie_and_which_classes_a_job_may_use(tmp_path):
    for name in ("startup", "local"):
        (tmp_path / name).mkdir()
    (tmp_path / "startup/fed_client.json").write_text(json.dumps({"client": {"fqsn": "north"}}))
    (tmp_path / "local/resources.json.default").write_text(json.dumps({"class_allow_list": ["nvflare.x"]}))
    policy = {"format_version": "1.0", "permissions": {"project_admin": "any", "member": {"view": "any"}}}
    (tmp_path / "local/authorization.json.default").write_text(json.dumps(policy))
    for _ in range(2):  # the second time changes nothing
        assert flare_job.prepare_kit(tmp_path, {"data.root": "/scans"}) == "north"
    assert json.loads((tmp_path / "local/fedsparse_jax.json").read_text()) == {"north": {"data.root": "/scans"}}
    assert json.loads((tmp_path / "local/resources.json").read_text())["class_allow_list"] == [
        "nvflare.x", "fedsparse_jax.deploy.flare.RoundsController", "fedsparse_jax.deploy.flare.SiteExecutor",
    ]  # fmt: skip
    roles = json.loads((tmp_path / "local/authorization.json").read_text())["permissions"]
    assert roles["project_admin"]["submit_job"] == "any" and roles["member"]["view"] == "any"
    assert all(role["byoc"] == role["shell_commands"] == "none" for role in roles.values())
    with pytest.raises(UsageError, match="is no start-up kit of a site or server"):
        flare_job.prepare_kit(tmp_path / "local", {})


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(flare, "Controller", object)
    with pytest.raises(UsageError, match=r"install the extra by: pip install -e '\.\[nvflare\]'"):
        flare_job.simulate_sites(None, [], tmp_path, tmp_path / "run")

"""From a user's folder or table to a federation: by the commands of the configs, with the user's own record of sets."""

import ast
import re
import shlex
import shutil
from pathlib import Path

import pytest

from fedsparse_jax.cli.flags import _as_settings
from fedsparse_jax.config import experiment_from_config, load_config, override
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.runs.run_dir import open_run_dir, stored_config

ROOT = Path(__file__).parent.parent
SCANS = str(ROOT / "tests/files/ds002748_small")  # six real people
OF_IMAGES = ("travelling.py",)  # the config is about how few images a site has
OF_SCANS = [path for path in ROOT.glob("configs/*.py") if path.name not in OF_IMAGES]
CONFIGS = sorted([*OF_SCANS, *ROOT.glob("configs/methods/*.py")])
COMMAND = re.compile(r"^python scripts/train\.py (.*)$", re.MULTILINE)
OWN = "--config.data.source=bids --config.data.root=FOLDER"  # what every config takes, and the methods' docstrings say


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def config_of(command, *more):
    """The config of a command line, as the script would have it."""
    words = _as_settings(shlex.split(command))
    spec = next(word.removeprefix("--config=") for word in words if word.startswith("--config="))
    settings = [word.removeprefix("--set=").split("=", 1) for word in words if word.startswith("--set=")]
    return override(load_config(str(ROOT / spec)), [*settings, *more])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_command_in_the_docstring_makes_a_federation_of_a_users_scans(path, cache):
    text = re.sub(r"\\\n\s*", "", ast.get_docstring(ast.parse(path.read_text())))
    (command,) = COMMAND.findall(text)
    if path.parent.name == "methods":
        assert command.endswith(OWN)
    command = command if OWN in command else f"{command} {OWN}"
    small = [("data.cache_dir", cache), ("partition.num_clients", "2")]  # two clients, as there are six people
    config = config_of(command.replace("FOLDER", SCANS), *small)
    assert config.data.source == "bids" and config.data.options.to_dict() == {}
    experiment = experiment_from_config(config)
    data = experiment.federation
    assert {row["participant_id"] for row in data.people} == {
        "sub-01",
        "sub-10",
        "sub-19",
        "sub-23",
        "sub-31",
        "sub-58",
    }
    assert len(data.members) == 2 and data.inputs.shape[1:-1] == tuple(load_config(str(path)).data.shape)


def write_table(path, sites="AABBC", splits=("train", "train", "train", "train", "test", "test"), people=6):
    """The six real people as a table of paths; the sites in turn."""
    files = sorted(Path(SCANS).glob("sub-*/anat/*.nii.gz"))[:people]
    rows = [
        f"{file.parts[-3]},{30 + i},{file},{sites[i % len(sites)]},{splits[i % len(splits)]}"
        for i, file in enumerate(files)
    ]
    path.write_text("\n".join(["id,age,path,site,split", *rows]) + "\n")
    return str(path)


def tiny(cache, *settings, source="table"):
    config = load_config(f"{ROOT}/configs/quickstart.py:dense+smoke")
    with config.unlocked():
        config.data.source, config.data.options = source, {}
    config.data.cache_dir, config.log.tensorboard, config.rounds = cache, False, 2
    return override(config, [text.split("=", 1) for text in settings])


def sets(experiment):
    data = experiment.federation
    names = [row["participant_id"] for row in data.people]
    return [sorted(names[i] for i in rows) for rows in (data.test, *data.members)]


def test_a_users_record_decides_who_is_tested(cache, tmp_path):
    table = write_table(tmp_path / "t.csv")
    config = tiny(cache, f"data.root={table}", "data.options.splits=split", "partition.num_clients=2")
    tested, *clients = sets(experiment_from_config(config))
    assert tested == ["sub-31", "sub-58"] and sorted([*clients[0], *clients[1]]) == [
        "sub-01",
        "sub-10",
        "sub-19",
        "sub-23",
    ]
    other = override(config, [("seed", "3"), ("data.test_share", "0.5")])
    assert sets(experiment_from_config(other))[0] == tested  # neither the share nor the seed


AUTO = ("partition.name=site", "partition.num_clients=auto")


def test_sites_give_their_own_number_of_clients_and_the_run_records_it(cache, tmp_path):
    table = write_table(tmp_path / "t.csv", sites="ABCABC")  # C's second person and B's are tested
    config = tiny(cache, f"data.root={table}", "data.options.splits=split", *AUTO)
    experiment = experiment_from_config(config)
    assert sets(experiment)[1:] == [["sub-01", "sub-23"], ["sub-10"], ["sub-19"]]
    assert (
        experiment.config["partition"] == dict(name="site", num_clients=3) and len(experiment.federation.members) == 3
    )
    open_run_dir(tmp_path / "run", experiment)
    assert stored_config(tmp_path / "run")["partition"]["num_clients"] == 3
    open_run_dir(tmp_path / "run", experiment_from_config(config, workdir=tmp_path / "run"))  # the same run goes on


def test_a_run_goes_on_where_tables_lie_elsewhere(cache, tmp_path):
    (tmp_path / "a").mkdir()
    table = write_table(tmp_path / "a/t.csv")
    shutil.copy(table, tmp_path / "a/p.csv")
    settings = lambda folder: [f"data.root={tmp_path}/{folder}/t.csv", f"data.options.participants={tmp_path}/{folder}/p.csv", f"data.options.splits={tmp_path}/{folder}/p.csv", "partition.num_clients=2"]  # fmt: skip
    open_run_dir(tmp_path / "run", experiment_from_config(tiny(cache, *settings("a"))))
    shutil.move(tmp_path / "a", tmp_path / "b")
    again = experiment_from_config(tiny(cache, *settings("b")), workdir=tmp_path / "run")
    open_run_dir(tmp_path / "run", again)
    assert sets(again)[0] == ["sub-31", "sub-58"]


@pytest.mark.parametrize(("settings", "message"), [
    (["partition.num_clients=auto"], "^partition.num_clients is 'auto', as many as there are sites, but partition.name is 'uniform_iid'"),
    (["partition.num_clients=some"], "^partition.num_clients is 'some': it must be a whole number or auto.$"),
    ([*AUTO, "faults.min_clients=9"], "faults.min_clients is 9, but 3 clients take part"),
    (["partition.name=site", "partition.num_clients=2"], r"data come from 3 sites \(A, B, C\); set it to 3 or to auto"),
])  # fmt: skip
def test_numbers_of_clients_that_cannot_be(cache, tmp_path, settings, message):
    table = write_table(tmp_path / "t.csv", sites="ABC")
    with pytest.raises(UsageError, match=message):
        experiment_from_config(tiny(cache, f"data.root={table}", "data.options.splits=split", *settings))


def test_what_is_left_out_is_said_when_a_run_begins(cache, tmp_path):
    table = Path(write_table(tmp_path / "t.csv"))
    table.write_text(table.read_text() + f"x,n/a,{tmp_path}/x.nii,A,train\ny,40,{tmp_path}/y.nii,A,train\n")
    experiment = experiment_from_config(
        tiny(cache, f"data.root={table}", "data.options.splits=split", "partition.num_clients=2")
    )
    assert experiment.remarks == ("Left out: 2 (1 x age is missing, 1 x no such file); scripts/prepare.py lists them.",)

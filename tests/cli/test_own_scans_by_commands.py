"""A user's own scans by commands: whole runs, refusals that name the way out, and ways out that work as typed."""

import shlex
import shutil
from pathlib import Path

import pytest

from fedsparse_jax.config import load_run

pytestmark = pytest.mark.slow  # runs of seconds, and many of them

SCANS = "tests/files/ds002748_small"  # six real people
OWN = f"--config.data.source=bids --config.data.root={SCANS}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def test_a_whole_run_by_such_a_command_with_keys_of_other_members(call, cache, tmp_path):
    small = (
        "--config.data.shape=16,18,16 --config.rounds=2 --config.model.name=flat_cnn --config.model.widths=4,8 "
        "--config.partition.name=dirichlet --config.partition.alpha=5 --config.partition.num_clients=2 "
        "--config.pruning.schedule.end=2 --config.client.optimizer.name=adam --config.client.optimizer.b1=0.8 "
        "--config.data.options.strict --nolog --config.client.epochs=1"
    ).replace("--nolog", "--noconfig.log.tensorboard --config.log.report=false")
    command = f"--config=configs/methods/fedsparsify_global.py --workdir={tmp_path}/run {OWN} {small}"
    done = call("train", *shlex.split(command), f"--config.data.cache_dir={cache}")
    assert done.returncode == 0, done.stderr
    config = load_run(tmp_path / "run")[0]
    assert config.partition.to_dict() == dict(name="dirichlet", alpha=5.0, num_clients=2)
    assert config.data.options.to_dict() == dict(strict=True) and not config.log.tensorboard
    assert config.client.optimizer.to_dict() == dict(name="adam", learning_rate=5e-5, b1=0.8)


def prepare(call, cache, output, *flags):
    small = ["--config.data.shape=16,18,16", f"--config.data.cache_dir={cache}", f"--output={output}"]
    return call("prepare", "--config=configs/real_scans.py", *small, *flags)


def test_where_nothing_can_be_used_all_is_listed_and_nothing_of_before_is_left(call, cache, tmp_path):
    assert prepare(call, cache, tmp_path / "out", f"--config.data.root={SCANS}").returncode == 0
    (tmp_path / "t.csv").write_text("id,age,path\na,60,one.nii\nb,61,two.nii\n")
    done = prepare(call, cache, tmp_path / "out", "--config.data.source=table", f"--config.data.root={tmp_path}/t.csv")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert (
        f"None of the 2 scans can be used (2 x no such file); the first is {tmp_path}/one.nii: no such file"
        in done.stderr
    )
    assert f"all are listed in {tmp_path}/out/dropped.tsv" in done.stderr
    assert (tmp_path / "out/dropped.tsv").read_text().count("no such file") == 2
    assert len((tmp_path / "out/accepted.tsv").read_text().splitlines()) == 1
    assert not (tmp_path / "out/contact_sheet.png").exists()


def test_a_table_without_ages_is_listed_too(call, cache, tmp_path):
    (tmp_path / "t.csv").write_text("id,age,path\na,n/a,one.nii\n")
    done = prepare(call, cache, tmp_path / "out", "--config.data.source=table", f"--config.data.root={tmp_path}/t.csv")
    assert done.returncode == 2 and "no scan is left (1 x age is missing)" in done.stderr
    assert "age is missing" in (tmp_path / "out/dropped.tsv").read_text()


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(SCANS, tmp_path / "mine")
    return tmp_path / "mine"


REMEDIES = {  # the head of participants.tsv and a row of it, the key that the refusal names, and what is typed then
    "89+": ("participant_id\tage", "89+", "cap_89", "True"),
    "two columns": ("participant_id\tage\tage_at_scan", "34\t35", "age_col", "age_at_scan"),
    "years": ("participant_id\tyears", "34", "age_col", "years"),
    "code": ("code\tage", "34", "id_col", "code"),
}


@pytest.mark.parametrize("odd", REMEDIES)
def test_the_key_that_a_refusal_names_works_as_typed(call, cache, folder, tmp_path, odd):
    head, cells, key, value = REMEDIES[odd]
    rows = [f"{path.name}\t{cells}" for path in sorted(folder.glob("sub-*"))]
    (folder / "participants.tsv").write_text("\n".join([head, *rows]) + "\n")
    root = f"--config.data.root={folder}"
    refused = prepare(call, cache, tmp_path / "out", root)
    assert refused.returncode == 2 and refused.stderr.startswith(f"data.options.{key} is ")
    done = prepare(call, cache, tmp_path / "out", root, f"--config.data.options.{key}={value}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("config", ["configs/methods/fedavg.py", "configs/real_scans.py:smoke"])
def test_nobody_is_told_to_delete_his_own_scans(call, folder, tmp_path, config):
    flags = [f"--config={config}", f"--output={tmp_path}/out", f"--config.data.root={folder}"]
    done = call("prepare", *flags)
    assert done.returncode == 2 and "delete this" not in done.stderr
    assert "set data.source to bids" in done.stderr
    done = call(
        "prepare",
        *flags,
        "--config.data.source=bids",
        "--config.data.shape=16,18,16",
        f"--config.data.cache_dir={tmp_path}/c",
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_for_a_table_and_a_table_for_a_folder(call, cache, folder, tmp_path):
    files = sorted(Path(SCANS).resolve().glob("sub-*/anat/*.nii.gz"))
    table = tmp_path / "t.csv"
    table.write_text("id,age,path\n" + "".join(f"{i},4{i},{file}\n" for i, file in enumerate(files)))
    for source, root, other in (("table", folder, "bids"), ("bids", table, "table")):
        done = prepare(call, cache, tmp_path / "out", f"--config.data.source={source}", f"--config.data.root={root}")
        assert done.returncode == 2 and f"set data.source to {other}" in done.stderr
        assert (
            prepare(
                call, cache, tmp_path / "out", f"--config.data.source={other}", f"--config.data.root={root}"
            ).returncode
            == 0
        )

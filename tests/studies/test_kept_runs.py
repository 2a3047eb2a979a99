"""Results that outlive their run folders: what is kept, and whose config is the same."""

import gzip
import json

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.runs import RoundRecord
from fedsparse_jax.studies.grid import GridCell, Run, Study, config_of_run
from fedsparse_jax.studies.kept_runs import KEPT, read_kept, write_kept

SITES = {"test": {"sites": {"A": {"n": 3}}}}


@pytest.fixture
def kept(repository, tmp_path):
    """A study of one cell, and a file with one of its runs."""
    cell = GridCell({"method": "dense"}, f"{repository}/configs/methods/fedavg.py:digits+smoke", ["rounds=2"], (1, 2))
    config = config_of_run(cell, 1).to_dict()
    records = [RoundRecord.from_json({"round": i, "test_accuracy": 0.5, "sites": SITES}) for i in (1, 2)]
    write_kept(
        tmp_path / KEPT, [Run(cell, 1, tmp_path, records, "", {"mask": {"bits": "/w=="}}, {"python": "3"}, config)]
    )
    return Study("", [cell]), tmp_path / KEPT


def test_a_run_is_known_by_its_config_and_seed(kept):
    study, file = kept
    (run,) = read_kept(file, study)
    assert (run.seed, run.measures, run.environment) == (1, {"mask": {"bits": "/w=="}}, {"python": "3"})
    assert [record.test for record in run.records] == [{"accuracy": 0.5}] * 2
    assert [record.sites for record in run.records] == [{}, SITES]  # of the last round only
    (cell,) = study.cells
    renamed = cell._replace(labels={"method": "FedAvg"}, settings=["rounds=2", "log.report=False"])
    assert len(read_kept(file, Study("", [renamed]))) == 1  # neither changes a number
    for other in (cell._replace(settings=["rounds=3"]), cell._replace(seeds=(2,)), cell._replace(settings=["x=1"])):
        assert read_kept(file, Study("", [other])) == []
    assert len(read_kept(file, study._replace(measures=["mask"]))) == 1
    assert read_kept(file, study._replace(measures=["gap"])) == []


def test_keys_that_the_file_did_not_know_yet_have_their_default(kept):
    study, file = kept
    line = json.loads(gzip.decompress(file.read_bytes()))
    del line["config"]["faults"]["dropout"]
    file.write_bytes(gzip.compress(json.dumps(line).encode()))
    assert len(read_kept(file, study)) == 1
    line["config"]["faults"]["deadline"] = 9.0
    file.write_bytes(gzip.compress(json.dumps(line).encode()))
    assert read_kept(file, study) == []


def test_files_that_are_missing_or_damaged_are_named(kept):
    study, file = kept
    with pytest.raises(UsageError, match=r"There is no file .*none.gz of known runs; leave --known away"):
        read_kept(file.with_name("none.gz"), study)
    for damage in (b"", b"text", file.read_bytes()[:-9], gzip.compress(b"{}"), gzip.compress(b"[1]")):
        file.write_bytes(damage)
        if not damage:
            continue
        with pytest.raises(UsageError, match=f"{file} is damaged .*; put a sound copy in its place"):
            read_kept(file, study)

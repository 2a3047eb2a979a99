"""Each process reads the images of its own clients, and the federation is that of one process that reads all."""

import shutil
import threading
from collections import defaultdict

import numpy as np
import pytest

from fedsparse_jax.config import federation_from_config, federation_on_hosts, load_config
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data import volumes
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.runs.hosts import rows_of_process
from tests.helpers.linked import linked

PEOPLE = 12


@pytest.fixture(scope="module")
def cohort(repository, tmp_path_factory):
    """A table of twelve people, who are six heads twice; of two of them the files are damaged."""
    folder = tmp_path_factory.mktemp("cohort")
    files = sorted((repository / "tests/files/ds002748_small").glob("sub-*/anat/*.nii.gz"))
    rows = ["id,age,site,path"]
    for i in range(PEOPLE):
        place = folder / f"{i:02d}.nii.gz"
        shutil.copy(files[i % len(files)], place)
        rows.append(f"p{i:02d},{30 + i},{'AB'[i % 2]},{place}")
    for i in (1, 8):
        (folder / f"{i:02d}.nii.gz").write_bytes(b"no image")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def config(cohort):
    config = load_config("configs/real_scans.py")
    config.data.source, config.data.root = "table", str(cohort / "table.csv")
    config.data.shape, config.data.align, config.data.workers = (8, 9, 8), "affine", 1
    config.partition.num_clients, config.data.test_share = 3, 0.2
    with config.unlocked():
        config.data.options = {}
    return config


@pytest.fixture
def read_by(monkeypatch):
    """The names of the images that each thread has read."""
    read, prepare = defaultdict(set), volumes.prepare_channels

    def noted(scan, *args):
        read[threading.get_ident()].add(scan.path.name)
        return prepare(scan, *args)

    monkeypatch.setattr(volumes, "prepare_channels", noted)
    return read


def test_the_federation_is_that_of_one_process(config, read_by, tmp_path):
    config.data.cache_dir = str(tmp_path / "one")
    whole, reasons = federation_from_config(config)
    read_by.clear()

    def play(link):
        config_ = config.copy_and_resolve_references()
        config_.data.cache_dir = str(tmp_path / f"of-{link.index}")
        return *federation_on_hosts(link)(config_), read_by[threading.get_ident()]

    told = linked(2, play)
    assert sum(reasons.values()) == 6  # two damaged ones, and of those twice there the later ones
    for index, (data, same_reasons, names) in enumerate(told):
        assert same_reasons == reasons and data.people == whole.people
        for ours, theirs in zip((*data.members, data.test, data.targets), (*whole.members, whole.test, whole.targets)):
            np.testing.assert_array_equal(ours, theirs)
        own = rows_of_process(whole, index, 2)
        np.testing.assert_array_equal(data.inputs[own], whole.inputs[own])
        np.testing.assert_array_equal(np.take(data.inputs, own, axis=0), whole.inputs[own])
        other = rows_of_process(whole, 1 - index, 2)
        assert len(own) and len(other) and not set(own) & set(other)
        with pytest.raises(IndexError, match="another process"):
            data.inputs[other]
        assert {f"{whole.people[row]['participant_id'][-2:]}.nii.gz" for row in own} <= names
        assert len(data.inputs) == len(whole.inputs)


def test_where_every_image_is_sound_no_process_opens_one_of_another(config, cohort, read_by, tmp_path):
    table = (cohort / "table.csv").read_text().splitlines()
    sound = [table[0], *(table[1 + i] for i in (0, 2, 3, 4, 5, 7))]
    (tmp_path / "sound.csv").write_text("\n".join(sound) + "\n")
    config.data.root, config.data.cache_dir = str(tmp_path / "sound.csv"), str(tmp_path / "cache")
    told = linked(2, lambda link: (federation_on_hosts(link)(config), read_by[threading.get_ident()]))
    names = [one[1] for one in told]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 6
    for index, ((data, _), read) in enumerate(told):
        own = rows_of_process(data, index, 2)
        assert read == {f"{data.people[row]['participant_id'][-2:]}.nii.gz" for row in own}


def test_a_process_without_clients_is_refused():
    data = Federation(np.zeros(4), np.zeros(4), [np.arange(3)], np.arange(3, 4), [{}] * 4)
    assert rows_of_process(data, 0, 2).tolist() == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="hold no example; start fewer processes"):
        rows_of_process(data, 1, 2)

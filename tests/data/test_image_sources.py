"""The second task: scikit-learn's digits, IDX files, and a run on them."""

import gzip
import struct
import sys

import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data import image_sources
from fedsparse_jax.runs import run_experiment


def test_the_digits():
    images = image_sources.digits_images()
    assert images.inputs.shape == (1797, 8, 8, 1) and images.inputs.dtype == np.float32
    assert (images.inputs.min(), images.inputs.max()) == (0.0, 1.0) and images.test is None
    assert np.bincount(images.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def put(folder, name, array, zipped=False):
    data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    for part, count, zipped in (("train", 60, True), ("t10k", 20, False)):
        put(tmp_path, f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 6, 6), np.uint8), zipped)
        put(tmp_path, f"{part}-labels-idx1-ubyte", np.resize(np.arange(10, dtype=np.uint8), count), zipped)
    return tmp_path


def test_idx_files(mnist):
    images = image_sources.idx_images(str(mnist))
    assert images.inputs.shape == (80, 6, 6, 1) and images.test.tolist() == list(range(60, 80))
    first = gzip.decompress((mnist / "train-images-idx3-ubyte.gz").read_bytes())[16]
    assert images.inputs[0, 0, 0, 0] == np.float32(first) / 255 and images.labels[:3].tolist() == [0, 1, 2]


def damage(kind, folder):
    path = folder / "t10k-images-idx3-ubyte"
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-5])
    elif kind == "header":
        path.write_bytes(b"\x89PNG" + path.read_bytes()[4:])
    elif kind == "absurd":
        path.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**31, 2**31))
    elif kind == "gzip":
        (folder / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08junk")
    elif kind == "count":
        put(folder, "t10k-labels-idx1-ubyte", np.zeros(3, np.uint8))
    elif kind == "size":
        put(folder, "t10k-images-idx3-ubyte", np.zeros((20, 7, 7), np.uint8))
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "holds no t10k-images-idx3-ubyte"),
        ("truncated", "claims 20 x 6 x 6 bytes but holds 715"),
        ("header", "is no IDX file of unsigned bytes with 3 axes"),
        ("absurd", "claims 2147483648 x 2147483648 x 2147483648 bytes but holds 0"),
        ("gzip", "cannot be read"),
        ("count", "t10k has 20 images and 3 labels"),
        ("size", "differ in size"),
    ],
)
def test_broken_idx_folders_are_one_sentence(mnist, kind, message):
    with pytest.raises(UsageError, match=message):
        image_sources.idx_images(damage(kind, mnist))


@pytest.mark.parametrize("root", ["", "nothing"])
def test_without_a_folder_of_idx_files_the_root_is_refused(tmp_path, root):
    root = str(tmp_path / root) if root else root
    with pytest.raises(ArgumentError, match=rf"^root is '{root}': it must be the folder of the IDX files"):
        image_sources.idx_images(root)


def test_idx_without_a_test_set(mnist):
    for part in ("images-idx3", "labels-idx1"):
        (mnist / f"t10k-{part}-ubyte").unlink()
    assert image_sources.idx_images(str(mnist)).test is None


@pytest.fixture
def digits_config(repository):
    """The config of federated averaging on the digits, with changes to its sections."""

    def changed(**sections):
        config = load_config(f"{repository}/configs/methods/fedavg.py:digits+smoke")
        with config.unlocked():
            for key, value in sections.items():
                config[key].update(value)
        return config

    return changed


def test_idx_trains_and_is_tested_on_its_own_test_set(mnist, tmp_path, digits_config):
    data, partition = dict(source="idx", root=str(mnist), shape=(6, 6)), dict(num_clients=4)
    experiment = experiment_from_config(digits_config(data=data, partition=partition))
    federation = experiment.federation
    assert federation.test.tolist() == list(range(60, 80)) and len(np.concatenate(federation.members)) == 60
    records = run_experiment(experiment, tmp_path / "run", print_fn=lambda _: None)
    assert 0 <= records[-1].test["accuracy"] <= 1
    assert (tmp_path / "run/predictions.tsv").read_text().splitlines()[1].startswith("image-000060\t0\t")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (dict(data=dict(shape=(28, 28))), r"data.shape is \(28, 28\), but the images have \(8, 8\) pixels"),
        (dict(data=dict(source="phantom")), "task is 'classification', but data.label is 'age'"),
        (dict(data=dict(source="idx")), "^data.root is '': it must be the folder of the IDX files"),
        (dict(client=dict(loss="squared")), "client.loss is 'squared', which does not fit task"),
        (dict(model=dict(classes=5)), "gives 5 outputs, but the data have 10 classes; set --config.model.classes=10."),
        (dict(partition=dict(classes=11)), "partition.classes is 11"),
    ],
)
def test_what_does_not_fit_is_one_sentence(sections, message, digits_config):
    with pytest.raises(UsageError, match=message):
        experiment_from_config(digits_config(**sections))


def test_a_missing_scikit_learn_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match=r"which is not installed: pip install scikit-learn\.$"):
        image_sources.digits_images()

"""Images and volumes with classes from ``.npz`` files: MedMNIST's layout and that of Keras, and a round on each."""

import io
import zipfile

import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data import image_sources
from fedsparse_jax.reporting import write_report
from fedsparse_jax.runs import run_experiment
from tests.helpers.interrupted import QUIET
from tests.helpers.stand_ins import write_cifar10, write_medmnist3d


def test_volumes_of_medmnist_with_their_own_test_part(tmp_path):
    path = write_medmnist3d(tmp_path / "organmnist3d.npz", counts=(20, 6, 8))
    images = image_sources.npz_images(str(path))
    assert images.inputs.shape == (34, 28, 28, 28, 1) and images.inputs.dtype == np.float32
    assert images.test.tolist() == list(range(26, 34))  # training and validation come first
    with np.load(path) as arrays:
        np.testing.assert_array_equal(images.inputs[20, ..., 0], arrays["val_images"][0].astype(np.float32) / 255)
        np.testing.assert_array_equal(images.inputs[26, ..., 0], arrays["test_images"][0].astype(np.float32) / 255)
        assert images.labels[26:].tolist() == arrays["test_labels"][:, 0].tolist()


def test_colours_of_keras(tmp_path):
    images = image_sources.npz_images(str(write_cifar10(tmp_path / "cifar10.npz")))
    assert images.inputs.shape == (28, 32, 32, 3) and images.test.tolist() == list(range(20, 28))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((9, 6, 6), (9, 6, 6, 1)),
        ((9, 6, 6, 3), (9, 6, 6, 3)),
        ((9, 6, 6, 6), (9, 6, 6, 6, 1)),
        ((9, 6, 6, 6, 2), (9, 6, 6, 6, 2)),
    ],
)
def test_which_axis_is_one_of_channels(tmp_path, shape, expected):
    np.savez(tmp_path / "a.npz", x_train=np.zeros(shape, np.float32), y_train=np.arange(9))
    images = image_sources.npz_images(str(tmp_path / "a.npz"))
    assert images.inputs.shape == expected and images.test is None


def medmnist(**changes):
    arrays = {
        "train_images": np.zeros((4, 8, 8, 8), np.uint8),
        "train_labels": np.arange(4)[:, None],
        "test_images": np.zeros((2, 8, 8, 8), np.uint8),
        "test_labels": np.arange(2)[:, None],
    }
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            dict(a=np.zeros(3)),
            "holds a, and not train_images and train_labels or x_train and y_train; rename its arrays",
        ),
        (medmnist(test_labels=None), "holds no test_labels; fetch it again"),
        (
            medmnist(train_labels=np.zeros((4, 14), int)),
            r"train_labels has the shape \(4, 14\); only one class an image",
        ),
        (medmnist(train_labels=np.zeros((4, 1))), "only one class an image is read"),
        (medmnist(train_labels=np.zeros((3, 1), int)), "its part train has 4 images and 3 labels"),
        (medmnist(test_images=np.zeros((2, 9, 9, 9), np.uint8)), "the images of its parts differ in size"),
        (medmnist(train_images=np.zeros((4, 8))), r"train_images has the shape \(4, 8\); it must be images or volumes"),
        (medmnist(train_images=np.full((4, 8, 8, 8), 9.0)), "its images are float64 and not bytes, or not from 0 to 1"),
        (medmnist(train_labels=np.full((4, 1), -1)), "has negative labels; number the classes from 0"),
        (dict(x_train=np.array([{}])), "cannot be read .*Object arrays"),
    ],
)
def test_other_arrays_are_one_sentence(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        image_sources.npz_images(str(tmp_path / "a.npz"))


def test_a_file_that_announces_more_than_it_holds_is_refused(tmp_path):
    """An archive whose directory says that a member is of 100 GB, and which holds nothing like it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("x_train.npy", b"\x93NUMPY")
    content = bytearray(buffer.getvalue())
    place = content.index(b"PK\x01\x02") + 24  # the unpacked size in the directory
    content[place : place + 4] = (0xFFFFFF00).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UsageError, match="announces more than it holds"):
        image_sources.npz_images(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("content", [b"junk", b""])
def test_what_is_no_archive_is_one_sentence(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.npz cannot be read .*fetch it again"):
        image_sources.npz_images(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("root", ["", "nothing.npz"])
def test_without_a_file_the_root_is_refused(root):
    with pytest.raises(ArgumentError, match=rf"^root is '{root}': it must be the \.npz file"):
        image_sources.npz_images(root)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "write"), [("medmnist3d", write_medmnist3d), ("cifar10", write_cifar10)])
def test_a_round_on_each(name, write, repository, tmp_path):
    config = load_config(f"{repository}/configs/cohorts/{name}.py:smoke")
    config.data.root = str(write(tmp_path / f"{name}.npz"))
    experiment = experiment_from_config(config)
    (record,) = run_experiment(experiment, tmp_path / "run", QUIET)
    assert record.finite and 0 <= record.test["accuracy"] <= 1
    assert record.sparsity == pytest.approx(0.9, abs=1e-3)
    assert len((tmp_path / "run/predictions.tsv").read_text().splitlines()) == 9
    assert "<h2>Images</h2>" in write_report(tmp_path / "run").read_text()
    channels = {"medmnist3d": 1, "cifar10": 3}[name]
    assert experiment.federation.inputs.shape[-1] == channels
    config.data.channels = 2
    with pytest.raises(UsageError, match=rf"^data.channels is 2, but each image has {channels} channels?; set it to"):
        experiment_from_config(config)

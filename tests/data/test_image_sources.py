"""The second task: digits, IDX files, classes per client, and the measures of a classifier."""

import gzip
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fedsparse_jax import models
from fedsparse_jax.config import build
from fedsparse_jax.core import losses, tasks
from fedsparse_jax.core.types import UsageError
from fedsparse_jax.data import batching, image_sources, partitions
from fedsparse_jax.models import flops
from fedsparse_jax.runs import loop


def test_the_digits():
    found = image_sources.digits()
    assert found.inputs.shape == (1797, 8, 8, 1) and found.inputs.dtype == np.float32
    assert (found.inputs.min(), found.inputs.max()) == (0.0, 1.0) and found.test is None
    assert np.bincount(found.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


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
    found = image_sources.idx(str(mnist))
    assert found.inputs.shape == (80, 6, 6, 1) and found.test.tolist() == list(range(60, 80))
    first = gzip.decompress((mnist / "train-images-idx3-ubyte.gz").read_bytes())[16]
    assert found.inputs[0, 0, 0, 0] == np.float32(first) / 255 and found.labels[:3].tolist() == [0, 1, 2]


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
    elif kind == "no folder":
        return str(folder / "nothing")
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
        ("no folder", "data.root is"),
    ],
)
def test_broken_idx_folders_are_one_sentence(mnist, kind, message):
    with pytest.raises(UsageError, match=message):
        image_sources.idx(damage(kind, mnist))


def test_idx_without_a_test_set(mnist):
    for part in ("images-idx3", "labels-idx1"):
        (mnist / f"t10k-{part}-ubyte").unlink()
    assert image_sources.idx(str(mnist)).test is None


def digits_config(**sections):
    config = build.load("configs/fedavg.py:digits+smoke")
    with config.unlocked():
        for key, value in sections.items():
            config[key].update(value)
    return config


def test_idx_trains_and_is_tested_on_its_own_test_set(mnist, tmp_path, repository, monkeypatch):
    monkeypatch.chdir(repository)
    config = digits_config(
        data=dict(source="idx", root=str(mnist), shape=(6, 6)), partition=dict(num_clients=4)
    )
    one = build.experiment(config)
    assert one.data.test.tolist() == list(range(60, 80)) and len(np.concatenate(one.data.members)) == 60
    records = loop.run(one, tmp_path / "run", say=lambda _: None)
    assert 0 <= records[-1]["test_accuracy"] <= 1
    assert (tmp_path / "run/predictions.tsv").read_text().splitlines()[1].startswith("image-000060\t0\t")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (dict(data=dict(shape=(28, 28))), r"data.shape is \(28, 28\), but the images have \(8, 8\) pixels"),
        (
            dict(data=dict(source="phantom")),
            "task is 'classification', which does not fit data.source 'phantom'",
        ),
        (dict(client=dict(loss="squared")), "client.loss is 'squared', which does not fit task"),
        (dict(model=dict(classes=5)), r"outputs of shape \(5,\), but the data have 10 classes"),
        (dict(partition=dict(classes=11)), "partition.classes is 11"),
    ],
)
def test_what_does_not_fit_is_one_sentence(sections, message, repository, monkeypatch):
    monkeypatch.chdir(repository)
    with pytest.raises(UsageError, match=message):
        build.experiment(digits_config(**sections))


def test_a_missing_scikit_learn_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(
        UsageError, match=r"not installed; install it with pip install 'fedsparse_jax\[test\]'"
    ):
        image_sources.digits()


@pytest.mark.parametrize(("clients", "classes"), [(10, 3), (10, 1), (7, 2), (3, 2), (25, 2)])
def test_classes_per_client(clients, classes):
    labels = np.resize(np.arange(10), 500)
    parts = partitions.divide(
        labels,
        labels,
        partition=lambda *args: partitions.classes_per_client(*args, classes=classes),
        num_clients=clients,
        seed=1,
    )
    held = [len(np.unique(labels[part])) for part in parts]
    assert held == [max(classes, -(-10 // clients))] * clients
    counts = [[(labels[part] == k).sum() for part in parts if (labels[part] == k).any()] for k in range(10)]
    assert all(max(c) - min(c) <= 1 for c in counts)  # a class is shared out evenly


def test_measures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    labels[labels == 3] = 2  # a class that is predicted but does not occur
    found, said = tasks.classification(logits, labels), logits.argmax(-1)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, said))
    recall = sklearn_metrics.recall_score(labels, said, average=None, labels=[0, 1, 2])
    assert found["balanced_accuracy"] == pytest.approx(recall.mean())
    f1 = sklearn_metrics.f1_score(labels, said, average=None, labels=[0, 1, 2])
    assert found["f1"] == pytest.approx(f1.mean())
    assert found["nll"] == pytest.approx(sklearn_metrics.log_loss(labels, shares, labels=range(4)))


def test_the_commonest_class_by_hand():
    assert tasks.commonest_class_accuracy([1, 1, 0, 2], [1, 0, 1, 1]) == 0.75


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]))
    np.testing.assert_allclose(
        losses.cross_entropy(logits, jnp.array([1.0, 0.0])), -np.log([0.5, 0.1]), rtol=1e-6
    )
    assert losses.right(logits, jnp.array([1.0, 0.0])).tolist() == [1.0, 0.0]


def test_own_classes_by_hand():
    data = batching.Federation(
        np.zeros((6, 1)),
        np.array([0, 1, 2, 0, 1, 2.0]),
        [np.array([0]), np.array([1, 2])],
        np.array([3, 4, 5]),
        [],
        3,
    )
    assert data.own_test(0).tolist() == [0] and data.own_test(1).tolist() == [1, 2]


def test_operations_are_counted_by_hand():
    # 8 x 8 pixels, 128 units, 10 classes: each weight of a dense layer is used once.
    network = models.MODELS["mlp"]((8, 8))
    params = jax.eval_shape(network.init, jax.random.key(0))
    uses = flops.uses(network.apply, params, (8, 8, 1))
    assert uses.tolist() == [0, 1, 0, 1]
    assert flops.per_sample([128, 8192, 10, 1280], uses) == 2 * (8192 + 1280)
    # A 3x3 convolution is used at every pixel: 64, then 16 after pooling.
    network = models.MODELS["image_cnn"]((8, 8))
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert flops.uses(network.apply, params, (8, 8, 1)).tolist() == [0, 64, 0, 16, 0, 1, 0, 1]


def test_operations_of_the_papers_network():
    network = models.MODELS["brain_age_cnn"]((32, 40, 32))
    params = jax.eval_shape(network.init, jax.random.key(0))
    uses = flops.uses(network.apply, params, (32, 40, 32, 1))
    total = flops.per_sample([leaf.size for leaf in jax.tree.leaves(params)], uses)
    assert 3 * total == pytest.approx(3.27e9, rel=1e-3)  # forward and twice that backward


def test_operations_inside_a_loop_and_of_lax_convolutions():
    def looped(p, x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ p["w"]), None), x, length=5)[0] @ p["v"].T

    leaves = {"v": jax.ShapeDtypeStruct((2, 4), "float32"), "w": jax.ShapeDtypeStruct((4, 4), "float32")}
    assert flops.uses(looped, leaves, (4,)).tolist() == [1, 5]
    convolved = lambda p, x: jax.lax.conv_general_dilated(x, p["k"], (1, 1), "SAME")
    kernel = {"k": jax.ShapeDtypeStruct((6, 3, 3, 3), "float32")}
    assert flops.uses(convolved, kernel, (3, 5, 7)).tolist() == [35]

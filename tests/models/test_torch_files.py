"""State dicts of PyTorch in both formats; what is none, and what would run something, is refused."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.models.torch_files import read_state_dict
from tests.helpers import torch_writer
from tests.helpers.torch_writer import Called, Name

ARRAYS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.count": np.array(7, np.int64),
    "b": np.linspace(0, 1, 5),
    "c": np.arange(4, dtype=np.float16),
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("write", torch_writer.FORMATS.values(), ids=torch_writer.FORMATS)
def test_a_state_dict_comes_back(write, prefix, tmp_path):
    (tmp_path / "a.p").write_bytes(write(*torch_writer.state_of(ARRAYS, prefix)))
    found = read_state_dict(tmp_path / "a.p")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("write", torch_writer.FORMATS.values(), ids=torch_writer.FORMATS)
def test_a_state_dict_in_a_checkpoint_is_found(write, tmp_path):
    obj, blocks = torch_writer.state_of(ARRAYS)
    (tmp_path / "a.pth").write_bytes(write({"epoch": 3, "loss": 0.5, "state_dict": obj}, blocks))
    np.testing.assert_array_equal(read_state_dict(tmp_path / "a.pth")["b"], ARRAYS["b"])


def test_columns_first_are_read_as_they_lie(tmp_path):
    block = torch_writer.Block("0", np.arange(6, dtype=np.float32))
    transposed = Called(Name("torch._utils", "_rebuild_tensor_v2"), block, 0, (3, 2), (1, 3), False, None)
    (tmp_path / "a.p").write_bytes(torch_writer.archive({"w": transposed}, [block]))
    assert read_state_dict(tmp_path / "a.p")["w"].tolist() == [[0, 3], [1, 4], [2, 5]]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("write", torch_writer.FORMATS.values(), ids=torch_writer.FORMATS)
@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({"w": Evil()}, "it calls posix mkdir, which is no tensor"),
        ({"w": Called(Name("builtins", "eval"), "1")}, "it calls builtins eval"),
        ({"w": Called(Name("collections", "OrderedDict"), "1")}, "it calls collections OrderedDict"),
        ({"w": 3.0}, "it holds no dict of tensors"),
        ([1, 2], "it holds no dict of tensors"),
        ({}, "it holds no dict of tensors"),
        ({"w": {1, 2}}, "which is no tensor"),
    ],
)
def test_what_is_no_state_dict_is_refused_and_nothing_is_run(write, obj, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.p").write_bytes(write(obj, []))
    with pytest.raises(UsageError, match=message):
        read_state_dict(tmp_path / "a.p")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (7,), (1,)), (1, (6,), (1,)), (0, (1000, 1000), (0, 0)), (0, (6,), (2,)), (-1, (2,), (1,)), (0, (2, 2), (1,))],
)
def test_a_tensor_shows_no_more_than_its_block(offset, shape, strides, tmp_path):
    block = torch_writer.Block("0", np.arange(6, dtype=np.float32))
    lying = Called(Name("torch._utils", "_rebuild_tensor_v2"), block, offset, shape, strides, False, None)
    (tmp_path / "a.p").write_bytes(torch_writer.archive({"w": lying}, [block]))
    with pytest.raises(UsageError, match="a tensor (is larger than its block|has an impossible shape)"):
        read_state_dict(tmp_path / "a.p")


@pytest.mark.parametrize("write", torch_writer.FORMATS.values(), ids=torch_writer.FORMATS)
def test_damage_is_one_sentence(write, tmp_path):
    whole, rng = write(*torch_writer.state_of(ARRAYS)), np.random.default_rng(0)
    for cut in (0, 1, 40, len(whole) // 2, len(whole) - 3):
        (tmp_path / "a.p").write_bytes(whole[:cut])
        with pytest.raises(UsageError, match="is no state dict of PyTorch"):
            read_state_dict(tmp_path / "a.p")
    for _ in range(150):
        wounded = bytearray(whole)
        wounded[rng.integers(len(whole))] = rng.integers(256)
        (tmp_path / "a.p").write_bytes(wounded)
        try:
            read_state_dict(tmp_path / "a.p")
        except UsageError as error:
            assert "\n" not in str(error)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.p"
    for content, message in [
        (torch_writer.archive(*torch_writer.state_of(ARRAYS), zipfile.ZIP_DEFLATED), "it is compressed"),
        (torch_writer.archive(*torch_writer.state_of(ARRAYS), order=b"big"), "in the order of another machine"),
        (pickle.dumps({"a": 1}), "begins as no file of PyTorch"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            read_state_dict(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_state_dict(tmp_path / "none.p")

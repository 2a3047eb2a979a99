"""A sparse file is bit for bit the model, about as small as the message, and refused where it is damaged."""

import json
import tracemalloc
import zlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax import communication
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.export import read_sparse, sparse_bytes


def model(density, size=300_000, seed=0):
    rng = np.random.default_rng(seed)
    params = {"a": {"kernel": rng.normal(size=(3, 5, size // 15)), "bias": rng.normal(size=7)}, "b": rng.normal(size=2)}
    masks = jax.tree.map(lambda leaf: rng.random(leaf.shape) < density, params)
    return jax.tree.map(lambda mask, leaf: np.where(mask, leaf, 0).astype(np.float32), masks, params), masks


def put(folder, content):
    (folder / "model.sparse").write_bytes(content)
    return folder / "model.sparse"


def same(found, expected):
    bits = lambda leaf: leaf.view(np.uint32) if leaf.dtype == np.float32 else leaf
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return jax.tree.structure(found) == jax.tree.structure(expected) and all(
        np.array_equal(bits(one), bits(other)) for one, other in pairs
    )


@pytest.mark.parametrize("density", [0.0, 0.01, 0.05, 0.5, 1.0])
def test_it_is_the_model_and_about_as_small_as_its_message(tmp_path, density):
    params, masks = model(density)
    content = sparse_bytes(params, masks, {"site": "Ü"})
    found = read_sparse(put(tmp_path, content))
    assert same((found.params, found.masks), (params, masks)) and found.card == {"site": "Ü"}
    message = communication.message_size(communication.Update(params, masks), communication.make_context(params))
    assert len(content) < 1.15 * message + 300  # the header's names and shapes


def test_odd_weights_keep_their_bits_and_a_kept_zero_is_kept(tmp_path):
    odd = np.array([0x80000000, 0x7FC00001, 0xFF800000, 1, 0, 0x3F800000], np.uint32).view(np.float32)
    params, masks = {"w": odd}, {"w": np.array([True, True, True, True, True, False])}
    params["w"] = np.where(masks["w"], odd, np.float32(0))
    found = read_sparse(put(tmp_path, sparse_bytes(params, masks, None)))
    assert same((found.params, found.masks), (params, masks))


def rewritten(content, **changes):
    """The file with other numbers in its header."""
    end = 12 + int.from_bytes(content[8:12], "little")
    header = json.dumps(json.loads(content[12:end]) | changes).encode()
    return content[:8] + len(header).to_bytes(4, "little") + header + content[end:]


GOOD = sparse_bytes(*model(0.1, 300), {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with FSSPARSE"),
        (b"PK" + GOOD, "does not begin with FSSPARSE"),
        (GOOD[:-1], "not as many as it announces"),
        (GOOD + b"x", "not as many as it announces"),
        (GOOD[:40], "damaged"),
        (rewritten(GOOD, format=2), "its format is 2, and this version reads 1"),
        (rewritten(GOOD, kept=3), "not as many as it announces"),
        (rewritten(GOOD, kept=-1), "cannot be"),
        (rewritten(GOOD, leaves=[["w", [-3, -100]]]), "cannot be"),
        (rewritten(GOOD, leaves=[["w", [2**20, 2**20]]]), "cannot be"),
        (rewritten(GOOD, leaves=[["w", [60]]]), "behind its last leaf"),
        (rewritten(GOOD, leaves=7), "damaged"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, content, message):
    with pytest.raises(UsageError, match=rf"model\.sparse is damaged \(.*{message}|model\.sparse is {message}"):
        read_sparse(put(tmp_path, content))


def test_no_more_is_inflated_than_the_header_announces(tmp_path):
    start = rewritten(GOOD, kept=3)
    file = put(tmp_path, start[: 12 + int.from_bytes(start[8:12], "little")] + zlib.compress(bytes(10**8)))
    tracemalloc.start()
    with pytest.raises(UsageError, match="not as many as it announces"):
        read_sparse(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(tmp_path_factory, place, value):
    content = bytearray(GOOD)
    content[place] = value
    try:
        read_sparse(put(tmp_path_factory.getbasetemp(), bytes(content)))
    except UsageError as error:
        assert "damaged" in str(error)

"""Published weights of SFCN with their batch norms folded, against convolution and batch norm written out in NumPy."""

import jax
import numpy as np
import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.models import brain_age_cnn
from fedsparse_jax.models.sfcn import params_of_sfcn, read_sfcn
from tests.helpers import torch_writer

NARROW = (2, 3, 4, 3, 3, 2)


def convolve(volume, kernel, bias):
    """``[I, X, Y, Z]`` with a kernel ``[O, I, K, K, K]`` of PyTorch, zeros around; a sum over its places."""
    side, (_, *space) = kernel.shape[-1], volume.shape
    padded = np.pad(volume, [(0, 0), *[(side // 2, side // 2)] * 3])
    total = np.zeros((len(kernel), *space)) + bias[:, None, None, None]
    for place in np.ndindex(side, side, side):
        part = padded[(slice(None), *(slice(i, i + n) for i, n in zip(place, space)))]
        total += np.einsum("oi,ixyz->oxyz", kernel[(slice(None), slice(None), *place)], part)
    return total


def reference(state, volume, blocks):
    """SFCN at inference up to its 40 numbers, each layer as its paper names it."""
    wide, features = lambda vector: vector[:, None, None, None], volume[None].astype(float)
    for i in range(blocks):
        block = {name: state[f"feature_extractor.conv_{i}.{name}"].astype(float) for name in
                 ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")}  # fmt: skip
        features = convolve(features, block["0.weight"], block["0.bias"])
        features = (features - wide(block["1.running_mean"])) / np.sqrt(wide(block["1.running_var"]) + 1e-5)
        features = features * wide(block["1.weight"]) + wide(block["1.bias"])
        if i < blocks - 1:
            even = [n // 2 * 2 for n in features.shape[1:]]
            halves = features[:, : even[0], : even[1], : even[2]]
            halves = halves.reshape(len(halves), *(n for side in even for n in (side // 2, 2)))
            features = halves.max((2, 4, 6))
        features = np.maximum(features, 0)
    output = state[f"classifier.conv_{blocks}.weight"][:, :, 0, 0, 0], state[f"classifier.conv_{blocks}.bias"]
    return output[0] @ features.mean((1, 2, 3)) + output[1]


@pytest.mark.parametrize("write", torch_writer.FORMATS.values(), ids=torch_writer.FORMATS)
def test_the_folded_network_is_the_published_one(write, tmp_path):
    state = torch_writer.sfcn_state(NARROW)
    (tmp_path / "sfcn.p").write_bytes(write(*torch_writer.state_of(state, "module.")))
    volumes = np.random.default_rng(1).normal(size=(2, 33, 34, 32)).astype(np.float32)
    model = brain_age_cnn(volumes.shape[1:], widths=NARROW, classes=40, norm="none")
    found = jax.jit(model.apply)(read_sfcn(tmp_path / "sfcn.p"), volumes[..., None])
    expected = np.stack([reference(state, volume, len(NARROW)) for volume in volumes])
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_published_widths_are_the_papers():
    ours = jax.eval_shape(brain_age_cnn((91, 109, 91), norm="none", classes=40).init, jax.random.key(0))
    theirs = params_of_sfcn(torch_writer.sfcn_state())
    assert jax.tree.map(lambda leaf: leaf.shape, ours) == jax.tree.map(lambda leaf: leaf.shape, theirs)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("classifier.conv_6.weight", "classifier.conv_6.weight"),
        ("feature_extractor.conv_2.1.running_var", "feature_extractor.conv_2.1.running_var"),
    ],
)
def test_another_network_is_refused(lost, message, tmp_path):
    state = torch_writer.sfcn_state(NARROW)
    del state[lost]
    (tmp_path / "a.p").write_bytes(torch_writer.archive(*torch_writer.state_of(state)))
    with pytest.raises(UsageError, match=f"another network than SFCN .*{message}"):
        read_sfcn(tmp_path / "a.p")
    (tmp_path / "a.p").write_bytes(torch_writer.archive(*torch_writer.state_of({"w": state["classifier.conv_6.bias"]})))
    with pytest.raises(UsageError, match="it has no feature_extractor"):
        read_sfcn(tmp_path / "a.p")

"""The published weights of SFCN (Peng et al., 2021, doi 10.1016/j.media.2020.101871) as params of `brain_age_cnn`.

SFCN has the widths and kernels of the paper's network, with batch norm behind every convolution and 40 age bins at the
output. Batch norm at inference is an affine map of each channel. It is folded into the convolution before it, so that
`brain_age_cnn` with ``norm="none"`` is the same function up to the output layer::

    scale = gamma / sqrt(variance + 1e-5);   kernel * scale;   (bias - mean) * scale + beta

A user downloads the file ``run_20190719_00_epoch_best_mae.p`` from the repository below.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Params
from fedsparse_jax.models.torch_files import read_state_dict

BATCH_NORM_EPSILON = 1e-5  # of PyTorch's batch norm
SFCN_LICENCE = (
    "Weights of SFCN: published at github.com/ha-ha-ha-han/UKBiobank_deep_pretrain under the MIT licence, copyright "
    "2020 Han Peng; trained on UK Biobank. Cite Peng et al., Medical Image Analysis 68 (2021) 101871."
)


def read_sfcn(path: Path) -> Params:
    """The params of a file with SFCN's layout.

    Raises:
        UsageError: no state dict of PyTorch, or one of another network.
    """
    try:
        return params_of_sfcn(read_state_dict(path))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"{path} is a state dict of another network than SFCN ({error}); give the file of "
            "github.com/ha-ha-ha-han/UKBiobank_deep_pretrain."
        ) from error


def params_of_sfcn(state: Mapping[str, np.ndarray]) -> Params:
    """SFCN's state dict as params, its batch norms folded.

    Args:
        state: ``feature_extractor.conv_<i>.0.weight [O, I, K, K, K]`` and ``.bias``, ``.1.weight``, ``.1.bias``,
            ``.1.running_mean`` and ``.1.running_var`` of the blocks ``i`` from 0 on, of which the last has a kernel of
            side 1; ``classifier.conv_<n>.weight`` and ``.bias`` of the output.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the tensors are of another network.
    """
    blocks = sum(name.startswith("feature_extractor.") and name.endswith(".0.weight") for name in state)
    if not blocks:
        raise ValueError("it has no feature_extractor")
    names = [*(f"conv{i + 1}" for i in range(blocks - 1)), "top"]
    params = {name: _folded(state, f"feature_extractor.conv_{i}") for i, name in enumerate(names)}
    output = state[f"classifier.conv_{blocks}.weight"]
    if output.ndim != 5 or output.shape[2:] != (1, 1, 1):
        raise ValueError("its output is no convolution of side 1")
    head = {"kernel": output[:, :, 0, 0, 0].T, "bias": state[f"classifier.conv_{blocks}.bias"]}
    return {**params, "head": {name: np.asarray(leaf, np.float32) for name, leaf in head.items()}}


def _folded(state: Mapping[str, np.ndarray], block: str) -> dict[str, np.ndarray]:
    """A convolution ``[K, K, K, I, O]`` with the batch norm behind it."""
    tensor = lambda name: np.asarray(state[f"{block}.{name}"], np.float64)
    kernel = tensor("0.weight")
    if kernel.ndim != 5:
        raise ValueError(f"{block} is no convolution in three dimensions")
    scale = tensor("1.weight") / np.sqrt(tensor("1.running_var") + BATCH_NORM_EPSILON)
    bias = (tensor("0.bias") - tensor("1.running_mean")) * scale + tensor("1.bias")
    folded = {"kernel": kernel.transpose(2, 3, 4, 1, 0) * scale, "bias": bias}
    return {name: leaf.astype(np.float32) for name, leaf in folded.items()}

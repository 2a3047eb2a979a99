"""The formats of an export by name, each as a pair of functions: a network to bytes, and bytes back to predictions."""

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Array, Masks, Params
from fedsparse_jax.export.compaction import drop_dead_channels
from fedsparse_jax.export.onnx_file import onnx_bytes, onnx_predictor
from fedsparse_jax.export.sparse_file import sparse_bytes, sparse_model
from fedsparse_jax.export.stablehlo_file import stablehlo_bytes, stablehlo_predictor
from fedsparse_jax.models.chains import LayerChain, apply_chain

Predictor = Callable[[np.ndarray], np.ndarray]  # inputs [B, *shape] to predictions


class Network(NamedTuple):
    """What is exported."""

    apply: Callable[[Params, Array], Array]
    params: Params  # +0 where pruned
    masks: Masks
    shape: tuple[int, ...]  # of one example, channels included
    card: Any  # JSON; what to know before the model is used
    chain: LayerChain | None = None  # of a network that can be taken apart

    @property
    def small(self) -> Params:
        """The params without dead channels; all of them, where the network cannot be taken apart."""
        on_host = jax.tree.map(np.asarray, self.params)
        return on_host if self.chain is None else drop_dead_channels(self.chain, on_host)


class Format(NamedTuple):
    """A way to write a network."""

    write: Callable[[Network], bytes]
    read: Callable[[bytes, Network], Predictor]  # back; the network says what a file without a program computes


def _write_sparse(network: Network) -> bytes:
    return sparse_bytes(network.params, network.masks, network.card)


def _read_sparse(content: bytes, network: Network) -> Predictor:
    """The network itself with the weights of the file."""
    apply = jax.jit(network.apply)
    return functools.partial(apply, sparse_model(content).params)


def _write_stablehlo(network: Network) -> bytes:
    apply = network.apply if network.chain is None else functools.partial(apply_chain, network.chain)
    return stablehlo_bytes(functools.partial(apply, network.small), network.shape)


def _write_onnx(network: Network) -> bytes:
    if network.chain is None:
        raise UsageError("The network cannot be taken apart, which ONNX needs; add its line to fs.models.CHAINS.")
    return onnx_bytes(network.chain, network.small, network.shape, {"model_card": json.dumps(network.card)})


FORMATS: dict[str, Format] = {
    "sparse": Format(_write_sparse, _read_sparse),
    "stablehlo": Format(_write_stablehlo, lambda content, network: stablehlo_predictor(content)),
    "onnx": Format(_write_onnx, lambda content, network: onnx_predictor(content)),
}

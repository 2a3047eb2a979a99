"""A network as ONNX, for runtimes that know nothing of JAX; written operator by operator with the package ``onnx``.

The graph takes what the network takes, ``f32[B, *space, C]`` of any B, and turns it to channels first, as ONNX has
them. Biases before an instance norm have no effect and are left out; divisor and scale are multiplied into dense
layers.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Params
from fedsparse_jax.models.chains import Block, LayerChain
from fedsparse_jax.models.layers import EPSILON

OPSET, IR = 17, 8  # of 2022, so that runtimes of the last years read it
INPUT, OUTPUT = "inputs", "predictions"


def onnx_bytes(chain: LayerChain, params: Params, shape, about: Mapping[str, str]) -> bytes:
    """The content of an ONNX file.

    Args:
        chain: the network.
        params: its weights, NumPy arrays.
        shape: of one example, channels included.
        about: text by name, which goes into the file's metadata.

    Raises:
        UsageError: the package ``onnx`` is not installed.
    """
    onnx = _package("onnx")
    graph, space = _Graph(onnx), tuple(shape[:-1])
    if chain.blocks:
        graph.add("Transpose", perm=[0, len(space) + 1, *range(1, len(space) + 1)])
    for block in chain.blocks:
        _add_block(graph, block, params[block.layer])
        space = tuple(side // 2 if block.pool else side for side in space)
    if chain.average:
        graph.add("ReduceMean", axes=list(range(2, len(space) + 2)), keepdims=0)
    else:
        graph.add("Flatten", axis=1)
    for place, name in enumerate(chain.dense):
        first, last = place == 0, place == len(chain.dense) - 1
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        if first and chain.blocks and not chain.average:
            kernel = np.moveaxis(kernel.reshape(*space, -1, bias.size), -2, 0).reshape(kernel.shape)
        scale = np.float32(chain.scale if last and chain.scale is not None else 1)
        graph.add("Gemm", kernel * (scale / np.float32(chain.divisor if first else 1)), bias * scale)
        if not last:
            graph.add("Relu")
    if chain.scale is not None:
        graph.add("Reshape", np.array([-1], np.int64))
    return graph.content(shape, [] if chain.scale is not None else [params[chain.dense[-1]]["bias"].size], about)


def _add_block(graph: "_Graph", block: Block, layer: Mapping[str, np.ndarray]) -> None:
    kernel, bias = np.moveaxis(layer["kernel"], (-1, -2), (0, 1)), layer["bias"]
    sides = kernel.shape[2:]
    pads = [side // 2 for side in sides] * 2
    graph.add("Conv", kernel, *([] if block.norm else [bias]), kernel_shape=sides, pads=pads)
    if block.norm:
        graph.add("InstanceNormalization", np.ones_like(bias), np.zeros_like(bias), epsilon=EPSILON)
    if block.pool:
        graph.add("MaxPool", kernel_shape=[2] * len(sides), strides=[2] * len(sides))
    graph.add("Relu")


class _Graph:
    """Operators, each on what the one before it gave, and the arrays that they read."""

    def __init__(self, onnx):
        self.onnx, self.nodes, self.arrays, self.last = onnx, [], [], INPUT

    def add(self, operator: str, *arrays: np.ndarray, **attributes) -> None:
        output = f"{operator}{len(self.nodes)}"
        names = [f"{output}_array{place}" for place in range(len(arrays))]
        for name, array in zip(names, arrays, strict=True):
            self.arrays.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        self.nodes.append(self.onnx.helper.make_node(operator, [self.last, *names], [output], output, **attributes))
        self.last = output

    def content(self, shape, outputs: list[int], about: Mapping[str, str]) -> bytes:
        """The file, for inputs ``[B, *shape]`` and predictions ``[B, *outputs]``."""
        helper = self.onnx.helper
        self.nodes.append(helper.make_node("Identity", [self.last], [OUTPUT]))
        value = lambda name, sides: helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, ["B", *sides])
        ends = [value(INPUT, shape)], [value(OUTPUT, outputs)]
        graph = helper.make_graph(self.nodes, "fedsparse_jax", *ends, self.arrays)
        versions = dict(opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        model = helper.make_model(graph, producer_name="fedsparse_jax", **versions)
        helper.set_model_props(model, dict(about))
        self.onnx.checker.check_model(model)
        return model.SerializeToString()


def onnx_predictor(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """What ONNX Runtime makes of a file, on CPU: inputs to predictions.

    Raises:
        UsageError: the package ``onnxruntime`` is not installed.
    """
    runtime = _package("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run([OUTPUT], {INPUT: np.asarray(inputs, np.float32)})[0]


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"ONNX needs the package {name}, which is missing: pip install -e '.[onnx]'.") from error

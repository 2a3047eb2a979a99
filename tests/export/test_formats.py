"""Every format holds the network: files that are read back, by others and in another process, predict the same."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.export import FORMATS, Network, onnx_file, stablehlo_file
from fedsparse_jax.models import CHAINS, MODELS

NEEDS = {"stablehlo": ("flatbuffers",), "onnx": ("onnx", "onnxruntime")}


def written(format_, network):
    for package in NEEDS.get(format_, ()):
        pytest.importorskip(package)
    return FORMATS[format_].write(network)


def examples(network, count):
    return np.random.default_rng(count).normal(size=(count, *network.shape)).astype(np.float32)


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_predicts_the_same_for_any_batch(network, format_):
    predict = FORMATS[format_].read(written(format_, network), network)
    for count in (1, 2):
        inputs = examples(network, count)
        expected = np.asarray(jax.jit(network.apply)(network.params, inputs))
        found = np.asarray(predict(inputs))
        assert found.shape == expected.shape and found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.slow
def test_the_fast_formulations_take_any_batch():
    model, options = MODELS["brain_age_cnn"], dict(widths=(32, 6, 5))  # direct, then Winograd's
    network = model((17, 18, 16), **options)
    params = jax.jit(network.init)(jax.random.key(0))
    chain = CHAINS["brain_age_cnn"]((17, 18, 16), **options)
    whole = Network(network.apply, params, jax.tree.map(lambda w: w != 0, params), (17, 18, 16, 1), {}, chain)
    for format_ in ("stablehlo", "onnx"):
        predict = FORMATS[format_].read(written(format_, whole), whole)
        for count in (1, 3):
            expected = jax.jit(network.apply)(params, examples(whole, count))
            np.testing.assert_allclose(predict(examples(whole, count)), expected, rtol=1e-6, atol=1e-4)


WITH_JAX_ALONE = """
import sys
import jax
import numpy as np
from jax import export

program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
np.save(sys.argv[3], program.call(np.load(sys.argv[2])))
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"fedsparse_jax", "flax", "optax", "orbax"}))
"""


def test_stablehlo_needs_nothing_but_jax(one_network, tmp_path):
    network = one_network("brain_age_cnn")
    (tmp_path / "model").write_bytes(written("stablehlo", network))
    inputs = examples(network, 2)
    np.save(tmp_path / "inputs.npy", inputs)
    files = [str(tmp_path / name) for name in ("model", "inputs.npy", "predictions.npy")]
    done = subprocess.run([sys.executable, "-c", WITH_JAX_ALONE, *files], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == [], done.stderr
    expected = jax.jit(network.apply)(network.params, inputs)
    np.testing.assert_allclose(np.load(files[2]), expected, rtol=1e-6, atol=1e-5)


def test_a_network_that_cannot_be_taken_apart_is_whole_as_stablehlo_and_refused_as_onnx(one_network):
    whole = one_network("mlp")._replace(chain=None)
    assert whole.small["dense1"]["kernel"].shape == whole.params["dense1"]["kernel"].shape
    inputs = examples(whole, 2)
    found = FORMATS["stablehlo"].read(written("stablehlo", whole), whole)(inputs)
    np.testing.assert_allclose(found, whole.apply(whole.params, inputs), rtol=1e-6, atol=1e-6)
    with pytest.raises(UsageError, match=r"cannot be taken apart.*fs\.models\.CHAINS"):
        FORMATS["onnx"].write(whole)


def test_onnx_is_of_an_opset_that_runtimes_know_and_holds_the_card(one_network):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(FORMATS["onnx"].write(one_network("image_cnn")))
    assert [(part.domain, part.version) for part in model.opset_import] == [("", 17)] and model.ir_version == 8
    assert json.loads({prop.key: prop.value for prop in model.metadata_props}["model_card"]) == {"round": 3}
    operators = {"Transpose", "Conv", "MaxPool", "Relu", "Flatten", "Gemm", "Identity"}
    assert {node.op_type for node in model.graph.node} == operators


def test_what_is_missing_is_said(one_network, monkeypatch):
    network = one_network("mlp")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for use in (lambda: FORMATS["onnx"].write(network), lambda: onnx_file.onnx_predictor(b"")):
        with pytest.raises(UsageError, match=r"which is missing: pip install -e '\.\[onnx\]'\."):
            use()

    class NotSerialized:
        def serialize(self):
            raise ImportError

    monkeypatch.setattr(stablehlo_file.export, "export", lambda *args, **options: lambda inputs: NotSerialized())
    with pytest.raises(UsageError, match=r"flatbuffers, which is missing: pip install -e '\.\[stablehlo\]'\."):
        FORMATS["stablehlo"].write(network)

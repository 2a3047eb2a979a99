"""An exported model as somebody else uses it: predicts one scan whenever it is told to.

Arguments: the file, the shape of the inputs as JSON, the format. StableHLO needs jax alone, ONNX only ONNX Runtime; a
sparse file holds no program, and its network is built by the package.
"""

import json
import os
import sys
import time

import numpy as np


def predictor(path: str, how: str):
    """Inputs to predictions, by the model in a file."""
    if how == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, {"inputs": inputs})[0]
    import jax

    if how == "stablehlo":
        from jax import export

        with open(path, "rb") as file:
            return jax.jit(export.deserialize(bytearray(file.read())).call)
    from pathlib import Path

    from fedsparse_jax.export import read_sparse
    from fedsparse_jax.models import MODELS

    model = read_sparse(Path(path))
    network = MODELS[model.card["network"]](tuple(model.card["shape"]), **model.card["options"])
    apply = jax.jit(network.apply)
    return lambda inputs: apply(model.params, inputs)


def main():
    path, shape, how = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    predict = predictor(path, how)
    inputs = np.random.default_rng(0).normal(size=json.loads(shape)).astype(np.float32)
    for _ in sys.stdin:
        began = time.perf_counter()
        predicted = np.asarray(predict(inputs)).ravel()
        told = {"seconds": time.perf_counter() - began, "prediction": round(float(predicted[0]), 4)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

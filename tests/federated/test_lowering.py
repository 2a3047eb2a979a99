"""Every function of a round is lowered for CUDA and TPU, without having one: no host callback, no sort of the model.

Lowering tells that a program can be made for the platform, and of which operations. It runs nothing.
"""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from fedsparse_jax.config import load_config, override
from fedsparse_jax.config.network import algorithm_from_config, model_from_config
from fedsparse_jax.core.types import Chunk, Reports

CLIENTS, STEPS, BATCH = 8, 2, 4
CASES = {
    "Global": ("fedsparsify_global", {}),
    "Local": ("fedsparsify_local", {}),
    "FedDST": ("feddst", {}),
    "one by one": ("fedsparsify_global", {"execution.client_map": "scan"}),
    "lanes": ("fedsparsify_global", {"execution.client_map": "2"}),
    "bfloat16, recomputed": ("fedsparsify_global", {"precision": "bfloat16", "model.remat": "True"}),
    "4 devices": ("fedsparsify_global", {"execution.devices": "4"}),
}


@pytest.fixture(autouse=True)
def on_an_accelerator(monkeypatch):
    """Formulations are chosen as they are where no CPU computes."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def programs(name):
    """The functions of a round of the paper's network by name, with the shapes of their arguments; in cases that change
    the training alone, those of the training.
    """
    method, settings = CASES[name]
    same = {"execution.client_map": "vmap", "data.shape": "(32,40,32)"}
    config = override(load_config(f"configs/methods/{method}.py"), (same | settings).items())
    network, _ = model_from_config(config)
    algorithm = algorithm_from_config(config, network)
    some = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype)
    server = jax.eval_shape(algorithm.init, jax.random.key(0))
    ids, weights = some(jnp.int32, CLIENTS), some(jnp.float32, CLIENTS)
    chunk = Chunk(
        some(jnp.float32, CLIENTS, STEPS, BATCH, *config.data.shape, 1),
        some(jnp.float32, CLIENTS, STEPS, BATCH),
        some(bool, CLIENTS, STEPS, BATCH),
    )
    scored = jax.tree.map(lambda leaf: some(leaf.dtype, leaf.shape[0], 1, *leaf.shape[2:]), chunk)
    reports = Reports(some(jnp.int32, CLIENTS), some(jnp.float32, CLIENTS))
    received = jax.eval_shape(algorithm.download, server, ids)
    clients = jax.eval_shape(algorithm.start_clients, server, ids, scored, received)
    payload = jax.eval_shape(algorithm.upload, server, clients, scored)
    whole_round = {
        "download": (algorithm.download, (server, ids)),
        "start_clients": (algorithm.start_clients, (server, ids, scored, received)),
        "upload": (algorithm.upload, (server, clients, scored)),
        "update_server": (algorithm.update_server, (server, clients, weights, None, payload, reports)),
    }
    training = {
        "local_steps": (algorithm.local_steps, (clients, chunk)),
        "predict": (network.apply, (server.params, some(jnp.float32, BATCH, *config.data.shape, 1))),
    }
    return training if settings else training | whole_round


def sizes(text: str, kind: str) -> list[int]:
    """The number of elements of the largest operand of each operation of a kind, in a program as StableHLO.

    A kind has a region, the function of single elements, and its operands stand behind that.
    """
    operands = re.findall(rf'"stablehlo\.{kind}".*?\}}\) : \((.*?)\) ->', text, re.DOTALL)
    shapes = [[one.split("x")[:-1] for one in re.findall(r"tensor<([^>]*)>", each)] for each in operands]
    return [max(math.prod(map(int, shape)) for shape in each) for each in shapes]


def test_sizes_are_read_from_a_program():
    program = jax.jit(lambda x: jnp.sort(x.at[jnp.array([1, 5])].add(1.0)))
    text = program.trace(jax.ShapeDtypeStruct((7, 3), jnp.float32)).lower(lowering_platforms=("cuda",)).as_text()
    assert sizes(text, "sort") == [21] and sizes(text, "scatter") == [21] and sizes(text, "reduce_window") == []


@pytest.mark.parametrize("name", CASES)
def test_a_round_is_lowered(name, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for what, (function, arguments) in programs(name).items():
        text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda", "tpu")).as_text()
        assert "callback" not in text and "infeed" not in text and "outfeed" not in text, what
        assert max(sizes(text, "sort"), default=0) <= CLIENTS, what  # a few losses, and never the model
        if what == "local_steps" and name != "lanes":  # a lane writes its client back where it takes the next one
            assert sizes(text, "scatter") == []

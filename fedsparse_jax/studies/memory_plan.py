"""How much memory the local steps of a round need, before anybody buys a card: compiled, and never run.

XLA plans every buffer of a program when it compiles it. The plan is that of the backend that is there. On a CPU it
tells a GPU's need roughly, since another compiler fuses otherwise.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from fedsparse_jax.config.network import algorithm_from_config, model_from_config
from fedsparse_jax.config.overrides import override
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Chunk
from fedsparse_jax.data.federation import cohort_size
from fedsparse_jax.models import MODELS
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.runs.round import jit_algorithm

_CARDS = (16, 40, 80)  # GB
_WAYS = {"one after another": "scan", "two at a time": "2", "all at once": "vmap"}
_PRECISIONS = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "float32, recomputed": {"model.remat": "True"},
    "bfloat16, recomputed": {"model.remat": "True", "precision": "bfloat16"},
}


class MemoryPlan(NamedTuple):
    """Bytes of a compiled program. Its results take the place of its arguments."""

    arguments: int  # the cohort's models, and the batches of a chunk of steps
    working: int  # beside them

    @property
    def total(self) -> int:
        """Both together."""
        return self.arguments + self.working


def plan_local_steps(config: Any) -> MemoryPlan:
    """What a chunk of local steps of a round needs, with all clients of the cohort on one device.

    Raises:
        UsageError: the config cannot be used.
    """
    network, _ = model_from_config(config)
    algorithm = jit_algorithm(algorithm_from_config(config, network))
    count = cohort_size(config.partition.num_clients, config.participation)
    some: Any = jax.ShapeDtypeStruct
    lead = (count, config.execution.steps_per_chunk, config.client.batch_size)
    image = (*config.data.shape, config.data.channels)
    labels = "int32" if config.task == "classification" else "float32"
    chunk = Chunk(some((*lead, *image), "float32"), some(lead, labels), some(lead, "bool"))
    scored = jax.tree.map(lambda leaf: some((count, 1, *leaf.shape[2:]), leaf.dtype), chunk)
    server = jax.eval_shape(algorithm.init, jax.random.key(0))
    needed = scored if algorithm.data_needs.before_training else None
    clients = jax.eval_shape(algorithm.start_clients, server, some((count,), "int32"), needed)
    lower = algorithm.local_steps.lower  # type: ignore[attr-defined]
    planned = lower(clients, chunk).compile().memory_analysis()
    if planned is None:
        raise UsageError("This backend does not tell what it plans; try JAX_PLATFORMS=cpu.")
    return MemoryPlan(planned.argument_size_in_bytes, planned.temp_size_in_bytes)


def plans(config: Any) -> Iterator[tuple[str, str, MemoryPlan]]:
    """``(how clients are executed, precision, plan)`` for every way; activations are computed again only where the
    network knows how.
    """
    recomputes = "remat" in inspect.signature(MODELS[config.model.name]).parameters
    for clients, client_map in _WAYS.items():
        for precision, settings in _PRECISIONS.items():
            if "model.remat" in settings and not recomputes:
                continue
            changed = override(config, {"execution.client_map": client_map, **settings}.items())
            yield clients, precision, plan_local_steps(changed)


def plan_table(found: Sequence[tuple[str, str, MemoryPlan]]) -> str:
    """The plans in GB, and on which cards they fit, as Markdown."""
    gigabytes = lambda number: f"{number / 1e9:.2f}"
    fits = lambda planned: ["yes" if planned.total < card * 1e9 else "no" for card in _CARDS]
    rows = (
        [clients, precision, *map(gigabytes, (planned.arguments, planned.working, planned.total)), *fits(planned)]
        for clients, precision, planned in found
    )
    heads = ["clients", "precision", "models and batches (GB)", "working (GB)", "together (GB)"]
    return markdown_table([*heads, *(f"fits {card} GB" for card in _CARDS)], rows)

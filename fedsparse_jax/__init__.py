"""Sparse federated learning for neuroimaging, as pure JAX functions.

    import fedsparse_jax as fs

gives the public functions by room; a room is loaded when it is first used.

    fs.core            types, errors, trees, masks, losses, tasks
    fs.sparsity        what is pruned, how much, when, and what returns
    fs.models          networks as pairs of pure functions
    fs.data            from files or arrays to a federation and its batches
    fs.communication   model updates as bytes, and who knows which mask
    fs.attacks         membership inference
    fs.federated       one federated round: clients, server, methods
    fs.export          trained networks as files that others read
    fs.runs            the host's loop, and everything a run folder holds
    fs.config          from a config to an experiment
    fs.reporting       figures, tables and HTML from a run folder
    fs.studies         questions answered by one or many runs
    fs.cli             what the scripts share
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers
    from fedsparse_jax import (
        attacks,
        cli,
        communication,
        config,
        core,
        data,
        export,
        federated,
        models,
        reporting,
        runs,
        sparsity,
        studies,
    )

__version__ = "0.2.0"
__all__ = [
    "attacks",
    "cli",
    "communication",
    "config",
    "core",
    "data",
    "export",
    "federated",
    "models",
    "reporting",
    "runs",
    "sparsity",
    "studies",
]


def __getattr__(name: str) -> ModuleType:
    """Loads a room when it is first used, so that the core needs neither figures nor scans (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"fedsparse_jax has no room {name!r}; it has: {', '.join(__all__)}.")
    return importlib.import_module(f"fedsparse_jax.{name}")


def __dir__() -> list[str]:
    return __all__

"""A run's model as one file that others use, with its model card; checked against the run's own network first."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fedsparse_jax.config.build import model_from_config
from fedsparse_jax.config.saved_runs import load_run
from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import ServerState
from fedsparse_jax.export import FORMATS, Network
from fedsparse_jax.models import CHAINS
from fedsparse_jax.reporting.model_card import model_card
from fedsparse_jax.reporting.run_files import read_run_files

TOLERANCE = 1e-4  # of the file's predictions, beside rounding of large ones
RELATIVE = 1e-5
CHECKED = 2  # random inputs


class Exported(NamedTuple):
    """A model as a file."""

    content: bytes
    card: dict
    dropped: dict[str, tuple[int, int]]  # of each layer that lost channels: how many, of how many
    difference: float  # largest one between the file's predictions and the network's own


def export_run(workdir: Path, format_: str, round_: int | None = None, licence: str = "") -> Exported:
    """Writes the model of a run in a format, and reads it back.

    Args:
        workdir: the run.
        format_: a member of ``FORMATS``.
        round_: which checkpoint; None for the newest.
        licence: of the model, for its card.

    Raises:
        UsageError: no such run, round or format, no whole model, a package is missing, or the file would predict
            otherwise.
    """
    if format_ not in FORMATS:
        raise UsageError(f"--format is {format_!r}: it must be one of {', '.join(FORMATS)}.")
    config, _, server = load_run(workdir, round_)
    if config.client.personal:
        raise UsageError(
            f"client.personal is {tuple(config.client.personal)}, so that there is no whole model that could be "
            "exported; export a run that sends all leaves."
        )
    network = _network(workdir, config, server, licence)
    content = FORMATS[format_].write(network)
    inputs = np.random.default_rng(0).normal(size=(CHECKED, *network.shape)).astype(np.float32)
    expected = np.asarray(jax.jit(network.apply)(network.params, inputs))
    found = np.asarray(FORMATS[format_].read(content, network)(inputs))
    if not np.allclose(found, expected, rtol=RELATIVE, atol=TOLERANCE, equal_nan=True):
        raise UsageError(
            f"The {format_} file would predict otherwise than {config.model.name}; its line in fs.models.CHAINS is "
            "wrong: mend it, or give --format=sparse."
        )
    dropped = {} if format_ == "sparse" else dropped_channels(network)
    return Exported(content, network.card, dropped, float(np.abs(found - expected).max()))


def _network(workdir: Path, config, server: ServerState, licence: str) -> Network:
    """The global model of a run, in float32."""
    config = config.copy_and_resolve_references()
    config.precision = "float32"
    model, options = model_from_config(config)
    params = jax.tree.map(np.asarray, masks.apply(server.masks, server.params))
    leaves = zip(tree.leaf_names(params), jax.tree.leaves(server.masks), strict=True)
    kept = {name: (int(leaf.sum()), leaf.size) for name, leaf in leaves}
    card = model_card(read_run_files(workdir), int(server.round), kept, licence)
    shape = tuple(config.data.shape)
    taken_apart = CHAINS.get(options.pop("name"))
    chain = taken_apart(shape, **options) if taken_apart else None
    return Network(model.apply, params, server.masks, (*shape, config.data.channels), card, chain)


def dropped_channels(network: Network) -> dict[str, tuple[int, int]]:
    """Of each layer that loses channels: how many, of how many."""
    before = {name: layer["bias"].size for name, layer in network.params.items()} if network.chain else {}
    after = {name: layer["bias"].size for name, layer in network.small.items()} if network.chain else {}
    return {name: (before[name] - after[name], before[name]) for name in before if after[name] < before[name]}

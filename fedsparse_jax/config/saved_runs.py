"""Run folders, opened again: the config, the network and the states that they hold."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from fedsparse_jax.config.build import algorithm_from_config, model_from_config
from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Model, ServerState
from fedsparse_jax.runs import checkpoint, run_dir


def load_run(workdir: Path, round_: int | None = None) -> tuple[ConfigDict, Model, ServerState]:
    """What a run learned: its config, its network and the state after ``round_`` (None: the newest).

    Raises:
        UsageError: the folder holds no run or no sound checkpoint.
    """
    config = upgrade_config(run_dir.stored_config(workdir))
    network, _ = model_from_config(config)
    like = jax.eval_shape(algorithm_from_config(config, network).init, jax.random.key(config.seed))
    with checkpoint.open_manager(workdir) as manager:
        server = checkpoint.restore_checkpoint(manager, like, round_)
    if server is None:
        raise UsageError(f"{workdir} holds no checkpoint yet; train at least one round.")
    return config, network, server


def saved_rounds(workdir: Path) -> list[int]:
    """The rounds whose checkpoints a run folder holds, rising."""
    with checkpoint.open_manager(workdir) as manager:
        return sorted(manager.all_steps())


def upgrade_config(stored: dict) -> ConfigDict:
    """The config of a run folder, with today's defaults for keys that it did not have yet; one device."""
    config = defaults()
    with config.unlocked():
        for key, value in stored.items():
            section = config.get(key)
            plain_keys = isinstance(section, ConfigDict) and "name" not in section
            config[key] = {**section.to_dict(), **value} if plain_keys else value
        config.execution.devices = 1
    return config


def with_other_scans(config: ConfigDict, source: str, root: str, align: str = "") -> ConfigDict:
    """The config of a run, for scans that it did not have: its grid and normalisation, another source.

    Args:
        config: of the run.
        source: a member of ``SCAN_SOURCES``.
        root: the folder or the file.
        align: how to bring the scans onto the grid; empty for what the run was trained with.
    """
    other = upgrade_config(config.to_dict())
    with other.unlocked():
        other.data.update(source=source, root=root, align=align or config.data.align)
        other.data.options = ConfigDict()
    return other

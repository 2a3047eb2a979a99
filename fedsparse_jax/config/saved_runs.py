"""Run folders, opened again: the config, the network and the states that they hold."""

from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.config.network import algorithm_from_config, model_from_config
from fedsparse_jax.config.overrides import OPTIONS, SOURCE, override
from fedsparse_jax.config.scans import refused_argument
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.tasks import task_for
from fedsparse_jax.core.types import Model, ServerState
from fedsparse_jax.data.tables import OtherLayout
from fedsparse_jax.runs import checkpoint, run_dir
from fedsparse_jax.runs.metrics_log import read_records
from fedsparse_jax.runs.model_choice import best_record


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
    """The config of a run folder, with today's defaults for keys that it did not have yet; one device, no tracker."""
    config = defaults()
    with config.unlocked():
        for key, value in stored.items():
            section = config.get(key)
            plain_keys = isinstance(section, ConfigDict) and "name" not in section
            config[key] = {**section.to_dict(), **value} if plain_keys else value
        config.execution.devices = 1
        config.log.tracker = ""  # whoever opens a folder runs no code that it names
    return config


def chosen_round(workdir: Path, which: str) -> int | None:
    """The round of a run whose model a user asks for; None for the newest.

    Args:
        workdir: the run.
        which: ``best`` on validation, ``last``, or the number of a round.

    Raises:
        UsageError: something else, or a run without a best round.
    """
    if which == "last":
        return None
    if which.isdecimal():
        return int(which)
    if which != "best":
        raise UsageError(f"--which is {which!r}: it must be best, last, or the number of a round.")
    config, records = upgrade_config(run_dir.stored_config(workdir)), read_records(workdir)
    best = best_record(records, task_for(config.task, config.data.label, config.data.unit))
    if best is not None:
        return best.round
    if not config.data.validation_share:
        raise UsageError(
            f"--which is 'best', but {workdir} has no validation that could tell which round is the best; give "
            "--which=last, or train anew with --config.data.validation_share=0.2."
        )
    raise UsageError(
        f"--which is 'best', but no round of {workdir} was measured on validation at the final sparsity; train it to "
        "the end, or give --which=last."
    )


OF_ITS_DATA = ("root_path", "participants")  # options that name files of one data set
OF_ITS_TABLES = ("age_col", "sex_col", "site_col", "session_col")  # columns that other tables may lack


def with_other_scans(
    config: ConfigDict, root: str, settings: Sequence[tuple[str, str]] = (), *, need_age: bool = True
) -> ConfigDict:
    """The config of a run, for scans that it did not have, which are read as the run's own were.

    The run's source and options hold where they fit: a file is a table; a folder is what the run's source reads, and
    BIDS where that was the phantom or a table, or where the folder is laid out otherwise. Options that name files of
    the run's own data are left behind where ``root`` is another, and columns where its tables lack them.

    Args:
        config: of the run.
        root: the folder or the file.
        settings: keys of ``data`` that are other than the run's, as in `override`.
        need_age: whether scans without an age are of no use; their column is then the run's.

    Raises:
        UsageError: a setting is no key of ``data``, or decides what the network is given.
    """
    for key, _ in settings:
        if not key.startswith("data.") or key in ("data.shape", "data.normalise", "data.channels"):
            raise UsageError(f"{key} is as the run was trained; of a run only where and how scans are read may differ.")
    other = upgrade_config(config.to_dict())
    place, before = Path(root).expanduser(), Path(config.data.root or ".").expanduser()
    same = config.data.root and place.resolve() == before.resolve()
    with other.unlocked():
        for name in ("splits", *(() if same else OF_ITS_DATA)):  # who is tested, the run has recorded
            if name in other.data.options:
                del other.data.options[name]
    fits = config.data.source == "table" if place.is_file() else config.data.source not in ("phantom", "table")
    source = config.data.source if fits else "table" if place.is_file() else "bids"
    read_as = lambda source: override(other, [(SOURCE, source), ("data.root", root), *settings])
    typed = {key.removeprefix(f"{OPTIONS}.") for key, _ in settings}
    columns = set(OF_ITS_TABLES) - typed - ({"age_col"} if need_age else set())
    reading = read_as(source)
    while refused := refused_argument(reading, need_age=need_age):
        if isinstance(refused, OtherLayout) and reading.data.source != "bids" and SOURCE not in typed:
            reading = read_as("bids")
        elif refused.argument in columns & set(reading.data.options):
            with reading.unlocked():
                del reading.data.options[refused.argument]
        else:
            break
    return reading

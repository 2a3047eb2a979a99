"""A run folder: what is written into it when it is opened, and the refusal of one that holds something else."""

import datetime
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import jax

from fedsparse_jax.runs import metrics_log
from fedsparse_jax.core.types import UsageError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "nibabel", "fedsparse_jax")


def open_(workdir: Path, config: dict, **about: dict) -> None:
    """Makes the folder and writes what the run is about; refuses a folder that holds another experiment.

    Args:
        workdir: the folder.
        config: resolved; ``config.json``.
        **about: further JSON files, by name; one that exists is left as it is.
    """
    config_file = workdir / "config.json"
    if config_file.exists():
        _refuse_other(config, metrics_log.read_json(config_file)["config"], workdir)
    elif workdir.exists() and any(workdir.iterdir()):
        raise UsageError(f"{workdir} is not empty and holds no run; choose another --workdir.")
    workdir.mkdir(parents=True, exist_ok=True)
    metrics_log.write_json(config_file, {"config": config})
    for name, value in about.items():
        if not (workdir / f"{name}.json").exists():
            metrics_log.write_json(workdir / f"{name}.json", value)


def environment(seed: int) -> dict:
    """Versions, machine, devices and seed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [str(device) for device in jax.devices()],
        "seed": seed,
        "started": datetime.datetime.now().isoformat(timespec="seconds"),
    }


def _refuse_other(config: dict, stored: dict, workdir: Path) -> None:
    ours, theirs = _flat(_comparable(config)), _flat(_comparable(stored))
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise UsageError(
                f"{workdir} holds another experiment: there {key} is {theirs.get(key)!r}, here it is "
                f"{ours.get(key)!r}; choose another --workdir."
            )


def _comparable(config: dict) -> dict[str, Any]:
    """What decides the numbers: not the sections that only change cost or what is shown."""
    return {key: value for key, value in config.items() if key not in ("execution", "checkpoint", "log")}


def _flat(config: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat

"""From a config to one side's own scans: what its source lists is all its own, and nothing is divided."""

from typing import Any

import numpy as np

from fedsparse_jax.config import experiment_from_config
from fedsparse_jax.config.scans import label_from_config, no_progress, people_of_scans, read_scans
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.labels import classes_of, targets_of
from fedsparse_jax.deploy.parts import as_transmitted
from fedsparse_jax.runs.experiment import Experiment


def site_experiment(config: Any, site: int, progress=no_progress) -> Experiment:
    """What a `SiteClient` needs: all scans that ``config.data`` lists are trained on at this site.

    Args:
        config: the run's ConfigDict, the same everywhere but for where the scans lie.
        site: the site's number, from 0.
        progress: shown while scans are read.

    Raises:
        UsageError: the config leaves open what only all sites together could decide, or lists no scan.
    """
    return _experiment(config, site, progress)


def server_experiment(config: Any, progress=no_progress) -> Experiment:
    """What a `Server` needs: all scans that ``config.data`` lists are its test set; see `site_experiment`."""
    return _experiment(config, None, progress)


def _experiment(config: Any, site: int | None, progress) -> Experiment:
    _check_decided(config, site)
    scan_set, label = read_scans(config, progress), label_from_config(config)
    names = classes_of(scan_set.scans, label)
    everything, nobody = np.arange(len(scan_set.scans)), np.zeros(0, np.int64)
    data = Federation(
        scan_set.inputs,
        np.asarray(targets_of(scan_set.scans, label, names), np.float32),
        [everything if client == site else nobody for client in range(config.partition.num_clients)],
        everything if site is None else nobody,
        people_of_scans(scan_set),
        len(names),
        names,
    )
    return as_transmitted(experiment_from_config(config, progress, federation=data))


def _check_decided(config: Any, site: int | None) -> None:
    """Refuses what a simulation takes from all clients' data together, which nobody sees here."""
    count = config.partition.num_clients
    if not isinstance(count, int):
        raise UsageError(
            f"partition.num_clients is {count!r}: set it to the number of sites, which nobody can count here."
        )
    if site is not None and not 0 <= site < count:
        raise UsageError(
            f"There is no site {site}: partition.num_clients is {count}, so that they are 0 to {count - 1}."
        )
    if config.task == "classification" and not config.data.classes:
        raise UsageError("data.classes is empty: name all classes, in one order for all sites.")
    if config.task == "regression" and not config.model.get("init_from"):
        for key in ("output_mean", "output_scale"):
            if config.model.get(key) is None:
                raise UsageError(
                    f"model.{key} is not set: nobody sees the ages of all sites here, so that it must be a number in "
                    "the config, such as the size-weighted statistic that the sites agree on."
                )

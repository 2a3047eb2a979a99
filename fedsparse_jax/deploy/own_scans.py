"""From a config to one side's own scans: what its source lists is all its own, and nothing is divided."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedsparse_jax.config import experiment_from_config, override, upgrade_config
from fedsparse_jax.config.scans import label_from_config, no_progress, people_of_scans, read_scans
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.labels import classes_of, targets_of
from fedsparse_jax.deploy.handshake import OWN_KEYS
from fedsparse_jax.deploy.parts import as_transmitted
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.run_dir import PLACES_OF_TABLES


def shared_config(config: Any) -> dict[str, Any]:
    """The config that all sides get, as JSON has it: without the places of anybody's scans, and never the phantom's."""
    shared = config.to_dict()
    data, phantom = dict(shared["data"]), shared["data"]["source"] == "phantom"
    options = {} if phantom else {key: value for key, value in data["options"].items() if key not in PLACES_OF_TABLES}
    source = "bids" if phantom else data["source"]
    shared["data"] = {**data, "source": source, "options": options, "root": ""}
    shared["log"] = {**shared["log"], "tracker": ""}
    return shared


def config_of_sites(config: Any, num_sites: int) -> dict[str, Any]:
    """The `shared_config` of a run whose clients are so many sites.

    Raises:
        UsageError: the config leaves open what nobody can decide then.
    """
    config = override(config, [("partition.num_clients", str(num_sites))])
    check_decided(config)
    return shared_config(config)


def own_config(shared: dict[str, Any], own: Mapping[str, Any], where: str) -> Any:
    """The config of one side.

    Args:
        shared: of `shared_config`.
        own: the side's keys with their values, ``data.root`` among them; no other side can set them.
        where: they stand, for the sentence of a refusal.

    Raises:
        UsageError: a key is not the side's own, or there is no ``data.root``.
    """
    for key in own:
        if not key.startswith(OWN_KEYS):
            raise UsageError(f"{where}: {key} must be the same for all sides; take it out of there.")
    if not own.get("data.root"):
        raise UsageError(f"{where}: data.root is missing; give the folder, or the table, of this side's scans.")
    config = upgrade_config({**shared, "data": {**shared["data"], "root": ""}})
    return override(config, [(key, str(value)) for key, value in own.items()])


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
    check_decided(config, site)
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


def check_decided(config: Any, site: int | None = None) -> None:
    """Refuses what a simulation takes from all clients' data together, which nobody sees here.

    Args:
        config: the run's.
        site: number of the site whose experiment it is, if it is one's.

    Raises:
        UsageError: it leaves something open.
    """
    count = config.partition.num_clients
    if not isinstance(count, int):
        raise UsageError(
            f"partition.num_clients is {count!r}: set it to the number of sites, which nobody can count here."
        )
    if site is not None and not 0 <= site < count:
        raise UsageError(
            f"There is no site {site}: partition.num_clients is {count}, so that they are 0 to {count - 1}."
        )
    if config.execution.clients_held:
        raise UsageError("execution.clients_held is for simulated clients; set it to 0.")
    if config.task == "classification" and not config.data.classes:
        raise UsageError("data.classes is empty: name all classes, in one order for all sites.")
    if config.task == "regression" and not config.model.get("init_from"):
        for key in ("output_mean", "output_scale"):
            if config.model.get(key) is None:
                raise UsageError(
                    f"model.{key} is not set: nobody sees the ages of all sites here, so that it must be a number in "
                    "the config, such as the size-weighted statistic that the sites agree on."
                )

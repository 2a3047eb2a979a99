"""Three hospitals with a folder each, a test set, and the folder of all for the simulation that they are compared with."""

import csv
import shutil
from pathlib import Path

import jax
import numpy as np

from fedsparse_jax.config import load_config, load_run, override
from fedsparse_jax.data.phantom import cohort

NAMES = ["north", "south", "west"]
SIZES = dict(north=8, south=10, west=12, test=10)
NUMBERS = {"model.output_mean": "62", "model.output_scale": "10"}
OF_ALL = {  # of the simulation: the sites by their column, and who is tested
    "data.source": "bids",
    "data.options.splits": "split",
    "partition.name": "site",
    "partition.num_clients": "3",
}


def write_sites(root: Path) -> None:
    """Makes the folders ``north``, ``south``, ``west``, ``test`` and ``all`` below ``root``."""
    whole = cohort.write_cohort(root / "whole", people=sum(SIZES.values()), shape=(16, 18, 16), spread=0.6, sites=3)
    with (whole / "participants.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    places = [place for place, size in SIZES.items() for _ in range(size)]
    for place in SIZES:
        here = [row for row, there in zip(rows, places, strict=True) if there == place]
        for row in here:
            shutil.copytree(whole / row["participant_id"], root / place / row["participant_id"])
        _write_people(root / place, here)
    shutil.copytree(whole, root / "all")
    splits = ["test" if place == "test" else "train" for place in places]
    both = [{**row, "site": place, "split": split} for row, place, split in zip(rows, places, splits, strict=True)]
    _write_people(root / "all", both)


def _write_people(folder: Path, rows: list[dict]) -> None:
    with (folder / "participants.tsv").open("w") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def config(spec: str, cache: Path, **settings: str):
    """A config that sites can share, with small runs."""
    own = {"data.cache_dir": str(cache), "log.tensorboard": "false", "log.report": "false"}
    return override(load_config(spec), [*NUMBERS.items(), *own.items(), *settings.items()])


def distance(one: Path, other: Path) -> float:
    """The largest difference between two runs' final weights; infinite where their masks differ."""
    (_, _, a), (_, _, b) = load_run(one), load_run(other)
    pairs = lambda key: zip(jax.tree.leaves(getattr(a, key)), jax.tree.leaves(getattr(b, key)), strict=True)
    if not all((np.asarray(x) == np.asarray(y)).all() for x, y in pairs("masks")):
        return float("inf")
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs("params"))

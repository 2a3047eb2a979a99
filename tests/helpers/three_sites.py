"""Three hospitals with a folder each, a test set, and the folder of all for the simulation that they are compared with."""

import csv
import re
import shutil
from pathlib import Path

import jax
import numpy as np

from fedsparse_jax.config import experiment_from_config, load_config, load_run, override
from fedsparse_jax.data.phantom import cohort
from fedsparse_jax.runs import read_records, run_experiment
from tests.helpers.interrupted import QUIET

NAMES = ["north", "south", "west"]
SIZES = dict(north=8, south=10, west=12, test=10)
NUMBERS = {"model.output_mean": "62", "model.output_scale": "10"}
OF_ALL = {  # of the simulation: the sites by their column, and who is tested
    "data.source": "bids",
    "data.options.splits": "split",
    "partition.name": "site",
    "partition.num_clients": "3",
}


METHODS = {  # of which rounds at sites are compared with simulated ones
    "global": ("configs/quickstart.py:smoke", {}),
    "local": ("configs/quickstart.py:local+smoke", {}),
    "local, int8": (
        "configs/quickstart.py:local+smoke",
        {"communication.dtype": "int8", "communication.feedback": "true"},
    ),
    "feddst": ("configs/methods/feddst.py:coarse+smoke", {}),
}


def simulate(spec, sites, cache, workdir, settings):
    """The records of the run in one process that sites are compared with."""
    settings = OF_ALL | {"data.root": str(sites / "all")} | settings
    return run_experiment(experiment_from_config(config(spec, cache, **settings)), workdir, QUIET)


def check_they_end_where_the_simulation_ends(method, sites, folder, deploy, within):
    """Plays a method in one process, and by ``deploy(config, workdir)``, and compares weights, masks and bytes."""
    spec, settings = METHODS[method]
    settings = settings | {"communication.mode": "transmit"}
    simulated = simulate(spec, sites, folder / "cache", folder / "simulated", settings)
    deploy(config(spec, folder / "cache", **settings), folder / "deployed")
    assert distance(folder / "simulated", folder / "deployed") <= within
    for a, b in zip(simulated, read_records(folder / "deployed"), strict=True):
        assert (a.bytes_down, a.bytes_up, a.density) == (b.bytes_down, b.bytes_up, b.density)
        assert a.left_out == b.left_out == {}


def check_the_hostile_are_named(workdir, told):
    """Four rounds whose sites 1, 2 and 3 send rubbish, die, and send what is no number (see `hostile_site`)."""
    assert [one.left_out for one in read_records(workdir)] == [
        {"refused": [0]}, {"dropped_out": [1], "refused": [0]}, {"not_a_number": [2]}, {},
    ]  # fmt: skip
    assert "The reply of site 0 (site-1) in round 1 is refused: What came is no envelope" in told
    assert "The reply of site 0 (site-1) in round 2 is refused: it is of round 1." in told
    assert "Site 1 (site-2) gives no answer; its console says why." in told
    assert "The reply of site 2 (site-3) holds a loss, weight or score that is not a number." in told


def commands_of(page: Path, pattern: str, sites: Path) -> list[str]:
    """Commands of a page that match a pattern, with the folders of the sites and a small run."""
    lines = re.findall(rf"^    ({pattern})$", re.sub(r"\\\n\s*", "", page.read_text()), re.MULTILINE)
    for name in ("north", "south", "west", "test"):
        lines = [re.sub(rf"\b{name.upper()}\b", str(sites / name), line) for line in lines]
    small = f"quickstart.py:smoke --config.log.report=false --config.data.cache_dir={sites / 'cache'}"
    return [line.replace("quickstart.py", small) for line in lines]


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

"""The sides of a federation: their names, what each has set for itself, and three of them as folders of one machine.

A side's own settings stand in one file, which it writes itself and no run can change. What carries the bytes says where
that file lies.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json

OWN_FILE = "fedsparse_jax.json"  # of a side: {name: {key of the config: value}}
SERVER, RUNS = "server", "runs"


def check_names(sites: Sequence[str]) -> None:
    """Refuses names that cannot be those of sites.

    Raises:
        UsageError: one is no word, is the server's, or is given twice.
    """
    for name in sites:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or list(sites).count(name) > 1 or name == SERVER:
            raise UsageError(f"{name!r} cannot be the name of a site; give each its own, of letters and digits.")


def own_settings(folder: Path, name: str) -> tuple[dict[str, Any], str]:
    """``(what the side of a name has set for itself, the file that says it)``; nothing where there is no file."""
    file = folder.resolve() / OWN_FILE
    return dict(read_json(file).get(name, {})) if file.exists() else {}, str(file)


def run_folder(own: dict[str, Any], otherwise: Path, run: str) -> Path:
    """The run folder at the server, whose own settings may say where runs lie.

    Args:
        own: the server's; the key ``runs`` is taken out.
        otherwise: where runs lie if they do not.
        run: name of the folder.

    Raises:
        UsageError: that is no name.
    """
    runs = Path(own.pop(RUNS, otherwise))
    if Path(run).name != run:
        raise UsageError(f"The run is called {run!r}; a name of a folder is needed, and no path.")
    return runs.resolve() / run


def sides_on_this_machine(
    config: Any, sites: Sequence[Path], test: Path, workdir: Path
) -> tuple[list[str], dict[str, dict]]:
    """``(names of the sites, what each side sets for itself by its name)``, of a simulation.

    Args:
        config: of the run.
        sites: the folder, or the table, of each site's scans.
        test: the one of the server's test set.
        workdir: the run folder.

    Raises:
        UsageError: there is no such folder.
    """
    for folder in (*sites, test):
        if not folder.expanduser().exists():
            raise UsageError(f"{folder}: there is no such folder; --sites and --test name those of scans.")
    names = [f"site-{i}" for i in range(1, len(sites) + 1)]
    own = {name: _own_of(config, folder) for name, folder in zip([SERVER, *names], [test, *sites], strict=True)}
    own[SERVER][RUNS] = str(workdir.resolve().parent)
    return names, own


def raise_problem(outcome: Path, otherwise: str, logs: str) -> None:
    """Raises what went wrong in a simulation, if anything did.

    Args:
        outcome: file that the server has written at its end, ``{"problem": sentence}``, empty for none.
        otherwise: what went wrong where there is no such file.
        logs: where the engine's logs lie.

    Raises:
        UsageError: the problem.
    """
    if problem := read_json(outcome)["problem"] if outcome.exists() else otherwise:
        raise UsageError(f"{problem.rstrip('.')}. ({logs}.)")


def _own_of(config: Any, folder: Path) -> dict[str, str]:
    place = folder.expanduser().resolve()
    source = {"data.source": "table"} if place.is_file() and config.data.source != "table" else {}
    cache = Path(config.data.cache_dir).expanduser().resolve()
    return {**source, "data.root": str(place), "data.cache_dir": str(cache)}

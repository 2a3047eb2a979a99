"""A job of NVIDIA FLARE from a config, its simulation by processes on this machine, and start-up kits made ready.

The job holds no code and nobody's place: sites have `fedsparse_jax` installed, and say in their own kit where their
scans lie (`prepare_kit`).
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json, write_json
from fedsparse_jax.deploy.flare import EXPERIMENT_FILE, OUTCOME_FILE, RoundsController, SiteExecutor, require_nvflare
from fedsparse_jax.deploy.own_scans import config_of_sites
from fedsparse_jax.deploy.process_group import end_with_parent, run_as_group
from fedsparse_jax.deploy.sides import OWN_FILE, SERVER, check_names, raise_problem, sides_on_this_machine

ALLOWED = "class_allow_list"  # key of a kit's resources.json
RIGHTS = (  # that NVFlare's policies give
    *("submit_job", "clone_job", "manage_job", "download_job", "view", "operate", "server-predeployed-flwr"),
    *("shell_commands", "byoc"),
)
FORBIDDEN = ("byoc", "shell_commands")  # code in jobs, and reading files of a kit
_LOG_TO_CONSOLE = {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stdout"}
_LOG_TO_FILE = {"class": "logging.FileHandler", "formatter": "timed", "filename": "log.txt"}
_LOGGING = {  # of a simulation: the package on the console, everything in log.txt of each side
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {"format": "%(message)s"},
        "timed": {"format": "%(asctime)s - %(name)s - %(levelname)s - %(message)s"},
    },
    "handlers": {"console": _LOG_TO_CONSOLE, "file": _LOG_TO_FILE},
    "loggers": {
        "root": {"level": "INFO", "handlers": ["file"]},
        "fedsparse_jax": {"level": "INFO", "handlers": ["console"]},
    },
}


def _classes() -> list[str]:
    """What NVFlare makes of a job, by the paths of their classes."""
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in (RoundsController, SiteExecutor)]


def write_job(
    config: Any, sites: Sequence[str], job: Path, run: str, *, round_timeout: int = 3600, join_timeout: int = 3600
) -> None:
    """Writes the folder of a job, which `nvflare job submit -j` takes.

    Args:
        config: complete, but for the number of clients and the places of scans.
        sites: names of the sites, as their start-up kits have them; their order numbers them.
        job: the folder.
        run: name of the run folder at the server; a job of the same name goes on where it was.
        round_timeout, join_timeout: see `flare.RoundsController`.

    Raises:
        UsageError: a name is impossible, or the config leaves open what nobody can decide then.
    """
    check_names(sites)
    controller, executor = _classes()
    limits = dict(round_timeout=round_timeout, join_timeout=join_timeout)
    rounds = {"id": "rounds", "path": controller, "args": dict(sites=list(sites), run=run, **limits)}
    at_site = {"tasks": ["*"], "executor": {"path": executor, "args": dict(sites=list(sites))}}
    files = {
        "meta.json": {"name": run, "min_clients": 1, "deploy_map": {"app": ["@ALL"]}, "resource_spec": {}},
        "app/config/config_fed_server.json": {"format_version": 2, "workflows": [rounds]},
        "app/config/config_fed_client.json": {
            "format_version": 2,
            "executors": [at_site],
            "default_task_fetch_interval": 0.1,
        },
        f"app/config/{EXPERIMENT_FILE}": config_of_sites(config, len(sites)),
    }
    for name, content in files.items():
        file = job / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content)


def simulate_sites(config: Any, sites: Sequence[Path], test: Path, workdir: Path, **timeouts: int) -> None:
    """Plays a run whose sites are processes on this machine, by NVFlare's simulator.

    Args:
        config: as of `write_job`.
        sites: the folder, or the table, of each site's scans.
        test: the one of the server's test set.
        workdir: the run folder; NVFlare's own files lie beside it.
        timeouts: as of `write_job`.

    Raises:
        UsageError: there is no such folder, or the run ended with what the user can mend.
    """
    require_nvflare()
    place = workdir.resolve()
    beside = place.with_name(f"{place.name}-nvflare")
    job, workspace = beside / "job", beside / "workspace"
    names, own = sides_on_this_machine(config, sites, test, workdir)
    write_job(config, names, job, place.name, **timeouts)
    (workspace / "local").mkdir(parents=True, exist_ok=True)
    write_json(workspace / "local" / OWN_FILE, own)
    write_json(workspace / "local/log_config.json", _LOGGING)
    write_json(workspace / "local/resources.json", {"format_version": 2, ALLOWED: _classes()})
    code = run_as_group("fedsparse_jax.deploy.flare_job", [str(job), str(workspace), ",".join(names)])
    outcome = workspace / SERVER / "simulate_job" / OUTCOME_FILE
    raise_problem(outcome, f"NVFlare has ended with code {code}", f"NVFlare's logs lie in {workspace}")


def _simulate(job: str, workspace: str, names: str) -> int:
    runner = importlib.import_module("nvflare.private.fed.app.simulator.simulator_runner")
    end_with_parent()
    simulator = runner.SimulatorRunner(job, workspace, clients=names, threads=names.count(",") + 1)
    return simulator.run() or 0


def prepare_kit(kit: Path, own: Mapping[str, str]) -> str:
    """Makes a provisioned start-up kit ready: it learns where its scans lie, and which two classes a job may use.

    A site also forbids jobs to bring code, and everybody to read files of its kit from outside.

    Args:
        kit: folder of a site's or of the server's kit, as ``nvflare provision`` wrote it.
        own: keys of the config that are this side's own, ``data.root`` among them.

    Returns:
        The name of the side.

    Raises:
        UsageError: the folder is no such kit.
    """
    at_site, at_server = kit / "startup/fed_client.json", kit / "startup/fed_server.json"
    if not at_site.exists() and not at_server.exists():
        raise UsageError(f"{kit} is no start-up kit of a site or server; give a folder that `nvflare provision` wrote.")
    name = read_json(at_site)["client"]["fqsn"] if at_site.exists() else SERVER
    local = kit / "local"
    resources = local / "resources.json"
    allowed = read_json(resources if resources.exists() else local / "resources.json.default")
    known = allowed.setdefault(ALLOWED, [])
    known.extend(one for one in _classes() if one not in known)
    write_json(resources, allowed)
    write_json(local / OWN_FILE, {name: dict(own)})
    if at_site.exists():
        _forbid_code_and_files(local)
    return name


def _forbid_code_and_files(local: Path) -> None:
    """Writes the kit's policy, without the rights in ``FORBIDDEN`` of every role."""
    own = local / "authorization.json"
    policy = read_json(own if own.exists() else local / "authorization.json.default")
    for role, rights in policy["permissions"].items():
        each = dict.fromkeys(RIGHTS, rights) if isinstance(rights, str) else rights
        policy["permissions"][role] = {**each, **dict.fromkeys(FORBIDDEN, "none")}
    write_json(own, policy)


if __name__ == "__main__":
    sys.exit(_simulate(*sys.argv[1:]))

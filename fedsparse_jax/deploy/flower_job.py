"""An app of Flower from a config, its simulation by processes on this machine, and folders of real sides.

The app holds no code and nobody's place: sites have `fedsparse_jax` installed, and say in their own Flower folder where
their scans lie (`prepare_folder`). Flower's telemetry, its question for updates, and its installing of what an app asks
for are off in all that is written or started here.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import write_json, write_whole
from fedsparse_jax.core.processes import free_ports
from fedsparse_jax.deploy.flower import CONSOLE, OUTCOME, require_flower
from fedsparse_jax.deploy.own_scans import config_of_sites
from fedsparse_jax.deploy.process_group import end_with_parent, run_as_group
from fedsparse_jax.deploy.sides import OWN_FILE, SERVER, check_names, raise_problem, sides_on_this_machine

QUIET = {  # Flower's own switches
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
SITE_APP, SERVER_APP = "fedsparse_jax.deploy.flower:client_app", "fedsparse_jax.deploy.flower:server_app"
CONNECTION = "server"  # what `flwr` calls the way to the server, in the server's Flower folder
_APP = """# Written from a config of fedsparse_jax; it holds no code.
[project]
name = "fedsparse-jax"
version = "1.0.0"
description = "Sparse federated learning for neuroimaging"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedsparse-jax"

[tool.flwr.app.components]
serverapp = "{server_app}"
clientapp = "{site_app}"

[tool.flwr.app.config]
"""
CERTIFICATE = "server.crt"
_START = """#!/bin/sh
# Starts {name} by Flower; docs/how-to/deploy_flower.md says how.
cd "$(dirname "$0")"
export FLWR_HOME="$PWD" {quiet}
export JAX_COMPILATION_CACHE_DIR="$PWD/xla" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=0
"""
_SUPERLINK = """exec flower-superlink --host 0.0.0.0 --port {port} --enable-supernode-auth \\
    --ssl-ca-certfile server.crt --ssl-certfile server.crt --ssl-keyfile server.key --database state.db
"""
_SUPERNODE = """free='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
exec flower-supernode --superlink {address} --root-certificates server.crt --auth-supernode-private-key key \\
    --host 127.0.0.1 --port "$(python -c "$free")"
"""


def write_app(
    config: Any, sites: Sequence[str], app: Path, run: str, *, round_timeout: int = 3600, join_timeout: int = 3600
) -> None:
    """Writes the folder of an app, which ``flwr run`` takes.

    Args:
        config: complete, but for the number of clients and the places of scans.
        sites: names of the sites, as their Flower folders have them; their order numbers them.
        app: the folder.
        run: name of the run folder at the server; an app with the same name goes on where it was.
        round_timeout: seconds that a site has for a round.
        join_timeout: seconds that all sites have to connect and to read their scans.

    Raises:
        UsageError: a name is impossible, or the config leaves open what nobody can decide then.
    """
    check_names(sites)
    settings = {
        "run": run,
        "sites": ",".join(sites),
        "round-timeout": round_timeout,
        "join-timeout": join_timeout,
        "experiment": json.dumps(config_of_sites(config, len(sites)), default=str),
    }
    app.mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings.items()]
    head = _APP.format(server_app=SERVER_APP, site_app=SITE_APP)
    write_whole(app / "pyproject.toml", head + "".join(lines))


def simulate_by_flower(config: Any, sites: Sequence[Path], test: Path, workdir: Path, **timeouts: int) -> None:
    """Plays a run whose sites are processes on this machine, by Flower, on ports of 127.0.0.1.

    Args:
        config: as of `write_app`.
        sites: the folder, or the table, of each site's scans.
        test: the one of the server's test set.
        workdir: the run folder; Flower's own files lie beside it.
        timeouts: as of `write_app`.

    Raises:
        UsageError: there is no such folder, or the run ended with what the user can mend.
    """
    require_flower()
    place = workdir.resolve()
    beside = place.with_name(f"{place.name}-flower")
    names, own = sides_on_this_machine(config, sites, test, workdir)
    write_app(config, names, beside / "app", place.name, **timeouts)
    for name, settings in own.items():
        write_json(beside / name / OWN_FILE, {name: settings})
    outcome = beside / SERVER / OUTCOME
    outcome.unlink(missing_ok=True)
    run_as_group("fedsparse_jax.deploy.flower_job", [str(beside), *names])
    raise_problem(outcome, "Flower has ended before the run had", f"Flower's logs lie in {beside}")


def _simulate(place: str, *names: str) -> None:
    """Starts a SuperLink, a SuperNode for each site, and the run; ends all, and itself, once the run has ended."""
    end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    beside, started = Path(place), list[subprocess.Popen]()
    link, *nodes = free_ports(1 + len(names))
    address = f"127.0.0.1:{link}"
    _write_connection(beside / SERVER, f'address = "{address}"\ninsecure = true\n')
    consoles = [(beside / side / CONSOLE).open("w+") for side in (SERVER, *names)]

    def start(side: str, *words: str) -> subprocess.Popen:
        with (beside / f"{side}.log").open("a") as log:
            started.append(subprocess.Popen(words, env=_surroundings(beside / side), stdout=log, stderr=log))
        return started[-1]

    try:
        here = ("--insecure", "--host", "127.0.0.1", "--port")
        alone = ("--isolation", "process")  # a SuperExec that it starts itself would leave this process group
        superlink = start(SERVER, "flower-superlink", *here, str(link), *alone)
        _await_port(link, superlink)
        superexec = start(SERVER, "flower-superexec", "--insecure", "--runtime-api-address", address)
        for name, port in zip(names, nodes, strict=True):
            start(name, "flower-supernode", *here, str(port), "--superlink", address)
        run = start(SERVER, "flwr", "run", str(beside / "app"), CONNECTION, "--stream")
        while all(process.poll() is None for process in (superlink, superexec, run)):
            _show(consoles)
            time.sleep(0.2)
        _show(consoles)
    finally:
        _stop(started)


def _show(consoles: Sequence[IO[str]]) -> None:
    """Prints what the sides have said since they were last looked at."""
    print("".join(console.read() for console in consoles), end="", flush=True)


def prepare_folder(folder: Path, name: str, own: Mapping[str, str], address: str, certificate: Path) -> None:
    """Makes the Flower folder of a real side: its own settings, and the script ``start.sh`` that starts it.

    Args:
        folder: of the side; it may hold its keys already.
        name: of the site, or ``server``.
        own: keys of the config that are this side's own, ``data.root`` among them.
        address: ``host:port`` by which the sites reach the server.
        certificate: file of the server's certificate, by which the sites know it.

    Raises:
        UsageError: the name or the address is none, or there is no such certificate.
    """
    if name != SERVER:
        check_names([name])
    host, colon, port = address.rpartition(":")
    if not host or not colon or not port.isdigit():
        raise UsageError(f"{address!r} is no address of a server; give host:port, such as fl.hospital.org:9400.")
    if not certificate.is_file():
        raise UsageError(
            f"{certificate}: there is no such certificate; docs/how-to/deploy_flower.md says how to make it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if certificate.resolve() != (folder / CERTIFICATE).resolve():
        shutil.copy(certificate, folder / CERTIFICATE)
    write_json(folder / OWN_FILE, {name: dict(own)})
    if name == SERVER:
        root = (folder / CERTIFICATE).resolve()
        _write_connection(folder, f'address = "{address}"\nroot-certificates = "{root}"\n')
    quiet = " ".join(f"{key}={value}" for key, value in QUIET.items())
    command = _SUPERLINK if name == SERVER else _SUPERNODE
    script = (_START + command).format(name=name, quiet=quiet, address=address, port=port)
    write_whole(folder / "start.sh", script)
    (folder / "start.sh").chmod(0o755)


def _surroundings(folder: Path) -> dict[str, str]:
    """The environment of one side, whose files lie in a folder; Flower finds its own commands by the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    pace = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
    return {**os.environ, **QUIET, **pace, "FLWR_HOME": str(folder), "PATH": path}


def _write_connection(folder: Path, words: str) -> None:
    """Tells ``flwr``, which reads it in its Flower folder, how to reach the server."""
    write_whole(folder / "config.toml", f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n{words}')


def _await_port(port: int, process: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise SystemExit(1)


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    """Ends processes and, by ending the whole group of this one, those that they have started."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + 5
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(end - time.monotonic(), 0))
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    _simulate(*sys.argv[1:])

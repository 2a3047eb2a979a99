"""Real sites by Flower (extra ``flower``): its ServerApp at the server, its ClientApp at a site.

Both carry bytes and know nothing of a round. Flower starts a new process for each message to a site, so that what a
site keeps between rounds stands in Flower's ``context.state``, which does not leave the site. Who a node is, it says
itself when it joins; where it was registered by a name, it must be that one.
"""

import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedsparse_jax.communication import MessageError
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json, write_json
from fedsparse_jax.deploy.handshake import read_hello, read_welcome
from fedsparse_jax.deploy.own_scans import own_config, server_experiment, site_experiment
from fedsparse_jax.deploy.server import Server
from fedsparse_jax.deploy.sides import OWN_FILE, RUNS, SERVER, own_settings, run_folder
from fedsparse_jax.deploy.site import SiteClient
from fedsparse_jax.runs import run_experiment

try:
    from flwr.app import ConfigRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
except ImportError:  # said by `require_flower`; the module can be read without
    ConfigRecord = Context = Message = RecordDict = ClientApp = Grid = ServerApp = Any

OUTCOME = "outcome.json"  # in the server's Flower folder: how its last run has ended
CONSOLE = "console.txt"  # in each side's: what it has said, which Flower may show nobody
_JOIN, _WELCOME, _TRAIN = "query.join", "query.welcome", "train"  # types of Flower's messages
_PAYLOAD, _BYTES, _MEMORY = "fedsparse_jax", "bytes", "memory"  # keys of what they carry, and of what a site keeps
_PAUSE = 0.2  # seconds between two looks for replies


def require_flower() -> None:
    """Refuses to go on without Flower.

    Raises:
        UsageError: it is not installed.
    """
    if ServerApp is Any:
        raise UsageError("Sites by Flower need flwr; install the extra by: pip install -e '.[flower]'.")


def flower_folder() -> Path:
    """Where Flower keeps its files on this side, and where the side's own settings lie."""
    return Path(os.environ.get("FLWR_HOME") or "~/.flwr").expanduser()


def _say(line: str) -> None:
    print(line, flush=True)
    with (flower_folder() / CONSOLE).open("a") as console:
        console.write(f"{line}\n")


class FlowerSites:
    """The sites as the ServerApp sees them: which node is which site, what it is sent, and what it answers."""

    def __init__(
        self, grid: Grid, names: list[str], experiment, say: Callable[[str], None], round_timeout: float = 3600
    ):
        """Sites of which none has joined.

        Args:
            grid: Flower's.
            names: of all sites, in the order of their numbers.
            experiment: of the server, see `server.Server`.
            say: told who joins, who is refused, who is gone.
            round_timeout: seconds that a site has for a round.
        """
        self.server = Server(experiment, lambda round_, orders: self.ask(orders, round_timeout), say)
        self._grid, self._names, self._say = grid, names, say
        self._nodes: dict[int, int] = {}  # of each site that has joined
        self._asked: set[int] = set()  # nodes that need not be asked again who they are
        self._joining: dict[str, int] = {}  # nodes that have not said yet who they are, by the message that asks them

    def await_all(self, seconds: float) -> None:
        """Lets every node introduce itself, until all sites have joined, or cannot, or the time is up."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._welcome_new(seconds)
            if len(self._nodes) == len(self._names):
                return
            if not self._joining and len(self._asked) >= len(self._names):
                return
            time.sleep(_PAUSE)

    def ask(self, orders: Mapping[int, bytes], seconds: float) -> Iterator[tuple[int, bytes]]:
        """The replies to the orders of a round, as they come; a site that fails, is gone, or takes too long has none.

        Nodes that are new join meanwhile, and are sent the next order: a site that was started again comes back.
        """
        self._asked = set(self._nodes.values()) | set(self._joining.values())
        self._await_any(orders, seconds)
        end, alive, waiting = time.monotonic() + seconds, set(self._grid.get_node_ids()), dict[str, int]()
        for site, order in orders.items():
            if self._nodes.get(site) in alive:
                waiting |= dict.fromkeys(self._send(_TRAIN, self._nodes[site], order, seconds), site)
            else:
                self._say(f"Site {site} ({self._names[site]}) is not connected.")
        while waiting and time.monotonic() < end:
            self._welcome_new(seconds)
            for site, answer in self._replies(waiting):
                if answer is None:
                    self._say(f"Site {site} ({self._names[site]}) gives no answer; its console says why.")
                else:
                    yield site, answer
            time.sleep(_PAUSE)
        for site in waiting.values():
            self._say(f"Site {site} ({self._names[site]}) has not answered in time, or is gone.")

    def _await_any(self, sites: Iterable[int], seconds: float) -> None:
        """Returns once one of some sites is connected, since a round without any would change nothing."""
        end = time.monotonic() + seconds
        connected = lambda: {self._nodes.get(site) for site in sites} & set(self._grid.get_node_ids())
        while not connected() and time.monotonic() < end:
            self._welcome_new(seconds)
            time.sleep(_PAUSE)

    def _welcome_new(self, seconds: float) -> None:
        """Asks new nodes who they are, and hears what those say that were asked before."""
        for node in set(self._grid.get_node_ids()) - self._asked:
            self._asked.add(node)
            self._joining |= dict.fromkeys(self._send(_JOIN, node, b"", seconds), node)
        for node, hello in self._replies(self._joining):
            if hello is None:
                self._say("A node cannot say which site it is; its console says why.")
            elif refusal := self._welcome(node, hello):
                self._send(_WELCOME, node, refusal, seconds)

    def _welcome(self, node: int, hello: bytes) -> bytes | None:
        """Takes a node as the site that it says it is; returns what it is told where it is refused."""
        nodes = {one.node_id: one for one in self._grid.get_nodes()}
        try:
            said = read_hello(hello, self.server.num_sites)
        except MessageError as error:
            self._say(f"Somebody is refused: {error}")
            return None
        registered = getattr(nodes.get(node), "name", "")
        if self._names[said.site] != said.name or (registered and registered != said.name):
            who = f" and is registered as {registered}" if registered else ""
            self._say(f"Somebody is refused: it calls itself site {said.site} ({said.name}){who}.")
            return None
        if self._nodes.get(said.site, node) != node and self._nodes[said.site] in nodes:
            self._say(f"Somebody is refused: it calls itself {said.name}, which is there already.")
            return None
        answer = self.server.welcome(hello)
        try:
            read_welcome(answer)
        except UsageError:
            return answer
        self._nodes[said.site] = node
        return None

    def _send(self, kind: str, node: int, payload: bytes, seconds: float) -> list[str]:
        """Sends a node bytes, which it need not look at once the time is up; returns the message's id, if it went."""
        content = RecordDict({_PAYLOAD: ConfigRecord({_BYTES: payload})})
        sent = self._grid.push_messages([Message(content, node, kind, ttl=max(seconds, 1.0))])
        return [one for one in sent if one]

    def _replies(self, waiting: dict[str, int]) -> Iterable[tuple[int, bytes | None]]:
        """Who has answered by now, with the bytes or None; they wait no longer."""
        if not waiting:
            return []
        replies = self._grid.pull_messages(list(waiting))
        there = [(reply.metadata.reply_to_message_id, _payload(reply)) for reply in replies]
        return [(waiting.pop(asked), payload) for asked, payload in there if asked in waiting]


def play(grid: Grid, context: Context) -> None:
    """At the server: plays the rounds that the run folder does not hold yet."""
    outcome = flower_folder() / OUTCOME
    try:
        _play(grid, context.run_config)
    except Exception as error:
        problem = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        write_json(outcome, {"problem": problem})
        raise
    write_json(outcome, {"problem": ""})


def _play(grid: Grid, settings: Mapping[str, Any]) -> None:
    own, where = own_settings(flower_folder(), SERVER)
    place = run_folder(own, flower_folder() / RUNS, settings["run"])
    experiment = server_experiment(own_config(json.loads(settings["experiment"]), own, where))
    sites = FlowerSites(grid, settings["sites"].split(","), experiment, _say, settings["round-timeout"])
    sites.await_all(settings["join-timeout"])
    run_experiment(sites.server.experiment(), place, _say)


def answer_message(message: Message, context: Context) -> Message:
    """At a site: the answer to any message; one without bytes where the site fails, since only its console says why."""
    content, names = RecordDict(), context.run_config["sites"].split(",")
    try:
        content[_PAYLOAD] = ConfigRecord({_BYTES: _answer(message, context, names)})
    except (UsageError, MessageError) as error:
        _say(f"{', '.join(_names_here(names)) or 'A site'}: {error}")
    except Exception:  # Flower would tell the server its words, which may be private
        _say(traceback.format_exc())
    return Message(content, reply_to=message)


def _answer(message: Message, context: Context, names: list[str]) -> bytes:
    kind, payload, kept = message.metadata.message_type, _payload(message) or b"", context.state
    client = _make_client(json.loads(context.run_config["experiment"]), names)
    if kind == _JOIN:
        return client.hello()
    if kind == _WELCOME:
        client.read_welcome(payload)
        return b""
    if _MEMORY in kept:
        client.remember(kept[_MEMORY][_BYTES])
    answer = client.answer(payload)
    kept[_MEMORY] = ConfigRecord({_BYTES: client.memory()})
    return answer


def _make_client(shared: dict[str, Any], names: list[str]) -> SiteClient:
    here = _names_here(names)
    if len(here) != 1:
        file, sites = flower_folder() / OWN_FILE, ", ".join(names)
        raise UsageError(f"{file}: it must hold the settings of one of the sites of this run, {sites}.")
    own, where = own_settings(flower_folder(), here[0])
    number = names.index(here[0])
    return SiteClient(site_experiment(own_config(shared, own, where), number), number, here[0])


def _names_here(names: list[str]) -> list[str]:
    """The sites whose settings this side holds: one, unless a human has erred."""
    file = flower_folder() / OWN_FILE
    return [name for name in (read_json(file) if file.exists() else {}) if name in names]


def _payload(message: Message) -> bytes | None:
    """The bytes that a message carries; None where it is an error, or none of this package's."""
    record = message.content.get(_PAYLOAD) if message.has_content() else None
    payload = record.get(_BYTES) if isinstance(record, ConfigRecord) else None
    return payload if isinstance(payload, bytes) else None


if ServerApp is not Any:
    server_app = ServerApp()
    client_app = ClientApp()
    server_app.main()(play)
    for register in (client_app.query("join"), client_app.query("welcome"), client_app.train()):
        register(answer_message)

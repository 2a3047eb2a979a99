"""Who is who at the ServerApp: nodes that join, come back, pretend, or do not answer, on a grid in this process."""

import importlib
import itertools
from types import SimpleNamespace

import pytest

from fedsparse_jax.deploy import SiteClient, flower, part_of_site
from fedsparse_jax.runs import Cohorts, run_experiment
from tests.helpers import toy_federation
from tests.helpers.interrupted import QUIET

pytest.importorskip("flwr")

NAMES = ["north", "south", "west"]


class InOneProcess:
    """Flower's grid, whose nodes are functions ``(kind, bytes) -> bytes or None``; one that raises is silent."""

    def __init__(self, nodes):
        self.nodes, self.registered, self._replies, self._number = nodes, {}, {}, itertools.count()

    def get_node_ids(self):
        return list(self.nodes)

    def get_nodes(self):
        return [SimpleNamespace(node_id=node, name=self.registered.get(node, "")) for node in self.nodes]

    def push_messages(self, messages):
        return [self._push(message) for message in messages]

    def _push(self, message):
        id_, meta = str(next(self._number)), message.metadata
        reply = flower.RecordDict()
        try:
            answer = self.nodes[meta.dst_node_id](meta.message_type, message.content["fedsparse_jax"]["bytes"])
        except TimeoutError:
            return id_
        if answer is not None:
            reply["fedsparse_jax"] = flower.ConfigRecord({"bytes": answer})
        metadata = SimpleNamespace(reply_to_message_id=id_)
        self._replies[id_] = SimpleNamespace(metadata=metadata, content=reply, has_content=lambda: True)
        return id_

    def pull_messages(self, ids):
        return [self._replies.pop(id_) for id_ in ids if id_ in self._replies]


@pytest.fixture(scope="module")
def experiment():
    return toy_federation.experiment(3, "client", epochs=1)._replace(cohorts=Cohorts(3))


@pytest.fixture
def federation(experiment, monkeypatch):
    """``(sites, grid, what was said, a function that makes the node of a site)``."""

    def node(site, name):
        memory = []

        def answer(kind, payload):  # a new process for each message, which gets what the last one kept
            client = SiteClient(part_of_site(experiment, site), site, name)
            if kind == flower._JOIN:
                return client.hello()
            if memory:
                client.remember(memory[-1])
            reply = client.answer(payload)
            memory.append(client.memory())
            return reply

        return answer

    identity = importlib.import_module("flwr.supercore.task_identity").TaskIdentity
    for name in ("_run_id", "_node_id", "_task_id"):  # without which Flower makes no message
        monkeypatch.setattr(identity, name, 1)
    told = []
    grid = InOneProcess({10 + site: node(site, name) for site, name in enumerate(NAMES)})
    return flower.FlowerSites(grid, NAMES, experiment, told.append), grid, told, node


@pytest.mark.slow
def test_sites_that_forget_all_but_their_memory_send_what_simulated_ones_do(experiment, federation, tmp_path):
    sites, *_ = federation
    sites.await_all(60)
    simulated = run_experiment(experiment, tmp_path / "simulated", QUIET)
    deployed = run_experiment(sites.server.experiment(), tmp_path / "deployed", QUIET)
    for a, b in zip(simulated, deployed, strict=True):
        assert (a.bytes_down, a.bytes_up, a.sparsity, a.test) == (b.bytes_down, b.bytes_up, b.sparsity, b.test)


def test_a_node_is_the_site_that_it_says_unless_that_is_there_or_it_is_registered_as_another(federation):
    sites, grid, told, node = federation
    honest = grid.nodes.pop(12)
    grid.nodes |= {13: node(2, "north"), 14: node(1, "south"), 15: lambda kind, payload: b"noise"}
    grid.registered = {13: "north", 14: "south"}
    sites.await_all(1)
    assert sites._nodes == {0: 10, 1: 11}
    assert "Somebody is refused: it calls itself site 2 (north) and is registered as north." in told
    assert "Somebody is refused: it calls itself south, which is there already." in told
    assert "Somebody is refused: What came is no introduction of a site." in told
    grid.nodes = {10: grid.nodes[10], 11: grid.nodes[11], 12: honest}
    grid.registered = {12: "south"}
    sites.await_all(1)
    assert "Somebody is refused: it calls itself site 2 (west) and is registered as south." in told
    assert 2 not in sites._nodes


def test_a_round_names_who_is_gone_silent_or_fails_and_hears_who_comes_back(federation):
    sites, grid, told, node = federation
    sites.await_all(60)
    orders = dict.fromkeys(range(3), b"order")

    def silent(kind, payload):
        raise TimeoutError

    grid.nodes = {11: lambda kind, payload: None, 12: silent, 20: node(0, "north")}  # north was started again
    assert list(sites.ask(orders, 1)) == []
    assert "Site 0 (north) is not connected." in told
    assert "Site 1 (south) gives no answer; its console says why." in told
    assert "Site 2 (west) has not answered in time, or is gone." in told
    assert sites._nodes[0] == 20 and any(line.startswith("Site 0 (north) is back: ") for line in told)
    grid.nodes[20] = lambda kind, payload: payload
    assert list(sites.ask({0: b"order"}, 1)) == [(0, b"order")]


def test_a_round_awaits_somebody_where_nobody_is_there(federation, monkeypatch):
    sites, grid, _, node = federation
    sites.await_all(60)
    back, grid.nodes = node(0, "north"), {}
    returning = lambda kind, payload: back(kind, payload) if kind == flower._JOIN else payload
    monkeypatch.setattr(flower.time, "sleep", lambda seconds: grid.nodes.update({20: returning}))
    assert list(sites.ask({0: b"order", 1: b"order"}, 60)) == [(0, b"order")]

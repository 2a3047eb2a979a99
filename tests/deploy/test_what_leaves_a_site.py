"""docs/deployment.md lists every byte that leaves a site: its tables against recordings of real traffic."""

import json
import re
import textwrap
from collections import defaultdict
from pathlib import Path

import jax
import optax
import pytest

from fedsparse_jax.communication import MessageSettings
from fedsparse_jax.config import load_config, override
from fedsparse_jax.core import losses
from fedsparse_jax.deploy import Server, SiteClient, flare_job, part_of_site
from fedsparse_jax.deploy.flare import SiteExecutor
from fedsparse_jax.deploy.own_scans import shared_config
from fedsparse_jax.federated import AGGREGATORS, Recipe, build_algorithm, regrow_on_server
from fedsparse_jax.runs import Cohorts, run_experiment
from fedsparse_jax.sparsity import CRITERIA, Pruning, Regrowth, constant, global_, greedy
from tests.helpers import recording_controller, three_sites, toy_federation
from tests.helpers.byte_account import Account
from tests.helpers.interrupted import QUIET

ROUNDS = 3
NUMBERS = [("model.output_mean", "62.0"), ("model.output_scale", "10.0"), ("partition.num_clients", "3")]


def rows(page: str, head: str) -> dict[str, list[str]]:
    """The other cells of each name in the tables whose head begins so."""
    found = {}
    for table in re.findall(rf"^\| {re.escape(head)}.*\n\|[ -|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE):
        for line in table.splitlines():
            names, *cells = line.strip("| ").split(" | ")
            found |= {name: [names, *cells] for name in re.findall("`([^`]+)`", names)}
    return found


def listed(name: str, names) -> str:
    """The name under which the page has a recorded one: itself, or the section of the config that it is of."""
    if name in names or not name.startswith("hello.facts."):
        return name
    section = name.removeprefix("hello.facts.").partition(".")[0]
    return f"hello.facts.{section}.*" if section != "data" else name


class Recording:
    """Three sites and a server in one process, and all bytes between them."""

    def __init__(self, experiment):
        sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(experiment.model.init, jax.random.key(0)))]
        self.experiment, self.accounts = experiment, [Account(sizes) for _ in range(3)]
        self.server = Server(experiment, self._ask, QUIET)
        self.seen = []  # (way, part)
        self.sites = [self._joined(site) for site in range(3)]

    def _joined(self, number: int) -> SiteClient:
        site = SiteClient(part_of_site(self.experiment, number), number, f"hospital-{number}")
        hello = site.hello()
        welcome = self.server.welcome(hello)
        self._keep("up", self.accounts[number].hello(hello))
        self._keep("down", self.accounts[number].welcome(welcome))
        site.read_welcome(welcome)
        return site

    def _keep(self, way: str, parts):
        self.seen += [(way, part) for part in parts]

    def _ask(self, round_, orders):
        for number, order in orders.items():
            self._keep("down", self.accounts[number].envelope(order))
            if (round_, number) == (2, 1):
                self.sites[1] = self._joined(1)  # it is restarted, and has lost its mask
            reply = self.sites[number].answer(order)
            self._keep("up", self.accounts[number].envelope(reply))
            yield number, reply

    def play(self, workdir):
        run_experiment(self.server.experiment(), workdir, QUIET)
        return self.seen


def regrown_by_scores():
    pruning = Pruning(CRITERIA["magnitude"], global_, constant(0.5))
    regrowth = Regrowth(greedy(), CRITERIA["squared_gradient"], 1, 2, ROUNDS)  # in every other round
    hook = regrow_on_server(pruning, regrowth)
    parts = (toy_federation.network(), losses.squared, optax.sgd(1e-3), optax.sgd(1.0), AGGREGATORS["keepers_mean"])
    return build_algorithm(Recipe(*parts, hooks=(hook,), num_clients=3))


METHODS = {  # what they send differs: masks down; masks up and rounded differences; scores
    "server prunes": lambda: toy_federation.experiment(ROUNDS, epochs=1, messages=MessageSettings("transmit")),
    "sites prune": lambda: toy_federation.experiment(
        ROUNDS, "client", epochs=1, messages=MessageSettings("transmit", "int8", feedback=True, seed=3)
    ),
    "scores": lambda: toy_federation.experiment(ROUNDS, epochs=1, algorithm=regrown_by_scores()),
}


@pytest.fixture(scope="module")
def by_method(tmp_path_factory):
    config = shared_config(override(load_config("configs/quickstart.py:smoke"), NUMBERS))
    whole = {name: make()._replace(config=config, cohorts=Cohorts(3)) for name, make in METHODS.items()}
    return {name: Recording(one).play(tmp_path_factory.mktemp("run") / "run") for name, one in whole.items()}


@pytest.fixture(scope="module")
def recorded(by_method):
    return [part for parts in by_method.values() for part in parts]


@pytest.fixture
def page(repository) -> str:
    return (repository / "docs/deployment.md").read_text()


@pytest.mark.slow
def test_the_page_lists_what_was_sent_and_nothing_else(page, recorded):
    names = rows(page, "name | way")
    sent = {listed(part.name, names) for _, part in recorded}
    assert sent - names.keys() == set(), "the page does not list these"
    assert names.keys() - sent == set(), "these were never sent"


@pytest.mark.slow
def test_ways_and_lengths_are_those_that_the_page_says(page, recorded):
    names, ways, sizes = rows(page, "name | way"), defaultdict(set), defaultdict(set)
    for way, part in recorded:
        name = listed(part.name, names)
        sizes[name].add(len(part.data))
        if any(part.data):
            ways[name].add(way)
    told = {frozenset(): "none", frozenset({"up"}): "up", frozenset({"down"}): "down"}
    for name, (all_names, way, length, *_) in names.items():
        assert told.get(frozenset(ways[name]), "both") == way, name
        fixed = [word for word in length.split(", ") if word.isdigit()]
        if fixed:
            place = re.findall("`([^`]+)`", all_names).index(name)
            assert sizes[name] == {int(fixed[place])}, name
    assert 0 in sizes["message.mask"] and 0 in sizes["scores"]
    assert min(sizes["message.values"]) >= 9 and sizes["envelope.lengths"] == {4, 8}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_only_a_site_that_prunes_sends_a_mask_up_and_only_one_that_is_asked_sends_scores(method, by_method):
    up = [part for way, part in by_method[method] if way == "up"]
    masks = {len(part.data) for part in up if part.name == "message.mask"}
    assert (masks == {0}) == (method != "sites prune")
    assert any(part.name == "scores" for part in up) == (method == "scores")


def test_a_field_that_the_page_lacks_is_found(page):
    names = rows(page, "name | way")
    assert listed("hello.facts.client.epochs", names) in names
    assert listed("hello.facts.data.participants", names) not in names
    assert listed("hello.facts.people.ages", names) not in names
    assert "hello.names" not in names and "hello.name" in names


@pytest.mark.slow
def test_what_nvflare_brings_to_the_server_is_what_the_page_lists(page, tmp_path, monkeypatch):
    """Three processes, one of which dies in round 2; all answers as they arrive, and the logs of the sites."""
    pytest.importorskip("nvflare")
    three_sites.write_sites(tmp_path / "sites")
    recording, dying = tmp_path / "answers.jsonl", "tests.helpers.hostile_site.DyingExecutor"
    controller = f"{recording_controller.__name__}.RecordingController"
    monkeypatch.setattr(flare_job, "_classes", lambda: [controller, dying])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv(recording_controller.PLACE, str(recording))
    config = three_sites.config("configs/quickstart.py:dense+smoke", tmp_path / "cache")
    folders = [tmp_path / "sites" / name for name in three_sites.NAMES]
    limits = dict(round_timeout=300, join_timeout=300)
    flare_job.simulate_sites(config, folders, tmp_path / "sites/test", tmp_path / "run", **limits)

    answers = [json.loads(line) for line in recording.read_text().splitlines()]
    assert len(answers) == 3 * (2 + ROUNDS) + 1, "joined, welcomed, played, and one asked for a whole mask"
    sent = {f"nvflare.{name}" for answer in answers for name in answer}
    assert sent == rows(page, "name | what").keys()
    kept = lambda task: [bytes.fromhex(one["bytes"]) for one in answers if one["task_name"] == task and "bytes" in one]
    names = rows(page, "name | way")
    assert all(2250 < len(hello) < 2450 for hello in kept("join")), "the page says about 2.3 kB"
    for hello in kept("join"):
        assert {listed(part.name, names) for part in Account([]).hello(hello)} <= names.keys()
    assert set(kept("welcome")) == {b""} and len(kept("train")) == 3 * ROUNDS
    for reply in kept("train"):
        assert reply.startswith(b"FSJE") and str(tmp_path).encode() not in reply

    logs = [file.read_text() for file in tmp_path.glob("run-nvflare/workspace/site-*/log.txt")]
    ours = [line for text in logs for line in text.splitlines() if re.search(r" - (fedsparse_jax|tests)\.", line)]
    assert len(logs) == 3 and len(ours) == 1 and ours[0].endswith("site-2 gives no answer; its console says why.")
    for name in ("site-1", "site-3"):
        log = (tmp_path / f"run-nvflare/workspace/{name}/log.txt").read_text()
        counted = [int(size) for size in re.findall(r"SubmitUpdate to: .*\((\d+) Bytes\)", log)]
        own = [len(one["bytes"]) // 2 for one in answers if one["peer_props.identity_name"] == name]
        beside = [whole - part for whole, part in zip(counted, own, strict=True)]
        assert len(own) == 2 + ROUNDS and all(740 < size < 800 for size in beside), "the page says about 0.77 kB"
    everything = recording.read_text() + "".join(logs)
    assert str(tmp_path / "sites") not in everything and "sub-" not in everything


def test_an_executor_logs_the_sentences_of_the_page_alone(page, repository):
    """Every place where the code of a site writes to NVFlare's log."""
    source = (repository / "fedsparse_jax/deploy/flare.py").read_text()
    executor = source[source.index(f"class {SiteExecutor.__name__}") :]
    logged = re.findall(r"(?:log_\w+|logger\.\w+)\((.*)\)\n", executor)
    assert logged == [
        'fl_ctx, f"{fl_ctx.get_identity_name()} gives no answer; its console says why."',
        "fl_ctx, str(error)",
    ]
    raised = re.findall(r'UsageError\(f?"([^"]*)"', executor)
    assert raised == ["{name} is none of the sites of this job ({', '.join(self._names)})."]
    table = rows(page, "sentence")
    assert {
        "NAME gives no answer; its console says why.",
        "NAME is none of the sites of this job (NAMES).",
    } < table.keys()


def test_a_prepared_kit_forbids_code_and_reading_files_and_allows_jobs(tmp_path):
    """By NVFlare's own reading of its default policy and of ours."""
    nvflare = pytest.importorskip("nvflare")
    from nvflare.fuel.sec.authz import Authorizer, AuthzContext, Person
    from nvflare.security.security import COMMAND_CATEGORIES

    template = Path(nvflare.__file__).parent / "lighter/templates/master_template.yml"
    default = textwrap.dedent(re.search(r"^default_authz: \|\n((?:  .*\n)+)", template.read_text(), re.MULTILINE)[1])
    for name, text in {
        "startup/fed_client.json": json.dumps({"client": {"fqsn": "north"}}),
        "local/resources.json.default": "{}",
        "local/authorization.json.default": default,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    flare_job.prepare_kit(tmp_path, {"data.root": "/scans"})
    ours = json.loads((tmp_path / "local/authorization.json").read_text())

    def allowed(policy, role, right):
        authorizer, person = Authorizer("north", COMMAND_CATEGORIES), Person("lead@north.org", "north", role)
        assert not authorizer.load_policy(policy)
        return authorizer.authorize(AuthzContext(right, person, person))[0]

    assert all(right in ours["permissions"]["project_admin"] for right in set(COMMAND_CATEGORIES.values()))
    for role in ("project_admin", "org_admin", "lead", "member"):
        for right in ("submit_job", "abort_job", "check_status", "byoc", "cat", "tail", "ls"):
            before, after = (allowed(policy, role, right) for policy in (json.loads(default), ours))
            assert after == (before and right not in ("byoc", "cat", "tail", "ls")), (role, right)
        assert role == "member" or allowed(json.loads(default), role, "cat"), "the default would do"

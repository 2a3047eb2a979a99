"""The handshake: who differs is refused, with both values named."""

import json

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.deploy import Server, SiteClient, part_of_site
from fedsparse_jax.runs import Cohorts
from fedsparse_jax.runs.faults import Faults
from tests.helpers import toy_federation


def experiment(**changes):
    built = toy_federation.experiment(3)._replace(cohorts=Cohorts(3))
    return built._replace(config={**built.config, "data": {"normalise": "volume", "root": "here"}}, **changes)


def site(number=0, name="north", **data):
    built = experiment()
    return SiteClient(
        part_of_site(built._replace(config={**built.config, "data": built.config["data"] | data}), number), number, name
    )


@pytest.fixture
def server():
    told = []
    made = Server(experiment(), lambda round_, orders: (), told.append)
    made.told = told
    return made


def refusal(server, one):
    with pytest.raises(UsageError) as error:
        one.read_welcome(server.welcome(one.hello()))
    return str(error.value)


def test_a_site_with_the_same_config_joins_wherever_its_scans_lie_and_may_come_back(server):
    for _ in range(2):
        one = site(root="elsewhere")
        one.read_welcome(server.welcome(one.hello()))
    assert server.told == ["Site 0 (north) joins: 4 examples.", "Site 0 (north) is back: 4 examples."]
    with pytest.raises(UsageError, match="have not joined: 1, 2; start them"):
        server.experiment()


def test_another_preprocessing_is_refused_with_both_values(server):
    told = refusal(server, site(normalise="brain"))
    assert told.startswith("Site 0 (north) is refused: data.normalise is 'brain' there and 'volume' here; ")
    assert "normalisation is 'brain' there and 'volume' here" in told and told in server.told


@pytest.mark.parametrize(
    ("fact", "value"), [("grid", [9, 9, 9]), ("wire version", 2), ("template", "mine"), ("network", "00"), ("seed", 4)]
)
def test_each_fact_is_compared(server, fact, value):
    hello = json.loads(site().hello())
    here, hello["facts"][fact] = hello["facts"][fact], value
    answer = json.loads(server.welcome(json.dumps(hello).encode()))
    assert answer["refused"] == (
        f"Site 0 (north) is refused: {fact} is {value!r} there and {here!r} here; give the site the server's config."
    )


def test_a_number_that_is_taken_and_another_size_are_refused(server):
    one = site()
    one.read_welcome(server.welcome(one.hello()))
    assert "site 0 is 'north'" in refusal(server, site(name="south"))
    hello = json.loads(one.hello()) | {"examples": 5}
    assert "it has 5 examples there and had 4" in json.loads(server.welcome(json.dumps(hello).encode()))["refused"]


@pytest.mark.parametrize(
    "change", [{"site": 3}, {"site": -1}, {"site": True}, {"examples": 0}, {"facts": 1}, {"more": 1}]
)
def test_an_impossible_introduction_is_refused(server, change):
    hello = json.loads(site().hello()) | change
    assert json.loads(server.welcome(json.dumps(hello).encode()))["refused"]
    assert not server.sites


@pytest.mark.parametrize("noise", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b"1" * 2**21])
def test_noise_is_no_introduction(server, noise):
    assert json.loads(server.welcome(noise))["refused"] == "What came is no introduction of a site."


def test_what_only_a_simulation_can_do_is_refused():
    with pytest.raises(UsageError, match="cannot be deployed yet, only simulated: it simulates faults"):
        Server(experiment(faults=Faults(dropout=0.1)), lambda round_, orders: ())

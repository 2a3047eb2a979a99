"""Three sites in one process, through bytes, against the simulation of the same federation."""

import jax
import numpy as np
import optax
import pytest

from fedsparse_jax.communication import MessageSettings
from fedsparse_jax.core import losses
from fedsparse_jax.deploy import Server, SiteClient, part_of_site
from fedsparse_jax.deploy.envelope import UPDATE, WHOLE_PLEASE, unseal
from fedsparse_jax.federated import AGGREGATORS, Recipe, build_algorithm, prune_on_clients, regrow_on_clients
from fedsparse_jax.federated.sound_clients import Limits
from fedsparse_jax.runs import Cohorts, Output, checkpoint, run_experiment
from fedsparse_jax.sparsity import CRITERIA, Pruning, constant, global_, gradual, paced
from fedsparse_jax.sparsity.regrowth import REGROWTH, Regrowth
from tests.helpers import toy_federation
from tests.helpers.interrupted import QUIET, Killed
from tests.helpers.no_numbers import with_no_numbers

ROUNDS = 3


class Hospitals:
    """Sites in one process; ``mangle(round, site, reply)`` gives the bytes that arrive, or None for none."""

    def __init__(self, experiment, mangle=lambda round_, site, reply: reply):
        self.told, self.mangle, self.down, self.up = [], mangle, [], []
        self.server = Server(experiment, self.ask, self.told.append)
        self.sites = [SiteClient(part_of_site(experiment, i), i, f"hospital-{i}") for i in range(3)]
        for site in self.sites:
            site.read_welcome(self.server.welcome(site.hello()))

    def ask(self, round_, orders):
        for site, order in orders.items():
            self.down.append((round_, site, order))
            reply = self.mangle(round_, site, self.sites[site].answer(order))
            if reply is not None:
                self.up.append((round_, site, reply))
                yield site, reply

    def run(self, workdir, print_fn=QUIET):
        return run_experiment(self.server.experiment(), workdir, print_fn)


def feddst():
    pruning = Pruning(CRITERIA["magnitude"], global_, constant(0.6))
    regrowth = Regrowth(REGROWTH["swap"](fraction=0.3, end=ROUNDS), CRITERIA["squared_gradient"], 1, 1, ROUNDS)
    recipe = Recipe(
        toy_federation.network(),
        loss=losses.squared,
        client_tx=optax.adam(1e-2, eps=1e-3),
        server_tx=optax.sgd(1.0),
        aggregate=AGGREGATORS["vote_keepers"],
        hooks=(prune_on_clients(pruning), regrow_on_clients(pruning, regrowth)),
        num_clients=3,
    )
    return toy_federation.experiment(ROUNDS, algorithm=build_algorithm(recipe), epochs=1)


def experiment(method, **changes):
    if method == "feddst":
        built = feddst()
    else:
        built = toy_federation.experiment(ROUNDS, "client" if method == "local" else "server", epochs=1)
    data = built.federation
    one_scan = data._replace(members=[data.members[0][:1], *data.members[1:]])
    return built._replace(cohorts=Cohorts(3), federation=one_scan, **changes)


def paced_by_server():
    """The server prunes as soon as the reported loss has fallen a little."""
    built = experiment("global")
    schedule = paced(0.6, ROUNDS, steps=0.4, recover=0.0, learned=1.0)
    config = {**built.config, "pruning": {"placement": "server"}}
    return built._replace(algorithm=toy_federation.algorithm(schedule), config=config)


INT8 = MessageSettings("transmit", "int8", feedback=True, seed=3)
METHODS = {
    "global": lambda: experiment("global"),
    "local": lambda: experiment("local"),
    "feddst": lambda: experiment("feddst"),
    "int8": lambda: experiment("local", messages=INT8),
    "paced": paced_by_server,
}


def final_state(built, workdir):
    with checkpoint.open_manager(workdir) as manager:
        return checkpoint.restore_checkpoint(manager, jax.eval_shape(built.algorithm.init, jax.random.key(0)))


def distance(a, b):
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in zip(*map(jax.tree.leaves, (a, b))))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_sites_end_where_the_simulation_ends_and_send_the_bytes_that_it_counts(method, tmp_path):
    simulated = run_experiment(METHODS[method](), tmp_path / "simulated", QUIET)
    hospitals = Hospitals(METHODS[method]())
    deployed = hospitals.run(tmp_path / "deployed")
    here, there = (final_state(METHODS[method](), tmp_path / name) for name in ("simulated", "deployed"))
    assert distance(here.params, there.params) <= 1e-5, distance(here.params, there.params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), here.masks, there.masks))
    for a, b in zip(simulated, deployed, strict=True):
        assert (a.bytes_down, a.bytes_up, a.density, a.cohort) == (b.bytes_down, b.bytes_up, b.density, b.cohort)
        assert a.sparsity == b.sparsity and a.left_out == b.left_out == {}
        assert abs(a.train_loss - b.train_loss) < 1e-4 * abs(a.train_loss)
    for sent, counted in ((hospitals.down, "bytes_down"), (hospitals.up, "bytes_up")):
        messages = {(round_, site): len(data) - unseal(data).size for round_, site, data in sent}
        assert list(messages.values()) == [size for record in deployed for size in getattr(record, counted)]
        assert {unseal(data).size for _, _, data in sent} == {60}  # the envelope around one message


@pytest.mark.slow
@pytest.mark.parametrize("method", ["feddst", "int8"])
def test_a_site_may_be_a_new_process_for_each_order_that_is_given_the_memory_of_the_last(method, tmp_path):
    built = METHODS[method]()
    simulated = run_experiment(built, tmp_path / "simulated", QUIET)
    hospitals = Hospitals(built)

    def takes_over(round_, site, reply):
        memory, hospitals.sites[site] = hospitals.sites[site].memory(), SiteClient(part_of_site(built, site), site)
        hospitals.sites[site].remember(memory)
        return reply

    hospitals.mangle = takes_over
    deployed = hospitals.run(tmp_path / "deployed")
    here, there = (final_state(built, tmp_path / name) for name in ("simulated", "deployed"))
    assert distance(here.params, there.params) <= 1e-5
    assert [(a.bytes_down, a.bytes_up) for a in simulated] == [(b.bytes_down, b.bytes_up) for b in deployed]
    assert {unseal(data).kind for *_, data in hospitals.up} == {UPDATE}  # nobody asks for a whole mask


@pytest.mark.slow
def test_a_server_that_was_stopped_goes_on_with_the_same_sites_as_if_it_had_not_been(tmp_path):
    """It is set back to round 1 while the sites have played round 2, whose rounding errors they must forget."""
    whole = run_experiment(METHODS["int8"](), tmp_path / "whole", QUIET)
    hospitals = Hospitals(METHODS["int8"]())

    def no_server(round_, site, reply):
        if round_ == 2 and site == 2:
            raise Killed
        return reply

    hospitals.mangle = no_server
    with pytest.raises(Killed):
        hospitals.run(tmp_path / "parts")
    hospitals.mangle = lambda round_, site, reply: reply
    hospitals.server = Server(METHODS["int8"](), hospitals.ask, hospitals.told.append)
    for site in hospitals.sites:
        site.read_welcome(hospitals.server.welcome(site.hello()))
    records = hospitals.run(tmp_path / "parts")
    assert distance(*(final_state(METHODS["int8"](), tmp_path / name).params for name in ("whole", "parts"))) <= 1e-5
    assert [(one.bytes_down, one.bytes_up) for one in records] == [(one.bytes_down, one.bytes_up) for one in whole]


@pytest.mark.slow
def test_a_round_with_too_few_sites_changes_nothing_and_a_late_reply_counts_in_no_round(tmp_path):
    """All three are needed. In round 2 site 1 is too late; its reply of that round comes in round 3, before its own."""
    schedule = toy_federation.algorithm(gradual(0.0, 0.6, begin=0, end=ROUNDS), limits=Limits(min_clients=3))
    built, late = experiment("global")._replace(algorithm=schedule, output=Output(1, ROUNDS)), []

    def too_late(round_, site, reply):
        if (round_, site) != (2, 1):
            return reply
        late.append(reply)

    hospitals = Hospitals(built, too_late)
    ask = hospitals.ask
    hospitals.server._ask = lambda round_, orders: [*((1, one) for one in late[: round_ == 3]), *ask(round_, orders)]
    records = hospitals.run(tmp_path)
    assert [one.left_out for one in records] == [{}, {"dropped_out": [1]}, {}]
    assert "The reply of site 1 (hospital-1) in round 3 is refused: it is of round 2." in "\n".join(hospitals.told)
    with checkpoint.open_manager(tmp_path) as manager:
        like = jax.eval_shape(built.algorithm.init, jax.random.key(0))
        first, second, third = (checkpoint.restore_checkpoint(manager, like, step).params for step in (1, 2, 3))
    assert distance(first, second) == 0 < distance(second, third)


def test_a_round_goes_on_without_those_who_send_rubbish_and_they_are_named(tmp_path):
    """Site 0 sends noise, then its reply of the round before; site 1 dies and comes back; site 2 sends NaN."""
    built, kept = experiment("local", rounds=4), {}

    def mangle(round_, site, reply):
        before = kept.get(site)
        kept[site] = reply
        if site == 0:
            return {1: b"noise", 2: before}.get(round_, reply)
        if (round_, site) == (2, 1):
            hospitals.sites[1] = returning
            return None
        return with_no_numbers(reply, built.model) if (round_, site) == (3, 2) else reply

    hospitals = Hospitals(built, mangle)
    returning = SiteClient(part_of_site(built, 1), 1, "hospital-1")  # a new process, which holds no mask
    records = hospitals.run(tmp_path)
    assert [one.left_out for one in records] == [
        {"refused": [0]}, {"dropped_out": [1], "refused": [0]}, {"not_a_number": [2]}, {},
    ]  # fmt: skip
    told = "\n".join(hospitals.told)
    assert "The reply of site 0 (hospital-0) in round 1 is refused: What came is no envelope" in told
    assert "The reply of site 0 (hospital-0) in round 2 is refused: it is of round 1." in told
    assert "The reply of site 2 (hospital-2) holds a loss, weight or score that is not a number." in told
    assert records[1].bytes_up[:2] == [0, 0] and records[2].bytes_up[1] > 0
    asked_again = [unseal(data) for round_, site, data in hospitals.up if (round_, site) == (3, 1)]
    assert [one.kind for one in asked_again] == [WHOLE_PLEASE, UPDATE]
    down = [len(data) - unseal(data).size for round_, site, data in hospitals.down if (round_, site) == (3, 1)]
    assert len(down) == 2 and records[2].bytes_down[1] == sum(down)
    assert all(record.finite for record in records)

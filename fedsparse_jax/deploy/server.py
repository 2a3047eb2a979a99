"""The server: what it sends and takes in a round, in the place of the clients of a simulation.

`Server.exchange` is given to an `Experiment`; `runs.run_experiment` then plays its rounds with real sites. All that
comes after the exchange is the simulation's own: the same aggregation, checkpoints, log and report, and the same way to
go on after a stop.
"""

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.communication import ClientRecord, Context, MessageError, SharedMasks, Traffic, make_context
from fedsparse_jax.communication import message as codec
from fedsparse_jax.communication.transport import one_object, read_messages, rounding_seed, write_messages
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Absence, ClientState, Payload, ServerState, StepInfo
from fedsparse_jax.data.batching import BatchPlan
from fedsparse_jax.deploy.envelope import ORDER, UPDATE, WHOLE_PLEASE, Envelope, seal, unseal
from fedsparse_jax.deploy.handshake import (
    Hello,
    describe_experiment,
    differing_facts,
    digest_of_facts,
    read_hello,
    write_welcome,
)
from fedsparse_jax.deploy.parts import check_deployable, part_of_server
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.round import Exchange, Runner, TrainedClients

# What carries the bytes: (round, order of each site) -> each reply with who sent it, as they come, until all are there
# or the engine's time is up. A site that is not there is left out. Replies of earlier rounds may be among them.
Ask = Callable[[int, Mapping[int, bytes]], Iterable[tuple[int, bytes]]]


class _Sent(NamedTuple):
    """What a site was sent in a round."""

    order: bytes
    context: Context  # with the mask that both sides hold after it
    received: Payload  # by the site
    size: int  # of the messages, without the envelope


class _Reply(NamedTuple):
    payload: Payload
    examples: int
    loss: float
    size: int


class Server:
    """The side that knows all sites and no scan of theirs."""

    def __init__(self, experiment: Experiment, ask: Ask, print_fn: Callable[[str], None] = print):
        """A server that waits for its sites.

        Args:
            experiment: with the test set; of the sites only their number counts.
            ask: what carries the bytes.
            print_fn: told who joins, who is refused and why.

        Raises:
            UsageError: the config cannot be deployed.
        """
        check_deployable(experiment)
        self._experiment, self._ask, self._print = experiment, ask, print_fn
        self.facts = describe_experiment(experiment)
        self._run = digest_of_facts(self.facts)
        self.num_sites = len(experiment.federation.members)
        self.sites: dict[int, Hello] = {}
        self._layout = make_context(jax.eval_shape(experiment.model.init, jax.random.key(0)))
        self._lock = threading.Lock()  # engines welcome sites from threads of their own

    def welcome(self, hello: bytes) -> bytes:
        """Answers a site that introduces itself, also one that comes back; says whether it may take part."""
        with self._lock:
            try:
                site = read_hello(hello, self.num_sites)
                problem = self._problem(site)
            except MessageError as error:
                self._print(f"Somebody is refused: {error}")
                return write_welcome(str(error))
            if problem:
                self._print(problem)
                return write_welcome(problem)
            back = site.site in self.sites
            self.sites[site.site] = site
        self._print(f"Site {site.site} ({site.name}) {'is back' if back else 'joins'}: {site.examples} examples.")
        return write_welcome()

    def _problem(self, site: Hello) -> str:
        who, before = f"Site {site.site} ({site.name}) is refused", self.sites.get(site.site)
        if differ := differing_facts(site.facts, self.facts):
            return f"{who}: {differ}; give the site the server's config."
        if before and before.name != site.name:
            return f"{who}: site {site.site} is {before.name!r}; give it a number of its own."
        if before and before.examples != site.examples:
            return (
                f"{who}: it has {site.examples} examples there and had {before.examples} when it joined; give it the "
                "same scans, or begin a new run."
            )
        return ""

    def experiment(self) -> Experiment:
        """What `runs.run_experiment` plays once all sites have joined, with their sizes and without their scans.

        Raises:
            UsageError: a site has not joined yet.
        """
        missing = [str(site) for site in range(self.num_sites) if site not in self.sites]
        if missing:
            raise UsageError(f"Of {self.num_sites} sites these have not joined: {', '.join(missing)}; start them.")
        sizes = [self.sites[site].examples for site in range(self.num_sites)]
        return part_of_server(self._experiment, sizes)._replace(exchange=self.exchange)

    def exchange(
        self, runner: Runner, server: ServerState, round_: int, ids: np.ndarray, shared_masks: SharedMasks
    ) -> Exchange:
        """As `runs.round.exchange_models`, with sites in the place of simulated clients."""
        download = runner.algorithm.download(server, jnp.asarray(ids[:1]))
        own: Payload = jax.tree.map(lambda leaf: np.asarray(leaf[0]), download)
        sites = [int(site) for site in ids]  # sites that hold equal masks share the object, and get the same order
        sent = self._orders(round_, own, {site: shared_masks.get(site) for site in sites})
        down = {site: sent[site].size for site in sites}
        replies, absent, without = self._collect(round_, sent)
        if without:  # sites that do not hold the mask which their order built on
            again = self._orders(round_, own, dict.fromkeys(without))
            more, reasons, _ = self._collect(round_, again)
            absent = {site: reason for site, reason in absent.items() if site not in without} | reasons
            sent, replies = sent | again, replies | more
            down = {site: size + (again[site].size if site in again else 0) for site, size in down.items()}
        records = dict(shared_masks)
        for site in sites:
            masks = replies[site].payload.masks if site in replies else sent[site].received.masks
            record = ClientRecord(sent[site].received.masks) if site in replies else shared_masks.get(site)
            records[site] = ClientRecord(one_object(masks, record.masks if record else None))
        self._say_who_sent_no_numbers(replies)
        traffic = Traffic([down[site] for site in sites], [replies[i].size if i in replies else 0 for i in sites])
        trained = self._as_trained(server, sites, sent, replies, absent)
        return Exchange(trained, download, trained.payload, records, traffic)

    def _orders(self, round_: int, own: Payload, known: Mapping[int, ClientRecord | None]) -> dict[int, _Sent]:
        """The order of each site; sites that hold the same mask get the same one."""
        settings, made, orders = self._experiment.messages, dict[int, _Sent](), {}
        for site, record in known.items():
            mask = record.masks if record else None
            if id(mask) not in made:
                context = codec.with_known_mask(self._layout, mask)
                messages, _ = write_messages(settings, context, own, rounding_seed(settings, (round_, 0), 0))
                received = read_messages(settings, context, messages)
                order = seal(Envelope(ORDER, round_, self._run, tuple(messages)))
                after = codec.with_known_mask(self._layout, received.masks)
                made[id(mask)] = _Sent(order, after, received, sum(map(len, messages)))
            orders[site] = made[id(mask)]
        return orders

    def _collect(
        self, round_: int, sent: Mapping[int, _Sent]
    ) -> tuple[dict[int, _Reply], dict[int, Absence], list[int]]:
        """``(replies, why others have none, who asks for a whole message)``: the first good reply of each site."""
        replies, reasons, without = dict[int, _Reply](), dict.fromkeys(sent, Absence.DROPPED_OUT), list[int]()
        for site, data in self._ask(round_, {site: one.order for site, one in sent.items()}):
            if site not in sent or site in replies:
                self._print(f"Site {site} answers in round {round_}, but was not asked; its reply is dropped.")
                continue
            try:
                kind, reply = self._read(round_, site, sent[site], data)
            except MessageError as error:
                reasons[site] = Absence.REFUSED
                self._print(f"The reply of {self._name(site)} in round {round_} is refused: {error}")
                continue
            if kind == WHOLE_PLEASE:
                without.append(site)
            elif reply:
                replies[site] = reply
                reasons.pop(site, None)
        return replies, reasons, without

    def _read(self, round_: int, site: int, sent: _Sent, data: bytes) -> tuple[int, _Reply | None]:
        """What kind of reply some bytes are, and what it holds.

        Raises:
            MessageError: it is damaged, of another round, run or site, or means nothing.
        """
        reply = unseal(data)
        if reply.run != self._run:
            raise MessageError("it is of a run with another config.")
        if reply.round != round_:
            raise MessageError(f"it is of round {reply.round}.")
        if reply.site != site:
            raise MessageError(f"it says that it is of site {reply.site}.")
        if reply.kind == WHOLE_PLEASE:
            return WHOLE_PLEASE, None
        if reply.kind != UPDATE or len(reply.messages) != self._num_messages():
            raise MessageError("it holds no update.")
        settings = self._experiment.messages
        base = sent.received.params if settings.feedback else None
        payload = read_messages(settings, sent.context, reply.messages, base)
        examples = self._experiment.batching.epochs * self.sites[site].examples
        if reply.examples != examples:
            raise MessageError(f"it tells of {reply.examples} examples, the site joined with {examples} a round.")
        return UPDATE, _Reply(payload, examples, reply.loss, sum(map(len, reply.messages)))

    def _num_messages(self) -> int:
        return 1 + self._experiment.algorithm.num_scores

    def _name(self, site: int) -> str:
        return f"site {site} ({self.sites[site].name})" if site in self.sites else f"site {site}"

    def _say_who_sent_no_numbers(self, replies: Mapping[int, _Reply]) -> None:
        """Names them; that they do not count is the aggregation's own rule (`federated.sound_clients`)."""
        for site, reply in replies.items():
            payload = reply.payload
            leaves = jax.tree.leaves((payload.params, payload.scores))
            if not math.isfinite(reply.loss) or not all(np.isfinite(leaf).all() for leaf in leaves):
                self._print(f"The reply of {self._name(site)} holds a loss, weight or score that is not a number.")

    def _as_trained(self, server: ServerState, sites: list[int], sent, replies, absent) -> TrainedClients:
        """What came, as the clients' half of a round; in the place of what did not come stands what was sent."""
        zeros = lambda params: (jax.tree.map(np.zeros_like, params),) * self._experiment.algorithm.num_scores
        kept = lambda own: own._replace(scores=zeros(own.params))
        rows = [replies[i].payload if i in replies else kept(sent[i].received) for i in sites]
        payload: Payload = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *rows)
        loss = jnp.array([[replies[i].loss if i in replies else 0] for i in sites], jnp.float32)
        examples = jnp.array([[replies[i].examples if i in replies else 0] for i in sites], jnp.int32)
        reasons = np.array([absent.get(i, Absence.NONE) for i in sites], np.int32)
        # What only a client itself knows (its optimizer, its key) the server neither gets nor looks at.
        clients = ClientState(jnp.array(sites, jnp.int32), payload.params, payload.masks, None, server.key)
        there = (reasons == Absence.NONE)[:, np.newaxis, np.newaxis]
        plan = BatchPlan(np.zeros(there.shape, np.int32), there)
        return TrainedClients(clients, payload, plan, [StepInfo(loss, examples)], reasons)

"""A site: the client functions of the simulation on its own scans, bytes in and bytes out."""

import io
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.communication import ClientRecord, Context, MessageError, make_context
from fedsparse_jax.communication import message as codec
from fedsparse_jax.communication.transport import (
    read_messages,
    records_as_arrays,
    records_of_arrays,
    rounding_seed,
    write_messages,
)
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import npz_bytes
from fedsparse_jax.core.types import Params, Payload, ServerState
from fedsparse_jax.deploy.envelope import ORDER, UPDATE, WHOLE_PLEASE, Envelope, seal, unseal
from fedsparse_jax.deploy.handshake import Hello, describe_experiment, digest_of_facts, read_welcome, write_hello
from fedsparse_jax.deploy.parts import check_deployable
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.round import make_runner, train_clients

HELD = 4  # masks that are remembered: after each message of two rounds


class _Held(NamedTuple):
    """What a site knew after a message."""

    round: int
    record: ClientRecord
    digest: bytes


class SiteClient:
    """One hospital. It keeps the masks of its last messages, what they have lost, and nothing else between rounds."""

    def __init__(self, experiment: Experiment, site: int, name: str = ""):
        """A site that has not joined yet.

        Args:
            experiment: with the site's own examples only, from `own_scans.site_experiment` or `parts.part_of_site`.
            site: its number in the federation, which decides its random numbers.
            name: what humans call it.

        Raises:
            UsageError: the config cannot be deployed, or the site has no example.
        """
        check_deployable(experiment)
        if not len(experiment.federation.members[site]):
            raise UsageError(f"Site {site} has no example to train on; give it some.")
        self.number, self.name = site, name or f"site {site}"
        self._experiment, self._runner = experiment, make_runner(experiment)
        self._facts = describe_experiment(experiment)
        self._run = digest_of_facts(self._facts)
        key = jax.random.key(experiment.seed)
        like = jax.eval_shape(experiment.algorithm.init, key)
        # All but params, masks and round is what no client function looks at, so that nothing of it is computed.
        self._server: ServerState = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like._replace(key=None)
        )
        self._server = self._server._replace(key=key)
        self._layout = make_context(like.params)
        self._held: list[_Held] = []

    def hello(self) -> bytes:
        """How the site introduces itself to the server."""
        examples = len(self._experiment.federation.members[self.number])
        return write_hello(Hello(self.number, self.name, examples, self._facts))

    def read_welcome(self, answer: bytes) -> None:
        """Takes the server's answer to `hello`.

        Raises:
            UsageError: the server refuses the site, in one sentence.
        """
        read_welcome(answer)

    def answer(self, order: bytes) -> bytes:
        """Trains what the server's order asks for, and replies.

        Raises:
            MessageError: the order is damaged, of another run, or says nothing that this site can read.
        """
        kind, round_, run, messages, *_ = unseal(order)
        if kind != ORDER or not messages or not round_:
            raise MessageError("The server sent something else than the order of a round.")
        if run != self._run:
            raise MessageError("The order is of a run with another config; the site must join anew.")
        known = self._known(messages[0], round_)
        if known is None:
            return seal(Envelope(WHOLE_PLEASE, round_, run, site=self.number))
        context, record = known
        received = read_messages(self._experiment.messages, context, messages)
        self._hold(round_, ClientRecord(received.masks, record.residual if record else None))
        return self._train(round_, received)

    def memory(self) -> bytes:
        """What the site keeps between rounds, for the process that takes over from this one."""
        records = {place: held.record for place, held in enumerate(self._held)}
        rounds = np.array([held.round for held in self._held], np.int64)
        return npz_bytes({**records_as_arrays(records), "rounds": rounds})

    def remember(self, memory: bytes) -> None:
        """Takes over from a process that has ended; ``memory`` is what its `memory` was."""
        with np.load(io.BytesIO(memory)) as stored:  # nothing is unpickled
            arrays = dict(stored)
        records = records_of_arrays(arrays, self._server.params)
        for place, round_ in reversed([*enumerate(arrays["rounds"].tolist())]):
            self._hold(round_, records[place])

    def _train(self, round_: int, received: Payload) -> bytes:
        params, masks = jax.tree.map(jnp.asarray, (received.params, received.masks))
        server = self._server._replace(round=jnp.asarray(round_ - 1, jnp.int32), params=params, masks=masks)
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[jnp.newaxis], received)
        trained = train_clients(self._runner, server, round_, np.array([self.number], np.int32), one)
        own: Payload = jax.tree.map(lambda leaf: np.asarray(leaf[0]), trained.payload)
        reply = self._reply(round_, own, received.params)
        loss = sum((np.asarray(info.loss).sum(1) for info in trained.steps), np.zeros(1, np.float32))
        examples = sum(int(np.asarray(info.examples).sum()) for info in trained.steps)
        return seal(reply._replace(examples=examples, loss=float(loss[0])))

    def _reply(self, round_: int, own: Payload, base: Params) -> Envelope:
        settings, before = self._experiment.messages, self._held[0]
        messages, residual = write_messages(
            settings,
            codec.with_known_mask(self._layout, before.record.masks),
            own,
            rounding_seed(settings, (round_, 1), self.number),
            base if settings.feedback else None,
            before.record.residual,
        )
        self._hold(round_, ClientRecord(own.masks, residual))
        return Envelope(UPDATE, round_, self._run, tuple(messages), self.number)

    def _known(self, message: bytes, round_: int) -> tuple[Context, ClientRecord | None] | None:
        """What this side knows of what a message builds on, with the record it is of; None where it does not hold it.

        The server may not have heard the last reply, or may have been set back to an earlier round: the message says
        which mask it builds on, and of equal ones the newest from before the round counts.
        """
        digest = codec.known_digest(message)
        whole = digest == self._layout.known_digest
        fitting = [held for held in self._held if whole or held.digest == digest]
        fitting.sort(key=lambda held: held.round < round_, reverse=True)  # stable: the newest first
        record = fitting[0].record if fitting else None
        if whole:
            return self._layout, record
        return (codec.with_known_mask(self._layout, record.masks), record) if record else None

    def _hold(self, round_: int, record: ClientRecord) -> None:
        record = record._replace(masks=jax.tree.map(np.array, record.masks))
        digest = codec.with_known_mask(self._layout, record.masks).known_digest
        self._held = [_Held(round_, record, digest), *self._held][:HELD]

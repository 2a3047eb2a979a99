"""A site as a process of its own: bytes in on one pipe, bytes out on another.

Whatever carries the bytes starts it by `SiteProcess`. Where the process dies, the question that it was asked fails
alone, and the next question starts a new one, which asks the server for a whole mask as after any restart.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

from fedsparse_jax.communication import MessageError
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.deploy.own_scans import own_config, site_experiment
from fedsparse_jax.deploy.site import SiteClient

JOIN, WELCOME, PLAY = b"j", b"w", b"p"  # questions
_DONE, _REFUSED = b"+", b"-"  # answers
_LENGTH = struct.Struct("<Q")


class SiteFailed(Exception):
    """A site that gives no answer, with why in one sentence."""


class SiteProcess:
    """The process of a site, as the process that carries its bytes sees it."""

    def __init__(self, shared: dict[str, Any], own: Mapping[str, Any], where: str, site: int, name: str):
        """A site whose process starts with the first question.

        Args:
            shared, own, where: see `own_scans.own_config`.
            site: its number in the federation.
            name: what humans call it.
        """
        self.name = name
        self._beginning = json.dumps(dict(shared=shared, own=dict(own), where=where, site=site, name=name)).encode()
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def ask(self, question: bytes, payload: bytes = b"") -> bytes:
        """What the site answers to ``JOIN``, ``WELCOME`` or ``PLAY``.

        Raises:
            SiteFailed: it refuses, or its process has died.
        """
        with self._lock:
            process = self._started()
            try:
                _write(process.stdin, question + payload)
                answer = _read(process.stdout)
            except OSError:
                answer = None
        if answer is None:
            self.stop()
            sentence = f"The process of {self.name} has died; the next round starts a new one."
            print(sentence, file=sys.stderr, flush=True)
            raise SiteFailed(sentence)
        if answer[:1] == _REFUSED:
            raise SiteFailed(answer[1:].decode())
        return answer[1:]

    def stop(self) -> None:
        """Ends the process, also while it trains."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()

    def _started(self) -> subprocess.Popen:
        if self._process is None:
            command = [sys.executable, "-m", "fedsparse_jax.deploy.site_process"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            _write(self._process.stdin, self._beginning)
        return self._process


def serve_site() -> None:
    """Answers the questions on the standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of the input is heard, also after a Ctrl-C
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints goes to the log
    beginning, client = json.loads(_read(questions) or b"{}"), None
    while question := _read(questions):
        try:
            client = client or _make_client(**beginning)
            answer = _DONE + _answer(client, question[:1], question[1:])
        except (UsageError, MessageError) as error:
            print(f"{beginning['name']}: {error}", flush=True)
            answer = _REFUSED + str(error).encode()
        try:
            _write(answers, answer)
        except BrokenPipeError:
            return


def _make_client(shared: dict, own: dict, where: str, site: int, name: str) -> SiteClient:
    return SiteClient(site_experiment(own_config(shared, own, where), site), site, name)


def _answer(client: SiteClient, question: bytes, payload: bytes) -> bytes:
    if question == JOIN:
        return client.hello()
    if question == WELCOME:
        client.read_welcome(payload)
        return b""
    return client.answer(payload)


def _write(pipe: IO[bytes] | None, data: bytes) -> None:
    assert pipe is not None
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _read(pipe: IO[bytes] | None) -> bytes | None:
    """The next piece; None where the other side is gone."""
    assert pipe is not None
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    return data if len(data) == length else None


if __name__ == "__main__":
    serve_site()

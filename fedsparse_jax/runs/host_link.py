"""The wire between the processes of a run on many hosts: they meet, tell one another bytes, and end together.

Process 0 listens, and every other process keeps one connection to it. What is small or rare goes over it: who is
there, the state at the start, masks, losses. Models are summed by JAX. A connection that breaks is how a process
learns, within moments, that another one is gone; JAX itself would tell only after its heartbeats had failed, by an
abort.
"""

import contextlib
import json
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from fedsparse_jax.core.errors import UsageError

T = TypeVar("T")
_HEAD = struct.Struct(">cQ")  # kind and length of a frame
_MESSAGE, _BYE, _ENDED = b"m", b"b", b"e"
_HELLO_SECONDS, _LONGEST_HELLO = 10.0, 1000
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # a host without power is missed in 25 s


class HostLink:
    """The connections of one process; made by `meet`.

    Args:
        index: the number of this process.
        count: how many there are.
        sockets: to every other process, for process 0; else to process 0.
        on_loss: called in a thread with one sentence when another process has ended too early; it ends this one.
    """

    def __init__(self, index: int, count: int, sockets: dict[int, socket.socket], on_loss: Callable[[str], None]):
        self.index, self.count = index, count
        self._sockets, self._on_loss = sockets, on_loss
        self._inbox: dict[int, queue.SimpleQueue] = {peer: queue.SimpleQueue() for peer in sockets}
        self._left = {peer: threading.Event() for peer in sockets}
        self._closed, self._losing = threading.Event(), threading.Lock()
        for peer in sockets:
            threading.Thread(target=self._listen, args=(peer,), daemon=True).start()

    def from_first(self, value: bytes = b"") -> bytes:
        """What process 0 gives, in every process; the others' ``value`` is not used."""
        if self.index:
            return self._inbox[0].get()
        for peer in self._sockets:
            self._send(peer, _MESSAGE, value)
        return value

    def to_first(self, value: bytes) -> list[bytes]:
        """What all processes give, by their numbers, in process 0; nothing in the others."""
        if self.index:
            self._send(0, _MESSAGE, value)
            return []
        return [value, *(self._inbox[peer].get() for peer in sorted(self._sockets))]

    def to_all(self, value) -> list:
        """What all processes give, by their numbers, in every process; values are of JSON."""
        told = self.to_first(json.dumps(value).encode())
        return json.loads(self.from_first(json.dumps([json.loads(one) for one in told]).encode()))

    def wait_for_all(self) -> None:
        """Returns once all processes have called this."""
        self.to_first(b"")
        self.from_first()

    def after_first(self, make: Callable[[], T]) -> T:
        """What ``make()`` gives; process 0 calls it first, so that what it leaves on a disk is there for the others."""
        if self.index:
            self.from_first()
        made = make()
        if not self.index:
            self.from_first()
        return made

    def close(self) -> None:
        """Says goodbye, and waits until all have: a process that ends after this ends no other."""
        for peer in self._sockets:
            self._send(peer, _BYE)
        for left in self._left.values():
            left.wait()
        self.abort()

    def abort(self) -> None:
        """Hangs up without a word, which ends the others."""
        self._closed.set()
        for connection in self._sockets.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _send(self, peer: int, kind: bytes, value: bytes = b"") -> None:
        try:
            _send_frame(self._sockets[peer], kind, value)
        except OSError:
            self._lose(peer)

    def _listen(self, peer: int) -> None:
        while frame := _read_frame(self._sockets[peer]):
            kind, value = frame
            if kind == _ENDED:
                self._lose(int(value))
            elif kind == _BYE:
                self._left[peer].set()
            else:
                self._inbox[peer].put(value)
        if not self._left[peer].is_set():
            self._lose(peer)

    def _lose(self, peer: int) -> None:
        """Ends this process because of another one, whose number process 0 tells the rest."""
        with self._losing:
            if self._closed.is_set():
                return
            for other in self._sockets if self.index == 0 else ():
                with contextlib.suppress(OSError):
                    _send_frame(self._sockets[other], _ENDED, str(peer).encode())
            self._on_loss(
                f"Process {peer} of {self.count} has ended, and so this one ends, too. Finished rounds are safe, and "
                "the same commands go on from there."
            )


def meet(address: str, index: int, count: int, seconds: float, on_loss: Callable[[str], None]) -> tuple[HostLink, str]:
    """Waits until all processes are there.

    Args:
        address: ``HOST:PORT`` where process 0 listens, and nowhere else.
        index, count: of this process, and of all.
        seconds: for which the others are waited for.
        on_loss: see `HostLink`.

    Returns:
        The link, and the address for JAX's coordinator: a free port of the same host.

    Raises:
        UsageError: the address is none or is taken, somebody does not come in time, or is of another run.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--coordinator is {address!r}; give HOST:PORT, such as 127.0.0.1:9911.")
    place = host.strip("[]"), int(port)
    if index:
        connection, coordinator = _find_first(place, index, count, seconds)
        return HostLink(index, count, {0: connection}, on_loss), coordinator
    sockets: dict[int, socket.socket] = {}
    with _listening(place) as listener:
        try:
            _await_others(listener, count, seconds, sockets)
        except BaseException:
            for connection in sockets.values():
                connection.close()
            raise
    with socket.create_server((place[0], 0), family=listener.family) as free:
        coordinator = f"{host}:{free.getsockname()[1]}"
    for connection in sockets.values():
        _send_frame(connection, _MESSAGE, coordinator.encode())
    return HostLink(0, count, sockets, on_loss), coordinator


@contextlib.contextmanager
def _listening(place: tuple[str, int]) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    try:
        listener = socket.create_server(place, family=family)
    except OSError as error:
        raise UsageError(
            f"Process 0 cannot listen at {place[0]}:{place[1]} ({os.strerror(error.errno) if error.errno else error}); "
            "give --coordinator an address of the host of process 0, and a free port."
        ) from error
    with listener:
        yield listener


def _await_others(listener: socket.socket, count: int, seconds: float, sockets: dict[int, socket.socket]) -> None:
    """Adds the connection to each other process to ``sockets``, until all are there."""
    until = time.monotonic() + seconds
    while len(sockets) < count - 1:
        listener.settimeout(max(until - time.monotonic(), 0.001))
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            missing = ", ".join(str(i) for i in range(1, count) if i not in sockets)
            raise UsageError(
                f"Of {count} processes these did not come within {seconds:g} s: {missing}; start them with the same "
                "command and their own --process_id."
            ) from None
        hello = _read_hello(connection)
        if hello is None:  # no process of ours
            connection.close()
            continue
        peer, said = hello
        if said != count or not 0 < peer < count or peer in sockets:
            sentence = (
                f"A process says that it is number {peer} of {said}, where 1 to {count - 1} of {count} are expected, "
                "each once; start all with the same --num_processes and each with its own --process_id."
            )
            _send_frame(connection, _ENDED, sentence.encode())
            raise UsageError(sentence)
        sockets[peer] = connection


def _read_hello(connection: socket.socket) -> tuple[int, int] | None:
    """Number and count that a process states; None where it is no process of a run."""
    connection.settimeout(_HELLO_SECONDS)
    frame = _read_frame(connection, _LONGEST_HELLO)
    try:
        index, count = json.loads(frame[1])["fedsparse_jax"] if frame else (None, None)
    except (ValueError, KeyError, TypeError):
        return None
    _settle(connection)
    return (index, count) if isinstance(index, int) and isinstance(count, int) else None


def _find_first(place: tuple[str, int], index: int, count: int, seconds: float) -> tuple[socket.socket, str]:
    """The connection to process 0, and the address of JAX's coordinator that it tells."""
    until = time.monotonic() + seconds
    while True:
        try:
            connection = socket.create_connection(place, timeout=max(until - time.monotonic(), 0.001))
            break
        except OSError as error:
            if time.monotonic() > until:
                raise UsageError(
                    f"Process 0 does not answer at {place[0]}:{place[1]} within {seconds:g} s; start it there, or "
                    "mend --coordinator."
                ) from error
            time.sleep(0.1)
    _send_frame(connection, _MESSAGE, json.dumps({"fedsparse_jax": [index, count]}).encode())
    connection.settimeout(seconds + _HELLO_SECONDS)
    frame = _read_frame(connection, _LONGEST_HELLO)
    if not frame:
        raise UsageError("Process 0 has hung up before all processes were there; what it printed says why.")
    if frame[0] == _ENDED:
        raise UsageError(frame[1].decode())
    _settle(connection)
    return connection, frame[1].decode()


def _settle(connection: socket.socket) -> None:
    """From now on the connection waits for ever, and notices a host that is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send_frame(connection: socket.socket, kind: bytes, value: bytes = b"") -> None:
    connection.sendall(_HEAD.pack(kind, len(value)) + value)


def _read_frame(connection: socket.socket, longest: int | None = None) -> tuple[bytes, bytes] | None:
    """Kind and content; None where the connection is at its end, or what comes is longer than ``longest``."""
    try:
        head = _read_exactly(connection, _HEAD.size)
        if head is None:
            return None
        kind, length = _HEAD.unpack(head)
        value = None if longest is not None and length > longest else _read_exactly(connection, length)
    except OSError:
        return None
    return None if value is None else (kind, value)


def _read_exactly(connection: socket.socket, count: int) -> bytes | None:
    content = bytearray()
    while len(content) < count:
        piece = connection.recv(min(count - len(content), 1 << 20))
        if not piece:
            return None
        content += piece
    return bytes(content)

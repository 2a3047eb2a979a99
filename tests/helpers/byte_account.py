"""Recorded bytes between a site and the server, name by name, so that no byte is left over.

Written from docs/deployment.md and docs/reference/messages.md; the names are those of the first page's tables.
"""

import hashlib
import json
import struct
from typing import NamedTuple

import numpy as np

from tests.helpers.numpy_reference import WireDecoder

ENVELOPE = dict(
    zip(
        ("magic", "version", "kind", "messages", "round", "site", "examples", "run", "loss"),
        (4, 1, 1, 2, 4, 4, 4, 16, 4),
        strict=True,
    )
)
MESSAGE = dict(
    zip(
        ("magic", "version", "mask kind", "values kind", "zero", "length", "mask length", "layout", "known mask"),
        (4, 1, 1, 1, 1, 8, 8, 16, 16),
        strict=True,
    )
)
DIGEST = 16


class Part(NamedTuple):
    """A piece of recorded bytes that has a name."""

    name: str
    data: bytes


def digest(data) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


class Account:
    """Reads what one site and the server send one another; it remembers the masks, as they do."""

    def __init__(self, sizes):
        """``sizes`` are the numbers of weights of the leaves."""
        self.sizes, self.masks = list(sizes), {}

    def hello(self, data: bytes) -> list[Part]:
        """A site's introduction, key by key; commas, colons and brackets are ``hello.punctuation``."""
        said = json.loads(data)
        facts = said.pop("facts")
        parts = [Part(f"hello.{key}", _entry(key, value)) for key, value in said.items()]
        parts += [Part(f"hello.facts.{key}", _entry(key, value)) for key, value in facts.items()]
        between = json.dumps({**dict.fromkeys(said, 0), "facts": dict.fromkeys(facts, 0)})
        entries = len("".join(json.dumps(key) + ": 0" for key in (*said, *facts)))
        parts.append(Part("hello.punctuation", b" " * (len(between) - entries)))
        assert json.dumps({**said, "facts": facts}).encode() == data, "JSON of other blanks, or with a key twice"
        return _whole(parts, data)

    def welcome(self, data: bytes) -> list[Part]:
        """The server's answer to an introduction."""
        assert json.loads(data).keys() == {"refused"}
        return [Part("welcome.refused", data)]

    def envelope(self, data: bytes) -> list[Part]:
        """An order or a reply, with the messages in it."""
        parts, at = _fixed("envelope", ENVELOPE, data)
        count = int.from_bytes(dict(parts)["envelope.messages"], "little")
        lengths = struct.unpack_from(f"<{count}I", data, at)
        parts += [Part("envelope.lengths", data[at : at + 4 * count])] if count else []
        at += 4 * count
        for place, length in enumerate(lengths):
            message = data[at : at + length]
            inner = self.message(message) if message else []
            parts += inner if place == 0 else [Part("scores", message)]
            at += length
        parts.append(Part("envelope.checksum", data[at : at + DIGEST]))
        assert parts[-1].data == digest(data[:-DIGEST])
        return _whole(parts, data)

    def message(self, data: bytes) -> list[Part]:
        """A message; every bit of its mask and its values is decoded once more, by the decoder of its page."""
        parts, at = _fixed("message", MESSAGE, data)
        fields = dict(parts)
        mask_end = at + int.from_bytes(fields["message.mask length"], "little")
        parts += [Part("message.mask", data[at:mask_end]), Part("message.values", data[mask_end:-DIGEST])]
        parts.append(Part("message.checksum", data[-DIGEST:]))
        assert parts[-1].data == digest(data[:-DIGEST])
        _, masks = WireDecoder(data).update(self.sizes, self.masks.get(fields["message.known mask"]))
        packed = b"".join(np.packbits(np.array(leaf, bool), bitorder="little").tobytes() for leaf in masks)
        self.masks[digest(packed)] = masks
        return _whole(parts, data)


def _entry(key: str, value) -> bytes:
    return f"{json.dumps(key)}: {json.dumps(value)}".encode()


def _fixed(what: str, fields: dict[str, int], data: bytes) -> tuple[list[Part], int]:
    parts, at = [], 0
    for name, size in fields.items():
        parts.append(Part(f"{what}.{name}", data[at : at + size]))
        at += size
    return parts, at


def _whole(parts: list[Part], data: bytes) -> list[Part]:
    """The parts, whose lengths add up to that of the data."""
    assert sum(len(part.data) for part in parts) == len(data)
    return parts

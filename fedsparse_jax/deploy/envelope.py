"""The envelope around a round's messages: which round, which run, who; checked before a byte of it is believed.

The server sends an order, a site answers with a reply. Both are a header, the length of each message, the messages of
`communication.message`, and a BLAKE2b of all that, so that an envelope adds `ENVELOPE` bytes and 4 for each message.
"""

import struct
from typing import NamedTuple

from fedsparse_jax.communication import MessageError
from fedsparse_jax.communication.message import DIGEST_SIZE, content_hash

_MAGIC, ENVELOPE_VERSION = b"FSJE", 1
ORDER, UPDATE, WHOLE_PLEASE = range(3)  # kinds
_HEADER = "<4sBBHIII16sf"  # magic, version, kind, number of messages, round, site, examples, run, loss
_HEADER_SIZE = struct.calcsize(_HEADER)
ENVELOPE = _HEADER_SIZE + DIGEST_SIZE  # bytes beside the messages and their lengths
MOST_MESSAGES = 16


class Envelope(NamedTuple):
    """What is sent in a round, in one direction."""

    kind: int  # ``ORDER``, ``UPDATE``, or ``WHOLE_PLEASE`` of a site that does not hold the mask an order builds on
    round: int  # counted from 1
    run: bytes  # digest of the facts that both sides agreed on, see `handshake`
    messages: tuple[bytes, ...] = ()
    site: int = 0  # number of the site that answers
    examples: int = 0  # that it trained on in the round, each epoch counted
    loss: float = 0.0  # f32, sum over these

    @property
    def size(self) -> int:
        """Bytes of the envelope around its messages."""
        return ENVELOPE + 4 * len(self.messages)


def seal(envelope: Envelope) -> bytes:
    """The bytes of an envelope."""
    kind, round_, run, messages, site, examples, loss = envelope
    header = struct.pack(_HEADER, _MAGIC, ENVELOPE_VERSION, kind, len(messages), round_, site, examples, run, loss)
    lengths = struct.pack(f"<{len(messages)}I", *map(len, messages))
    body = b"".join((header, lengths, *messages))
    return body + content_hash(body)


def unseal(data: bytes) -> Envelope:
    """The envelope of some bytes from anywhere.

    Raises:
        MessageError: they are none, of another version, or damaged. Nothing else is raised.
    """
    if not isinstance(data, bytes | bytearray | memoryview) or len(data) < ENVELOPE:
        raise MessageError("What came is no envelope of fedsparse_jax: it is too short.")
    data = bytes(data)
    magic, version, kind, count, round_, site, examples, run, loss = struct.unpack_from(_HEADER, data)
    if magic != _MAGIC:
        raise MessageError("What came is no envelope of fedsparse_jax.")
    if version != ENVELOPE_VERSION:
        raise MessageError(
            f"The envelope has version {version}, this side reads {ENVELOPE_VERSION}; update the older side."
        )
    if content_hash(data[:-DIGEST_SIZE]) != data[-DIGEST_SIZE:]:
        raise MessageError("The envelope is damaged: its digest differs.")
    if kind not in (ORDER, UPDATE, WHOLE_PLEASE) or count > MOST_MESSAGES or len(data) < ENVELOPE + 4 * count:
        raise MessageError("The envelope is damaged: its header means nothing.")
    lengths = struct.unpack_from(f"<{count}I", data, _HEADER_SIZE)
    if ENVELOPE + 4 * count + sum(lengths) != len(data):
        raise MessageError("The envelope is damaged: its lengths do not add up.")
    messages, at = [], _HEADER_SIZE + 4 * count
    for length in lengths:
        messages.append(data[at : at + length])
        at += length
    return Envelope(kind, round_, run, tuple(messages), site, examples, loss)

"""Envelopes: nothing but what was sealed is believed."""

import pytest

from fedsparse_jax.communication import MessageError
from fedsparse_jax.deploy.envelope import ENVELOPE, UPDATE, Envelope, seal, unseal

REPLY = Envelope(UPDATE, 7, b"r" * 16, (b"model", b""), site=2, examples=12, loss=0.5)


def test_what_was_sealed_is_unsealed_and_its_size_is_known():
    assert unseal(seal(REPLY)) == REPLY
    assert ENVELOPE == 56 and REPLY.size == 64 and len(seal(REPLY)) == 64 + len(b"model")


def test_any_changed_byte_and_any_length_is_refused():
    sealed = seal(REPLY)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(MessageError):
            unseal(bytes(changed))
    for length in range(len(sealed)):
        with pytest.raises(MessageError):
            unseal(sealed[:length])
    for rubbish in (sealed + b"x", b"", None, "text", b"x" * 1000):
        with pytest.raises(MessageError):
            unseal(rubbish)

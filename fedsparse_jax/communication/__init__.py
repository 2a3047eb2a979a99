"""What crosses the network: a model update as bytes, and back, bit for bit. The format is docs/wire.md.

    sent = encode(Update(params, masks), context(params, known))
    got = decode(sent, context(params, known))

A `Context` is what both sides know before the message: the layout of the tree and, perhaps, a mask that both hold.
No method of the algebra is named here: what is worth sending follows from the masks alone. NumPy on the host only.
"""

from fedsparse_jax.communication.byte_reader import WireError
from fedsparse_jax.communication.message import (
    Context,
    Update,
    context,
    decode,
    encode,
    feedback,
    knowing,
    size,
)
from fedsparse_jax.communication.value_codecs import VALUES

__all__ = [
    "VALUES",
    "Context",
    "Update",
    "WireError",
    "context",
    "decode",
    "encode",
    "feedback",
    "knowing",
    "size",
]

"""Model updates as bytes and back, bit for bit, and who knows which mask. Format: docs/reference/messages.md::

    context = make_context(params, known_masks)
    message = encode(Update(params, masks), context)
    update = decode(message, context)

A `Context` is what both sides know before the message: the layout of the tree and, perhaps, a mask that both hold.
No method of the algebra is named here: what is worth sending follows from the masks alone. NumPy on the host only.
"""

from fedsparse_jax.communication.byte_reader import ByteReader, MessageError
from fedsparse_jax.communication.encrypted import (
    Keys, add_encrypted, decrypt, encrypt, make_keys, pack_votes, unpack_counts,
)  # fmt: skip
from fedsparse_jax.communication.message import (
    Context, Update, decode, encode, encode_with_feedback, make_context, message_size, place_weights, take_weights,
    with_known_mask,
)  # fmt: skip
from fedsparse_jax.communication.transport import (
    MODES, ClientRecord, MessageSettings, SharedMasks, Traffic, measure_round, transmit,
)  # fmt: skip
from fedsparse_jax.communication.value_codecs import VALUE_CODECS, ValueCodec

"""Reading bytes that nobody vouches for."""

import struct

from fedsparse_jax.core.errors import UsageError


class MessageError(UsageError):
    """A message that cannot be made or must not be believed: one sentence that says why."""


class ByteReader:
    """A cursor over a section of a message; whatever is not there is a `MessageError`."""

    def __init__(self, data: memoryview):
        self.data, self.at = data, 0

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        if count > len(self.data) - self.at:
            raise MessageError(
                f"The message is damaged: {count} bytes are announced where {len(self.data) - self.at} are left."
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, form: str) -> tuple:
        """The next fields, little-endian, in the letters of `struct`."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def end(self) -> None:
        """Refuses bytes behind the end."""
        if self.at != len(self.data):
            raise MessageError(f"The message is damaged: {len(self.data) - self.at} bytes are left over.")

"""Kept weights and votes that are added under encryption, by the CKKS scheme (Cheon et al., ASIACRYPT 2017).

Clients that share a mask send dense vectors of equal length. Each client multiplies its own by its share of the
examples, encrypts it by the public key, and sends it. The server, which has no secret key, adds what it got. The holder
of the secret key decrypts the sum, which is the weighted mean, and nothing else::

    keys = make_keys()
    sent = [encrypt(share * take_weights(update, context), keys.public) for share, update in ...]
    mean = decrypt(add_encrypted(sent, keys.public), keys.secret)

Clients multiply, and not the server, because a product of ciphertexts and numbers needs one more prime in the modulus,
and so about twice the bytes. TenSEAL does the arithmetic (extra ``encryption``). No run uses this module yet. What it
costs, and what it protects from, stands in docs/results/encryption.md.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fedsparse_jax.communication.byte_reader import MessageError
from fedsparse_jax.core.errors import ArgumentError, UsageError

DEGREE = 4096  # of the polynomials; 128 bits of security allow a modulus of 109 bits (homomorphicencryption.org, 2018)
PRIMES = (54, 55)  # bits of the modulus; the second prime is for keys alone
SLOTS = DEGREE // 2  # numbers in a ciphertext
VALUE_SCALE, VOTE_SCALE = 2.0**40, 2.0**22  # numbers are stored in steps of 1 / scale
LARGEST_VALUE = 2.0**12  # of a sum: scale times value stays below half the first prime
VOTE_BITS = 30  # of a number that holds several counts


class Keys(NamedTuple):
    """Two halves of a key, as bytes."""

    secret: bytes  # decrypts; of the key holder, who must not be the server
    public: bytes  # encrypts and adds; everybody's


Encrypted = list[bytes]  # ciphertexts of SLOTS numbers each, in order; the last one may hold fewer


def _tenseal() -> Any:
    try:
        import tenseal
    except ImportError as error:
        raise UsageError("Encryption needs TenSEAL; install the extra by: pip install -e '.[encryption]'.") from error
    return tenseal


def make_keys() -> Keys:
    """New random keys.

    Raises:
        UsageError: TenSEAL is not installed.
    """
    library = _tenseal()
    context = library.context(library.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(PRIMES))
    unused = dict(save_galois_keys=False, save_relin_keys=False)
    secret = context.serialize(save_secret_key=True, **unused)
    return Keys(secret, context.serialize(save_secret_key=False, **unused))


def encrypt(values: np.ndarray, public: bytes, scale: float = VALUE_SCALE) -> Encrypted:
    """Ciphertexts of a vector.

    Args:
        values: ``[n]``, finite; the sum of all clients' must stay below ``LARGEST_VALUE`` in magnitude.
        public: of `Keys`.
        scale: see ``VALUE_SCALE``; the sum of all clients' values times it must stay below 2**53.

    Raises:
        MessageError: a value is not finite, or too large.
        UsageError: TenSEAL is not installed.
    """
    library, limit = _tenseal(), LARGEST_VALUE * VALUE_SCALE / scale
    if not (np.abs(values) < limit).all():
        raise MessageError(f"A value is not a number below {limit:g}, which encryption cannot carry; send it plain.")
    key = library.context_from(public)
    parts = np.split(np.asarray(values, np.float64), range(SLOTS, len(values), SLOTS)) if len(values) else []
    return [library.ckks_vector(key, part.tolist(), scale).serialize() for part in parts]


def add_encrypted(sent: Sequence[Encrypted], public: bytes) -> Encrypted:
    """The sum of several clients' vectors, which nobody decrypts on the way.

    Args:
        sent: what each client encrypted, vectors of equal length and scale.
        public: of `Keys`.

    Raises:
        MessageError: their lengths differ, or what came is no ciphertext.
    """
    library = _tenseal()
    key = library.context_from(public)
    try:
        sums = []
        for parts in zip(*sent, strict=True):
            first, *others = (library.ckks_vector_from(key, part) for part in parts)
            if any(one.size() != first.size() for one in others):
                raise ValueError("sizes differ")
            for one in others:
                first += one
            sums.append(first.serialize())
    except (ValueError, RuntimeError) as error:
        raise MessageError("The encrypted vectors are damaged, or differ in length; masks must be shared.") from error
    return sums


def decrypt(encrypted: Encrypted, secret: bytes) -> np.ndarray:
    """The vector, ``f64[n]``, with an error of about 1e-8 that hangs on the secret key.

    Whoever has both a ciphertext and all digits of its decrypted values can compute the secret key (Li and Micciancio,
    EUROCRYPT 2021, eprint 2020/1533), so that the digits must not go to the server.

    Args:
        encrypted: of `encrypt` or `add_encrypted`.
        secret: of `Keys`.
    """
    library = _tenseal()
    key = library.context_from(secret)
    parts = [library.ckks_vector_from(key, part).decrypt() for part in encrypted]
    return np.concatenate([np.zeros(0), *parts])


def pack_votes(votes: np.ndarray, num_clients: int) -> np.ndarray:
    """Votes as fewer numbers: digits to the base ``num_clients + 1``, so that sums of them never carry.

    Args:
        votes: ``bool[n]``, such as which weights of a shared mask a client keeps.
        num_clients: at most so many vectors will be added.

    Returns:
        ``f64[ceil(n / digits)]``, to be encrypted with ``VOTE_SCALE``.

    >>> pack_votes(np.array([True, False, True]), num_clients=8).tolist()
    [82.0]
    """
    base, digits = _digits(num_clients)
    padded = np.zeros(-(-len(votes) // digits) * digits)
    padded[: len(votes)] = votes
    return padded.reshape(-1, digits) @ float(base) ** np.arange(digits)


def unpack_counts(sums: np.ndarray, num_clients: int, count: int) -> np.ndarray:
    """How many clients voted for each weight, ``i64[count]``; exact, because what encryption loses is below a half.

    Args:
        sums: of vectors of `pack_votes`, decrypted.
        num_clients: as there.
        count: n of the votes.
    """
    base, digits = _digits(num_clients)
    whole = np.rint(sums).astype(np.int64)
    return (whole[:, np.newaxis] // base ** np.arange(digits) % base).ravel()[:count]


def _digits(num_clients: int) -> tuple[int, int]:
    """``(base, digits in a number of VOTE_BITS)``."""
    if not 0 < num_clients < 2**15:
        raise ArgumentError("num_clients", num_clients, f"it must lie between 1 and {2**15 - 1}")
    base = num_clients + 1
    digits = 1
    while base ** (digits + 1) <= 2**VOTE_BITS:
        digits += 1
    return base, digits

"""Messages that were damaged or forged: refused, or what the format says of their bytes; never more memory than due."""

import contextlib
import time
import tracemalloc

import jax
import numpy as np
import pytest

from fedsparse_jax.communication import VALUE_CODECS, MessageError, Update, decode, encode, make_context, message
from tests.helpers.numpy_reference import WireDecoder
from tests.helpers.wounded_messages import Sent, drawn_messages, forged, messages_of_runs, sealed, wounded

ZLIB = 60_000  # bytes that inflating takes, whatever the message
SENTENCE = 200  # characters of a refusal


def flat(tree, dtype):
    return [leaf.ravel().astype(dtype).tolist() for leaf in jax.tree.leaves(tree)]


def assert_an_update(got: Update, context):
    for leaves, dtype in zip(map(jax.tree.leaves, got), (np.float32, np.bool_)):
        assert tuple(leaf.shape for leaf in leaves) == context.shapes
        assert all(leaf.dtype == dtype for leaf in leaves)
    pairs = zip(*map(jax.tree.leaves, got))
    assert not any(weights.view(np.uint32)[~mask].any() for weights, mask in pairs)


def assert_what_the_format_says(got: Update, body: bytes, context):
    """Compares with the decoder that was written from the documentation, bit by bit and weight by weight."""
    known = None if context.known is None else [leaf.astype(int).tolist() for leaf in context.known]
    sizes = [leaf.size for leaf in jax.tree.leaves(got.params)]
    with np.errstate(all="ignore"):
        weights, masks = WireDecoder(body).update(sizes, known)
    assert masks == flat(got.masks, int)
    for told, leaf in zip(weights, jax.tree.leaves(got.params), strict=True):
        np.testing.assert_array_equal(np.array(told, np.float32), leaf.ravel())


def fuzz(originals: list[Sent], count: int, make, *, every: int = 40) -> int:
    """How many of ``count`` wounded messages were refused.

    Whatever is raised beside a `MessageError` is raised here. Of the accepted ones, each has the layout of its context,
    and every so many are decoded once more by the documentation.
    """
    rng, refused, whole = np.random.default_rng(5), 0, {sent.body for sent in originals}
    for i in range(count):
        sent, other = originals[i % len(originals)], originals[int(rng.integers(len(originals)))]
        bad = make(sent, rng, other.body)
        try:
            got = decode(bad, sent.context)
        except MessageError as error:
            assert len(str(error)) < SENTENCE, error
            refused += 1
            continue
        assert make is forged or bad in whole, "a damaged message was accepted"
        assert_an_update(got, sent.context)
        if (i - refused) % every == 0:
            assert_what_the_format_says(got, bad, sent.context)
    return refused


def damaged(sent: Sent, rng, other: bytes) -> bytes:
    return wounded(sent.body, rng, other)


def test_a_few_thousand_damaged_and_forged_messages():
    assert fuzz(drawn_messages(), 2000, damaged) > 1950  # some wounds leave a message as it was
    assert 1000 < fuzz(drawn_messages(), 2000, forged) < 1950


@pytest.mark.slow
def test_100_000_wounds_of_what_runs_send(monkeypatch):
    """Half of them damaged, none of which is accepted; half forged, so that the checksum is right."""
    originals = messages_of_runs(monkeypatch)
    assert {sent.body[5] for sent in originals} == {message.WHOLE, message.SAME, message.CHANGE}
    assert {sent.body[6] for sent in originals} == {codec.id for codec in VALUE_CODECS.values()}
    began = time.monotonic()
    refused = [fuzz(originals, 50_000, make, every=400) for make in (damaged, forged)]
    seconds = time.monotonic() - began
    print(f"{len(originals)} messages; damaged: {refused[0]} of 50000 refused, forged: {refused[1]}; {seconds:.0f} s")
    assert refused[0] > 49_500 and 20_000 < refused[1] < 49_000
    assert seconds < 60


def peak_of(body: bytes, context) -> int:
    """The most bytes that Python and NumPy held while a message was decoded, beyond those before."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    with contextlib.suppress(MessageError):
        decode(body, context)
    return tracemalloc.get_traced_memory()[1] - before


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def bound(body: bytes, context) -> int:
    weights = sum(int(np.prod(shape)) for shape in context.shapes)
    return 64 * (len(body) + weights) + ZLIB


def test_forged_messages_take_no_more_memory_than_they_and_the_model_are_due(traced):
    rng, originals = np.random.default_rng(11), drawn_messages()
    for i in range(500):
        sent = originals[i % len(originals)]
        bad = forged(sent, rng, originals[int(rng.integers(len(originals)))].body)
        assert peak_of(bad, sent.context) < bound(bad, sent.context)


@pytest.mark.parametrize("width", [4, 8])
def test_a_number_without_measure_anywhere_in_a_message_takes_no_memory(traced, width):
    """2^60, and the highest number of four bytes, at each place of a message whose checksum is right."""
    number = (2**60 if width == 8 else 2**32 - 1).to_bytes(width, "little")
    for sent in drawn_messages()[::9]:
        for at in range(len(sent.body) - 16 - width):
            bad = sent.body[:at] + number + sent.body[at + width : -16]
            bad = bad + message.content_hash(bad) if at < 16 else sealed(bad)  # the length, too
            assert peak_of(bad, sent.context) < bound(bad, sent.context)


@pytest.mark.parametrize("values", VALUE_CODECS)
@pytest.mark.parametrize("density", [0.05, 1.0])
def test_decoding_takes_a_few_times_the_model(traced, density, values):
    rng, size = np.random.default_rng(0), 300_000
    mask = {"w": rng.random(size) < density}
    update = Update({"w": np.where(mask["w"], rng.normal(size=size), 0).astype(np.float32)}, mask)
    context = make_context(update.params)
    assert peak_of(encode(update, context, values=values), context) < 8 * 4 * size


# --- what the format cannot know: docs/reference/messages.md ------------------------------------


def of_three(*values):
    """An update of three weights, all kept."""
    return Update({"w": np.array(values, np.float32)}, {"w": np.ones(3, bool)})


def test_a_step_of_128_is_refused_although_its_checksum_is_right():
    update = of_three(127.0, -127.0, 0.0)
    context = make_context(update.params)
    sent = encode(update, context, values="int8")
    at = sent.index(bytes([127, 129]))
    with pytest.raises(MessageError, match="a step of -128"):
        decode(sealed(sent[:at] + bytes([127, 128]) + sent[at + 2 : -16]), context)


def test_bits_behind_the_end_of_a_mask_are_refused_although_the_checksum_is_right():
    mask = {"w": np.arange(40) % 9 == 0}
    update = Update({"w": mask["w"].astype(np.float32)}, mask)
    context = make_context(update.params)
    sent = encode(update, context)
    length = int.from_bytes(sent[16:24], "little")
    high = int.from_bytes(sent[62:66], "little")
    assert sent[56] == 2 and sent[57] * 5 % 8  # five gaps of ones, whose lower bits do not fill their last byte
    last = 56 + length - 1
    with pytest.raises(MessageError, match="ones fill the last byte of a mask"):
        decode(sealed(sent[:last] + bytes([sent[last] | 0x80]) + sent[last + 1 : -16]), context)
    longer = sent[:16] + (length + 1).to_bytes(8, "little") + sent[24:62] + (high + 1).to_bytes(4, "little")
    longer += sent[66 : 66 + high] + b"\0" + sent[66 + high : -16]
    with pytest.raises(MessageError, match="goes on behind its last gap"):
        decode(sealed(longer), context)


def test_the_format_does_not_know_who_sent_a_message_when_or_what_it_means():
    """An old message, another client's, or scores instead of weights fit; so does a forgery with a right checksum."""
    now, earlier, scores = of_three(1, 2, 3), of_three(4, 5, 6), of_three(0.5, 0.25, 0.125)
    context = make_context(now.params)
    for accepted in (now, earlier, scores):
        got = decode(encode(accepted, context), context)
        np.testing.assert_array_equal(got.params["w"], accepted.params["w"])
    sent = bytearray(encode(now, context)[:-16])
    sent[-1] ^= 0x80  # the sign of the last weight
    with pytest.raises(MessageError, match="its checksum is wrong"):
        decode(bytes(sent) + encode(now, context)[-16:], context)
    assert decode(sealed(sent), context).params["w"].tolist() == [1, 2, -3]

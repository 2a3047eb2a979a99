"""Messages: by hand, there and back over random trees, their size against the entropy, and bytes from a stranger."""

import re
import struct
import tracemalloc
import zlib
from math import lgamma, log

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse_jax.communication import (
    VALUE_CODECS,
    ByteReader,
    MessageError,
    Update,
    decode,
    encode,
    encode_with_feedback,
    make_context,
    mask_codec,
    message,
    message_size,
)
from fedsparse_jax.core.errors import UsageError
from tests.helpers import numpy_reference
from tests.helpers.wounded_messages import sealed

SHAPES = {"a": {"bias": (5,), "kernel": (3, 3, 4)}, "b": (2, 1), "c": ()}


def tree_of(shapes, draw):
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def masks_of(rng, density, shapes=SHAPES):
    return tree_of(shapes, lambda shape: np.asarray(rng.random(shape) < density))


def params_of(rng, masks, scale=0.05):
    draw = lambda m: np.asarray(np.where(m, rng.normal(0, scale, m.shape), 0), np.float32)
    return jax.tree.map(draw, masks)


def both(op, a, b):
    return jax.tree.map(lambda x, y: np.asarray(op(x, y)), a, b)


def assert_same_bits(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted)):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def there_and_back(update, context, **options):
    sent = encode(update, context, **options)
    assert_same_bits(decode(sent, context), update)
    if options.get("values", "float32") == "float32":
        assert message_size(update, context) == len(sent)
    return sent


# --- bits ---------------------------------------------------------------------------------------


def test_the_bits_of_a_mask_by_hand():
    # 40 bits, ones at 1, 9 and 30: gaps 1, 7, 20. With k = 3: quotients 0, 0, 2 -> unary 1 1 001, low bits 1, 7, 4
    # -> 100 111 001, the lowest first: bytes 0b10011 and 0b00111001, 0b1.
    ones = np.zeros(40, bool)
    ones[[1, 9, 30]] = True
    expected = bytes([mask_codec.SET, 3, 3, 0, 0, 0, 1, 0, 0, 0, 0b00010011, 0b00111001, 0b1])
    assert mask_codec.write_bits(mask_codec._sized(mask_codec.SET, 3, np.array([1, 7, 20]))) == expected
    assert mask_codec.read_bits(ByteReader(memoryview(expected)), 40).tolist() == [1, 9, 30]
    assert mask_codec.plan_coding(ones).size == len(mask_codec.write_bits(mask_codec.plan_coding(ones))) == 13


def test_k_0_is_the_plain_bit_mask():
    ones = np.array([1, 0, 1, 1, 0, 0, 1, 0, 0, 1], bool)
    assert mask_codec.write_bits(mask_codec.plan_coding(ones))[10:] == np.packbits(ones, bitorder="little").tobytes()


@pytest.mark.parametrize(("vector", "tag"), [(np.zeros(9, bool), 0), (np.ones(9, bool), 1)])
def test_nothing_and_all_take_a_byte(vector, tag):
    assert mask_codec.write_bits(mask_codec.plan_coding(vector)) == bytes([tag])


def test_an_empty_vector_comes_back():
    written = mask_codec.write_bits(mask_codec.plan_coding(np.zeros(0, bool)))
    assert mask_codec.read_bits(ByteReader(memoryview(written)), 0).size == 0


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**31), st.integers(1, 3000), st.floats(0, 1))
def test_the_bits_of_a_mask_come_back(seed, size, density):
    vector = np.random.default_rng(seed).random(size) < density
    coding = mask_codec.plan_coding(vector)
    written = mask_codec.write_bits(coding)
    reader = ByteReader(memoryview(written))
    assert mask_codec.read_bits(reader, size).tolist() == np.flatnonzero(vector).tolist()
    assert reader.at == len(written) == coding.size <= 10 + -(-size // 8)


# --- there and back -----------------------------------------------------------------------------

CASES = ["none", "equal", "denser", "sparser", "other", "full", "empty"]


def known_of(case, masks, rng):
    other = masks_of(rng, 0.5)
    return {
        "none": lambda: None,
        "equal": lambda: masks,
        "denser": lambda: both(np.logical_or, masks, other),
        "sparser": lambda: both(np.logical_and, masks, other),
        "other": lambda: other,
        "full": lambda: masks_of(rng, 2),
        "empty": lambda: masks_of(rng, -1),
    }[case]()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.9, 1.1]))
@pytest.mark.parametrize("case", CASES)
def test_every_update_comes_back_bit_for_bit(case, seed, density):
    rng = np.random.default_rng(seed)
    masks = masks_of(rng, density)
    update = Update(params_of(rng, masks), masks)
    sent = there_and_back(update, make_context(update.params, known_of(case, masks, rng)))
    if case in ("none", "equal"):
        assert (sent[5] == message.SAME) == (case == "equal")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 6), max_size=4).map(tuple), min_size=1, max_size=5), st.integers(0, 2**31))
def test_trees_of_any_shapes_come_back(shapes, seed):
    rng = np.random.default_rng(seed)
    shapes = {f"leaf{i}": shape for i, shape in enumerate(shapes)}
    masks, old = masks_of(rng, 0.4, shapes), masks_of(rng, 0.6, shapes)
    update = Update(params_of(rng, masks), masks)
    for known in (None, old):
        for values in VALUE_CODECS:
            context = make_context(update.params, known)
            assert_same_bits(decode(encode(update, context, values=values), context).masks, masks)
        there_and_back(update, make_context(update.params, known))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_every_bit_pattern_travels(patterns):
    """Zeros of both signs that are kept, subnormal numbers, infinities, and NaN with its payload."""
    weights = {"w": np.array([*patterns, 0, 2**31, 1, 0x7F800000, 0xFFC12345, 0x7F800001], np.uint32).view(np.float32)}
    update = Update(weights, {"w": np.ones(weights["w"].shape, bool)})
    there_and_back(update, make_context(weights))


def test_arrays_of_jax_travel_too():
    params = {"w": jax.numpy.arange(6.0).reshape(2, 3)}
    context = make_context(params)
    got = decode(encode(Update(params, {"w": params["w"] >= 0}), context), context)
    np.testing.assert_array_equal(got.params["w"], params["w"])


def test_a_context_from_shapes_alone():
    like = {"w": jax.ShapeDtypeStruct((2, 3), np.float32)}
    assert make_context(like).digest == make_context({"w": np.ones((2, 3), np.float32)}).digest


def test_what_is_known_is_not_sent():
    rng = np.random.default_rng(0)
    shapes = {"w": (100, 100)}
    old = masks_of(rng, 0.1, shapes)
    subset = both(np.logical_and, old, masks_of(rng, 0.8, shapes))
    swapped = both(np.logical_or, subset, masks_of(rng, 0.002, shapes))
    for masks, mode, upper in ((old, message.SAME, 0), (subset, message.CHANGE, 120), (swapped, message.CHANGE, 160)):
        update = Update(params_of(rng, masks), masks)
        sent = there_and_back(update, make_context(update.params, old))
        mask_length = struct.unpack_from("<Q", sent, 16)[0]
        assert sent[5] == mode and mask_length <= upper
        assert len(sent) <= len(there_and_back(update, make_context(update.params)))


def test_the_example_of_the_documentation(repository):
    text = (repository / "docs/reference/messages.md").read_text()
    sent = bytes.fromhex(re.search(r"```text\n(.*?)```", text, re.DOTALL)[1])
    kernel = np.zeros((2, 20), np.float32)
    kernel.ravel()[[1, 9, 30]] = 1, -0.5, 0.15625
    params = {"conv": {"bias": np.array([0.0, 2.0, -0.0], np.float32), "kernel": kernel}}
    masks = {"conv": {"bias": np.ones(3, bool), "kernel": kernel != 0}}
    assert_same_bits(decode(sent, make_context(params)), Update(params, masks))
    assert encode(Update(params, masks), make_context(params)) == sent
    layout = re.search(r"digest of `(.*?)`", text)[1]
    assert message.content_hash(layout.encode()) == sent[24:40]


@pytest.mark.parametrize("values", VALUE_CODECS)
@pytest.mark.parametrize("case", ["none", "equal", "denser", "swapped"])
def test_a_decoder_written_from_the_documentation_agrees(case, values):
    rng = np.random.default_rng(10)
    shapes = {"a": (30, 20), "b": (40,), "c": (3,)}
    masks = masks_of(rng, 0.2, shapes)
    denser = both(np.logical_or, masks, masks_of(rng, 0.1, shapes))
    swapped = both(np.logical_and, denser, masks_of(rng, 0.9, shapes))
    known = {"none": None, "equal": masks, "denser": denser, "swapped": swapped}[case]
    update = Update(params_of(rng, masks), masks)
    context = make_context(update.params, known)
    sent = encode(update, context, values=values)
    got = decode(sent, context)
    flat = lambda tree: [leaf.ravel().astype(int).tolist() for leaf in jax.tree.leaves(tree)]
    known_bits = None if known is None else flat(known)
    weights, mask_bits = numpy_reference.WireDecoder(sent).update([600, 40, 3], known_bits)
    assert mask_bits == flat(masks)
    assert weights == [leaf.ravel().tolist() for leaf in jax.tree.leaves(got.params)]


# --- size ---------------------------------------------------------------------------------------


def log2_choose(n, k):
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2)


@pytest.mark.parametrize("density", [1, 0.5, 0.35, 0.2, 0.1, 0.05, 0.01])
def test_the_size_is_close_to_the_entropy(density):
    """Bits that carry no structure at all: fractions, signs and exponents are noise, and so is the mask."""
    rng, n = np.random.default_rng(0), 400_000
    mask = np.zeros(n, bool)
    mask[rng.permutation(n)[: int(density * n)]] = True
    weights = np.where(mask, rng.integers(0, 2**32, n, np.uint32), 0).astype(np.uint32).view(np.float32)
    update = Update({"w": weights}, {"w": mask})
    bound = (32 * mask.sum() + log2_choose(n, int(mask.sum()))) / 8
    frame = message.HEADER_SIZE + message.DIGEST_SIZE
    length = len(there_and_back(update, make_context(update.params)))
    assert bound <= length - frame <= 1.01 * bound + 20


@pytest.mark.parametrize("density", np.geomspace(0.001, 0.999, 12).round(4))
@pytest.mark.parametrize("kind", ["noise", "comb", "block", "runs"])
def test_no_mask_is_far_from_its_entropy(kind, density):
    """Also where the gaps are nothing like those of noise: at most 0.6 bits for each rarer bit, and a header."""
    rng, n = np.random.default_rng(0), 100_000
    vector = {
        "noise": lambda: rng.random(n) < density,
        "comb": lambda: np.floor(np.arange(n + 1) * density)[1:] > np.floor(np.arange(n + 1) * density)[:-1],
        "block": lambda: np.arange(n) < density * n,
        "runs": lambda: np.repeat(rng.random(n // 10) < density, 10),
    }[kind]()
    count = int(vector.sum())
    assert mask_codec.plan_coding(vector).size * 8 <= log2_choose(n, count) + 0.6 * min(count, n - count) + 120


@pytest.mark.parametrize(("density", "left"), [(0.5, 0.7), (0.1, 0.5), (0.05, 0.95), (0.02, 0.5)])
def test_the_size_of_a_subset_is_close_to_the_entropy(density, left):
    rng, n = np.random.default_rng(1), 400_000
    old = rng.random(n) < density
    mask = old & (rng.random(n) < left)
    weights = np.where(mask, rng.integers(0, 2**32, n, np.uint32), 0).astype(np.uint32).view(np.float32)
    sent = there_and_back(Update({"w": weights}, {"w": mask}), make_context({"w": weights}, {"w": old}))
    bound = (32 * mask.sum() + log2_choose(int(old.sum()), int(mask.sum()))) / 8
    assert sent[5] == message.CHANGE and bound <= len(sent) - 88 <= 1.01 * bound + 30


def test_exponents_of_weights_are_squeezed():
    rng = np.random.default_rng(2)
    weights = {"w": rng.normal(0, 0.02, 50_000).astype(np.float32)}
    sent = there_and_back(Update(weights, {"w": np.ones(50_000, bool)}), make_context(weights))
    exponents = np.bincount(weights["w"].view(np.uint32) >> 23 & 0xFF)
    p = exponents[exponents > 0] / 50_000
    entropy = 24 - (p * np.log2(p)).sum()  # fraction and sign as they are
    assert entropy <= len(sent) * 8 / 50_000 <= 1.02 * entropy


# --- refusals -----------------------------------------------------------------------------------


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    masks = masks_of(rng, 0.5)
    update = Update(params_of(rng, masks), masks)
    return update, make_context(update.params, both(np.logical_or, masks, masks_of(rng, 0.5)))


def test_an_error_of_a_message_is_one_of_the_user():
    assert issubclass(MessageError, UsageError)


@pytest.mark.parametrize("value", [1e-30, np.nan, -0.0])
def test_refuses_weights_outside_the_mask(value):
    params, masks = {"w": np.array([1.0, value], np.float32)}, {"w": np.array([True, False])}
    with pytest.raises(MessageError, match="apply the mask first"):
        encode(Update(params, masks), make_context(params))


def test_refuses_what_does_not_fit_the_context(sample):
    update, context = sample
    for params, masks, what in (
        ({"w": np.zeros(3, np.float32)}, update.masks, "the update"),
        (jax.tree.map(lambda w: w.astype(np.float64), update.params), update.masks, "the update"),
        (update.params, update.params, "the mask of the update"),
        (update.params, {"c": update.masks["c"]}, "the mask of the update"),
    ):
        with pytest.raises(MessageError, match=f"{what} does not have the names"):
            encode(Update(params, masks), context)
    with pytest.raises(MessageError, match="the known mask does not have"):
        make_context(update.params, {"c": update.masks["c"]})
    with pytest.raises(MessageError, match="w is int32"):
        make_context({"w": np.zeros(3, np.int32)})


def test_refuses_unknown_options(sample):
    update, context = sample
    with pytest.raises(MessageError, match="values is 'int4': it must be one of float32, bfloat16"):
        encode(update, context, values="int4")
    with pytest.raises(MessageError, match="finite is 'maybe'"):
        encode(update, context, finite="maybe")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_travel_or_are_refused(value):
    params = {"w": np.array([1.0, value], np.float32)}
    update, context = Update(params, {"w": np.ones(2, bool)}), make_context(params)
    with pytest.raises(MessageError, match="not a finite number, which was to be refused"):
        encode(update, context, finite="refuse")
    with pytest.raises(MessageError, match="int8 cannot carry"):
        encode(update, context, values="int8")
    sent = there_and_back(update, context)
    with pytest.raises(MessageError, match="in the message is not a finite number"):
        decode(sent, context, finite="refuse")
    for values in ("bfloat16", "float16"):
        got = decode(encode(update, context, values=values), context).params["w"]
        np.testing.assert_array_equal(got, params["w"])


def test_refuses_another_model_version_or_mask(sample):
    update, context = sample
    sent = encode(update, context)
    renamed = {**update.params, "d": update.params["c"]}
    del renamed["c"]
    with pytest.raises(MessageError, match="of another model"):
        decode(sent, make_context(renamed))
    with pytest.raises(MessageError, match="has version 2, this side reads 1"):
        decode(sent[:4] + b"\x02" + sent[5:], context)
    assert sent[5] == message.CHANGE
    for known in (None, update.masks):
        with pytest.raises(MessageError, match="a mask that this side does not hold"):
            decode(sent, make_context(update.params, known))
    for nonsense in (b"", b"FSJW", bytes(200), "text", None, 7):
        with pytest.raises(MessageError):
            decode(nonsense, context)


def test_every_cut_and_every_flipped_bit_is_refused(sample):
    update, context = sample
    sent = encode(update, context)
    for length in range(len(sent)):
        with pytest.raises(MessageError):
            decode(sent[:length], context)
    for bit in range(8 * len(sent)):
        flipped = bytearray(sent)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MessageError):
            decode(bytes(flipped), context)
    with pytest.raises(MessageError):
        decode(sent + b"\0", context)


def bomb(masks_part, values_part, context, id_=0):
    header = struct.pack(
        message.HEADER, b"FSJW", 1, message.WHOLE, id_, 0, 0, len(masks_part), context.digest, bytes(16)
    )
    return sealed(header + masks_part + values_part)


@pytest.mark.parametrize(
    ("masks_part", "values_part"),
    [
        (struct.pack("<BBII", 2, 0, 2**32 - 1, 2**32 - 1), b""),  # gaps without end
        (struct.pack("<BBII", 2, 31, 2**20, 2), b"\xff\xff"),  # low bits without end
        (struct.pack("<BBII", 2, 255, 1, 1), b"\1"),
        (struct.pack("<BBII", 2, 0, 1, 200), b"\0" * 199 + b"\x80"),  # a position beyond the leaf
        (b"\x07", b""),
        (b"\x01", struct.pack("<BQ", 0, 2**63)),
        (b"\x01", struct.pack("<BQ", 1, 2**64 - 1)),
        (b"\x01", b""),
        (b"\x00", b"\0" * 9 + b"behind the end"),
    ],
)
def test_absurd_sizes_are_refused_and_take_no_memory(masks_part, values_part):
    context = make_context({"w": np.zeros(1000, np.float32)})
    tracemalloc.start()
    with pytest.raises(MessageError):
        decode(bomb(masks_part, values_part, context), context)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_a_deflated_bomb_inflates_no_further_than_the_tree():
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeeze.compress(bytes(50_000_000)) + squeeze.flush()
    context = make_context({"w": np.zeros(1000, np.float32)})
    sent = bomb(b"\x01", struct.pack("<BQ", 1, len(body)) + body + bytes(3000), context)
    tracemalloc.start()
    with pytest.raises(MessageError, match="compressed plane"):
        decode(sent, context)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(sent) + 20_000


# --- lossy values -------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "relative"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_values_are_rounded_to_nearest(values, relative):
    weights = {"w": np.random.default_rng(6).normal(size=5000).astype(np.float32)}
    update, context = Update(weights, {"w": np.ones(5000, bool)}), make_context(weights)
    got = decode(encode(update, context, values=values), context).params["w"]
    large = np.abs(weights["w"]) > 1e-4  # float16 is subnormal below
    assert (np.abs(got - weights["w"])[large] <= relative * np.abs(weights["w"])[large]).all()
    again = decode(encode(Update({"w": got}, update.masks), context), context)
    assert_same_bits(again.params["w"], got)


def test_float16_refuses_what_it_cannot_hold():
    weights = {"w": np.array([1.0, 1e5], np.float32)}
    update, context = Update(weights, {"w": np.ones(2, bool)}), make_context(weights)
    with pytest.raises(MessageError, match="beyond 65504"):
        encode(update, context, values="float16")


def test_int8_by_hand():
    # The largest of each leaf is 127 steps: 254 / 127 = 2, and 1.27 / 127 = 0.01. 3 lies between 1 and 2 steps of 2.
    weights = {"a": np.array([254.0, -4.0, 3.0], np.float32), "b": np.array([1.27, 0.0], np.float32)}
    update = Update(weights, jax.tree.map(lambda w: np.ones(w.shape, bool), weights))
    context = make_context(weights)
    decoded = [decode(encode(update, context, values="int8", seed=i), context).params for i in range(20)]
    assert {tuple(params["a"].tolist()) for params in decoded} == {(254.0, -4.0, 2.0), (254.0, -4.0, 4.0)}
    np.testing.assert_allclose([params["b"] for params in decoded], [[1.27, 0.0]] * 20, rtol=1e-6)


def test_int8_is_unbiased_and_within_a_step():
    rng = np.random.default_rng(7)
    masks = masks_of(rng, 0.7, {"a": (20, 10), "b": (50,)})
    update = Update(params_of(rng, masks), masks)
    context = make_context(update.params)
    decoded = [decode(encode(update, context, values="int8", seed=(1, i)), context).params for i in range(2000)]
    for name, leaf in update.params.items():
        got = np.stack([params[name] for params in decoded])
        step = np.abs(leaf).max() / 127
        assert np.abs(got - leaf).max() <= step * 1.0001
        five_sigma = 5 * step / 2 / np.sqrt(2000)  # of a coin of one step
        assert np.abs(got.mean(0) - leaf).max() <= five_sigma


def test_rounding_depends_on_the_seed_alone(sample):
    update, context = sample
    first, same, other = (encode(update, context, values="int8", seed=seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert first == same != other


@pytest.mark.parametrize("values", ["bfloat16", "float16", "int8", "float32"])
def test_lossy_messages_keep_the_mask_and_are_shorter(values):
    rng = np.random.default_rng(8)
    masks = masks_of(rng, 0.3, {"w": (100, 100)})
    update = Update(params_of(rng, masks), masks)
    context = make_context(update.params)
    sent = encode(update, context, values=values)
    assert_same_bits(decode(sent, context).masks, masks)
    width = {"float32": 32, "bfloat16": 16, "float16": 16, "int8": 8}[values]
    assert len(sent) - 88 - struct.unpack_from("<Q", sent, 16)[0] < masks["w"].sum() * width / 8


@pytest.mark.parametrize("values", VALUE_CODECS)
def test_feedback_loses_nothing_in_the_long_run(values):
    """The sum of what arrived and the residual is the sum of what should have arrived."""
    rng = np.random.default_rng(9)
    masks = masks_of(rng, 0.6)
    residual = jax.tree.map(np.zeros_like, params_of(rng, masks))
    context = make_context(residual)
    arrived, wanted = jax.tree.map(np.zeros_like, residual), jax.tree.map(np.zeros_like, residual)
    for i in range(30):
        update = Update(params_of(rng, masks), masks)
        sent, residual = encode_with_feedback(update, residual, context, values=values, seed=i)
        arrived = both(np.add, arrived, decode(sent, context).params)
        wanted = both(np.add, wanted, update.params)
    for a, r, w in zip(*map(jax.tree.leaves, (arrived, residual, wanted))):
        np.testing.assert_allclose(a + r, w, atol=2e-6)
        assert values != "float32" or not r.any()


def test_feedback_forgets_what_is_pruned():
    masks = {"w": np.array([True, False])}
    update = Update({"w": np.array([1.0, 0.0], np.float32)}, masks)
    context, residual = make_context(update.params), {"w": np.array([0.25, 0.5], np.float32)}
    _, residual = encode_with_feedback(update, residual, context, values="int8")
    assert residual["w"][1] == 0

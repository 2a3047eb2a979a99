"""Messages made and read: how fast, in dense float32 of the paper's network."""

import zlib

import jax
import numpy as np

from benchmarks.timing import Alternatives, measured
from fedsparse_jax import communication
from fedsparse_jax.core.types import Masks
from fedsparse_jax.models import MODELS

SHAPE = (64, 64, 32)


def pruned(density: float) -> tuple[communication.Update, Masks]:
    """The paper's network, pruned by magnitude before any training, and a mask 1.2 times as dense."""
    params = jax.tree.map(np.asarray, MODELS["brain_age_cnn"](SHAPE).init(jax.random.key(0)))
    flat = np.concatenate([np.abs(leaf).ravel() for leaf in jax.tree.leaves(params)])
    cuts = [np.quantile(flat, max(0, 1 - share)) for share in (density, 1.2 * density)]
    masks, known = (jax.tree.map(lambda w, cut=cut: np.abs(w) >= cut, params) for cut in cuts)
    return communication.Update(jax.tree.map(lambda m, w: np.where(m, w, np.float32(0)), masks, params), masks), known


def speed(density: float) -> Alternatives:
    """Alternatives that encode and decode one model.

    Args:
        density: share of the weights kept.
    """
    update, known = pruned(density)

    def through(held, values="float32"):
        context = communication.make_context(update.params, held)
        return communication.decode(communication.encode(update, context, values=values), context)

    context = communication.make_context(update.params)
    sent = communication.encode(update, context)
    dense = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(update.params)])
    works = {
        "dense float32, zlib -1 there and back": lambda: zlib.decompress(zlib.compress(dense.tobytes(), 1)),
        "there and back, receiver holds nothing": lambda: through(None),
        "there and back, it holds the mask before": lambda: through(known),
        "there and back, it holds this mask": lambda: through(update.masks),
        "encode, receiver holds nothing": lambda: communication.encode(update, context),
        "decode, receiver holds nothing": lambda: communication.decode(sent, context),
        "there and back in bfloat16": lambda: through(None, "bfloat16"),
        "there and back in int8": lambda: through(None, "int8"),
        "size alone, receiver holds nothing": lambda: communication.message_size(update, context),
    }
    rate = {"MB/s of dense float32": lambda seconds: round(dense.nbytes / 1e6 / seconds)}
    return {name: measured(work, rate) for name, work in works.items()}

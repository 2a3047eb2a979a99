"""How many bytes messages take: the measurements behind docs/results/messages.md.

python scripts/benchmarks/message_sizes.py

The masks and weights are those of a short training, not noise: the paper's network prunes itself by
FedSparsify-Global, and a snapshot is taken after every round.
"""

import bz2
import lzma
import time
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import gammaln

from fedsparse_jax import communication
from fedsparse_jax.communication import mask_codec, message
from fedsparse_jax.config import defaults, experiment_from_config
from fedsparse_jax.core import tree
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.runs import evaluate_server, fold_rounds, make_runner

# Share of the weights kept after each round of the training that `train` plays.
DENSITIES = (1.0,) * 5 + (0.7, 0.5, 0.35, 0.2, 0.14, 0.1, 0.07, 0.05, 0.02, 0.01)

SHOWN = (1.0, 0.5, 0.2, 0.1, 0.05, 0.01)
FRAME = message.HEADER_SIZE + message.DIGEST_SIZE
# Five poolings must leave more than one voxel: an instance norm over a single one silences the network.
SHAPE = (64, 64, 32)


class RoundSnapshot(NamedTuple):
    """The global model after a round."""

    round: int
    params: dict
    masks: dict


def training():
    """The config of the training: the paper's network, eight clients of eight people each, Adam."""
    config = defaults()
    config.rounds = len(DENSITIES)
    with config.unlocked():
        config.data.options = dict(people=80, shape=SHAPE, spread=0.6)
        config.client.optimizer = dict(name="adam", learning_rate=5e-4)
        config.pruning.placement = "server"
        steps = [t for t in range(1, len(DENSITIES) + 1) if DENSITIES[t - 1] < 1]
        levels = [1 - DENSITIES[t - 1] for t in steps]
        config.pruning.sparsity = levels[-1]
        config.pruning.schedule = dict(name="step_wise", at=steps, levels=levels)
    config.data.shape = SHAPE
    config.client.batch_size, config.client.epochs = 2, 2
    return config


def train(config=None, print_fn: Callable[[str], None] = print) -> list[RoundSnapshot]:
    """Plays the rounds and keeps the model after each; minutes on two cores."""
    runner, began = make_runner(experiment_from_config(config or training())), time.monotonic()
    start = runner.algorithm.init(jax.random.key(runner.experiment.seed))
    snapshots = []
    for result in fold_rounds(runner, start, {}):
        server, info = result.server, result.info
        on_host = jax.tree.map(np.asarray, (server.params, server.masks))
        snapshots.append(RoundSnapshot(int(info.round), *on_host))
        density = int(info.kept.sum()) / tree.size(server.params)
        mae = evaluate_server(runner, server).test["mae"]
        print_fn(f"round {int(info.round)}: density {density:.4f}, test MAE {mae:.2f}")
    print_fn(f"trained {len(snapshots)} rounds in {time.monotonic() - began:.0f} s")
    return snapshots


# --- sizes --------------------------------------------------------------------------------------


def sizes(snapshots: list[RoundSnapshot]) -> list[dict]:
    """One row for each of ``SHOWN`` and each thing that a receiver may hold; everything in bytes.

    ``bound`` is four bytes for each kept weight and `entropy` of the mask; ``ours`` is the message; ``plain`` is what
    it would be if the weights' exponents were not squeezed, the bound's own assumption.
    """
    rows = []
    for before, now in pairwise([snapshots[0], *snapshots]):
        density = DENSITIES[now.round - 1]
        last = density not in DENSITIES[now.round :]
        if density not in SHOWN or not last:
            continue
        held = {"nothing": None, "the mask before": before.masks, "this mask": now.masks}
        for receiver, known in held.items():
            sent = communication.encode(
                communication.Update(now.params, now.masks), communication.make_context(now.params, known)
            )
            rows.append({"density": density, "receiver holds": receiver, **_row(now, known, sent)})
    return rows


def _row(now: RoundSnapshot, known, sent: bytes) -> dict:
    leaves = jax.tree.leaves(now.masks)
    kept, total = sum(int(leaf.sum()) for leaf in leaves), sum(leaf.size for leaf in leaves)
    bound = 4 * kept + entropy(now.masks, known) / 8
    mask_bytes = message.mask_part_size(sent)
    plain = FRAME + mask_bytes + 4 * kept
    return {
        "bound": round(bound),
        "ours": len(sent),
        "ours / bound": round(len(sent) / bound, 3),
        "plain / bound": round(plain / bound, 3),
        "mask, bound": round(entropy(now.masks, known) / 8),
        "mask, ours": mask_bytes,
        "dense float32": 4 * total,
        "values + bit mask": 4 * kept + -(-total // 8),
        "COO int32": 8 * kept,
    }


def entropy(masks, known=None) -> float:
    r"""Bits that a receiver lacks who knows how many weights each leaf keeps, and ``known``, which holds all of them.

    The sum over the leaves of :math:`log_2 {n \choose k}`, n being the leaf's size or what the known mask keeps of it:
    no code is shorter on average where all masks of those counts are as likely.
    """
    held = jax.tree.map(np.ones_like, masks) if known is None else known
    counts = [[np.count_nonzero(leaf) for leaf in jax.tree.leaves(tree)] for tree in (held, masks)]
    n, k = (np.array(column, float) for column in counts)
    return float((gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)).sum() / np.log(2))


def mask_codings(snapshots: list[RoundSnapshot]) -> list[dict]:
    """Whole masks by our code and by general compressors, in bytes."""
    rows = []
    for now in snapshots:
        if DENSITIES[now.round - 1] in SHOWN[1:]:
            leaves = [leaf.ravel() for leaf in jax.tree.leaves(now.masks)]
            packed = b"".join(map(mask_codec.pack_bits, leaves))
            rows.append(
                {
                    "density": DENSITIES[now.round - 1],
                    "entropy": round(entropy(now.masks) / 8),
                    "ours": sum(mask_codec.plan_coding(leaf).size for leaf in leaves),
                    "bit mask": len(packed),
                    "zlib -9 of it": len(zlib.compress(packed, 9)),
                    "bz2 of it": len(bz2.compress(packed)),
                    "lzma of it": len(lzma.compress(packed)),
                }
            )
    return rows


def lossy(now: RoundSnapshot) -> list[dict]:
    """Each member of ``VALUE_CODECS`` on one model: bytes, and the error of the worst leaf relative to its weights."""
    context = communication.make_context(now.params, now.masks)
    norm = lambda leaf: float(np.linalg.norm(leaf.astype(float)))
    kept, rows = sum(int(leaf.sum()) for leaf in jax.tree.leaves(now.masks)), []
    for values in communication.VALUE_CODECS:
        sent = communication.encode(communication.Update(now.params, now.masks), context, values=values)
        got = communication.decode(sent, context).params
        error = max(jax.tree.leaves(jax.tree.map(lambda a, w: norm(a - w) / (norm(w) or 1), got, now.params)))
        rows.append(
            {
                "values": values,
                "bytes": len(sent),
                "bits a weight": round(8 * len(sent) / kept, 2),
                "error of the worst leaf": f"{error:.1e}",
            }
        )
    return rows


if __name__ == "__main__":
    models = train()
    for rows in (sizes(models), mask_codings(models), lossy(models[DENSITIES.index(0.05)])):
        print(markdown_table(rows[0], [row.values() for row in rows]))

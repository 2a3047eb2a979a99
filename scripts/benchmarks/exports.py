"""Exported models: how large their files are, and what a prediction of one scan costs in a process of its own.

The models are sparse files in a folder, of which each says in its card which network it is. Where the folder has none,
the paper's network is trained and pruned as for docs/results/messages.md, and kept at 0 and 95 % sparsity. At 99 % that
short training loses whole layers. The third model is therefore the second one, of which every leaf has lost all but the
largest fifth of its weights.
"""

import functools
import gzip
import json
from pathlib import Path

import jax
import numpy as np

from benchmarks import message_sizes
from benchmarks.peers import play_peer, start_peer
from benchmarks.timing import Alternatives, Timing, temporary_folder
from fedsparse_jax import communication
from fedsparse_jax.core.files import write_whole
from fedsparse_jax.export import FORMATS, Network, read_sparse, sparse_bytes
from fedsparse_jax.models import CHAINS, MODELS
from fedsparse_jax.studies.export_run import dropped_channels

SCAN = (91, 109, 91)  # voxels at 2 mm
FROM = 0.05  # density of the trained model that is thinned to a fifth


def exports(folder: str) -> Alternatives:
    """One alternative for each model and format: a prediction, and beside it the bytes and the memory.

    Args:
        folder: of sparse files; made where there are none.
    """
    place, home = Path(folder), temporary_folder()
    if not any(place.glob("*.sparse")):
        _train(place)
    works: Alternatives = {}
    for file in sorted(place.glob("*.sparse")):
        network = _network(file)
        for how, format_ in FORMATS.items():
            written, log = home / f"{file.stem}.{how}", home / f"{file.stem} {how}"
            written.write_bytes(format_.write(network))
            log.mkdir()
            columns = {"bytes": written.stat().st_size, "gzip bytes": len(gzip.compress(written.read_bytes()))}
            if how == "sparse":
                update = communication.Update(network.params, network.masks)
                columns["message bytes"] = communication.message_size(update, communication.make_context(update.params))
            else:
                columns["channels left out"] = sum(dropped for dropped, _ in dropped_channels(network).values())
            process = start_peer("exported.py", how, [str(written), json.dumps([1, *network.shape])], log)
            works[log.name] = functools.partial(_play, log.name, process, log, columns)
    return works


def _play(name: str, process, log: Path, columns: dict) -> Timing:
    timing = play_peer(name, process, log)
    return timing._replace(columns={**columns, **timing.columns})


def _network(file: Path) -> Network:
    model = read_sparse(file)
    name, shape, options = (model.card[key] for key in ("network", "shape", "options"))
    apply, chain = MODELS[name](tuple(shape), **options).apply, CHAINS[name](tuple(shape), **options)
    return Network(apply, model.params, model.masks, (*shape, 1), model.card, chain)


def _train(place: Path) -> None:
    """The models of a training, which is many minutes of work."""
    for snapshot in message_sizes.train():
        density, model = message_sizes.DENSITIES[snapshot.round - 1], (snapshot.params, snapshot.masks)
        if density == 1:
            _keep(place / "00.sparse", *model)
        elif density == FROM:
            _keep(place / "95.sparse", *model)
            _keep(place / "99.sparse", *_thinned(*model, 0.01 / FROM))


def _thinned(params, masks, share: float):
    """The model with so large a share of the kept weights of each leaf, the largest ones."""

    def largest(weights, mask):
        places, kept = np.argsort(np.where(mask, -np.abs(weights), np.inf), axis=None, kind="stable"), int(mask.sum())
        chosen = np.zeros(mask.size, bool)
        chosen[places[: int(np.ceil(share * kept))]] = True
        return chosen.reshape(mask.shape)

    thinned = jax.tree.map(largest, params, masks)
    return jax.tree.map(lambda mask, w: np.where(mask, w, np.float32(0)), thinned, params), thinned


def _keep(file: Path, params, masks) -> None:
    card = {"network": "brain_age_cnn", "shape": list(SCAN), "options": {}}
    write_whole(file, sparse_bytes(params, masks, card))

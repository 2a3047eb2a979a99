"""The scans of a run on many hosts: each process reads those of its own clients, and no others.

Who is in which client follows from the tables, which every process reads. What is wrong with an image shows only when
it is read; the processes therefore tell one another which scans cannot be used, and divide the people anew without
them, until nothing more is found. So the federation is that of one process that reads everything.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from ml_collections import ConfigDict

from fedsparse_jax.config.build import federation_from_config
from fedsparse_jax.config.scans import cache_folder, ingest_scans, list_labelled, no_progress
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.image_sources import IMAGE_SOURCES
from fedsparse_jax.data.scan_cache import SAME_IMAGE, ScanSet
from fedsparse_jax.data.tables import Drop, Listing
from fedsparse_jax.data.volumes import count_channels
from fedsparse_jax.runs.host_link import HostLink
from fedsparse_jax.runs.hosts import rows_of_process


class OwnRows:
    """Some rows of an array; the others have places, and cannot be read.

    Args:
        inputs: ``[n, *shape]``, memory-mapped or not.
        rows: ``i64[n]``, which rows of the whole they are.
        count: of the whole.
    """

    def __init__(self, inputs, rows: np.ndarray, count: int):
        self._inputs, self._places = inputs, np.full(count, -1)
        self._places[rows] = np.arange(len(rows))
        self.shape, self.dtype, self.ndim = (count, *inputs.shape[1:]), inputs.dtype, inputs.ndim
        self.nbytes = inputs.nbytes
        self._mmap, self.mode = getattr(inputs, "_mmap", None), getattr(inputs, "mode", "")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index):
        rows, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        return self._inputs[(self._own(rows), *rest)]

    def take(self, index, axis=0, **_):
        """As NumPy's, along the first axis."""
        return np.take(self._inputs, self._own(index), axis=0)

    def _own(self, rows):
        places = self._places[rows]
        if np.any(places < 0):
            raise IndexError("these examples are read by another process")
        return places


def federation_on_hosts(link: HostLink | None) -> Callable[..., tuple[Federation, dict[str, int]]]:
    """`build.federation_from_config` for one of several processes; ``inputs`` hold its own clients' scans, and in
    process 0 those of validation and of the test set. Without a link it is that function itself.
    """
    if link is None:
        return federation_from_config

    def federate(
        config: ConfigDict, progress=no_progress, test=None, workdir: Path | None = None
    ) -> tuple[Federation, dict[str, int]]:
        if config.data.source in IMAGE_SOURCES:  # one file holds them all
            return link.after_first(lambda: federation_from_config(config, progress, test, workdir))
        shown = no_progress if link.index else progress
        with cache_folder(config.data.cache_dir) as cache:
            listing = link.after_first(lambda: list_labelled(config, cache, shown))
        shape = (*config.data.shape, count_channels(listing.scans))
        dropped: dict[int, Drop] = {}
        while True:
            kept = np.array([place for place in range(len(listing.scans)) if place not in dropped])
            drops = (*listing.dropped, *(dropped[place] for place in sorted(dropped)))
            scans = tuple(listing.scans[place] for place in kept)
            unread = ScanSet(np.broadcast_to(np.float32(0), (len(scans), *shape)), scans, (), drops, listing.notes)
            data, reasons = federation_from_config(config, shown, test, workdir, unread)
            rows = rows_of_process(data, link.index, link.count)
            part = _ingest(config, Listing(tuple(scans[row] for row in rows)), shown)
            found = _unusable(link, part, kept[rows], listing)
            if not found:
                return data._replace(inputs=cast(Any, OwnRows(part.inputs, rows, len(scans)))), reasons
            dropped |= found

    return federate


def _ingest(config: ConfigDict, listing: Listing, progress: Callable) -> ScanSet:
    return ingest_scans(config, lambda _: listing, progress)


def _unusable(link: HostLink, part: ScanSet, places: np.ndarray, listing: Listing) -> dict[int, Drop]:
    """What all processes find wrong with their scans, by place in the listing; images that are there twice only where
    nothing else is.
    """
    read = {id(scan) for scan in part.scans}
    refused = [int(place) for place in places if id(listing.scans[place]) not in read]
    images = [] if refused else [hashlib.sha256(volume.tobytes()).hexdigest() for volume in part.inputs]
    told = link.to_all([[[*pair] for pair in zip(refused, part.dropped, strict=True)], [*zip(places.tolist(), images)]])
    found = {place: Drop(*drop) for drops, _ in told for place, drop in drops}
    if found:
        return found
    first: dict[str, int] = {}
    for place, image in sorted((place, image) for _, own in told for place, image in own):
        if (before := first.setdefault(image, place)) != place:
            scan = listing.scans[before]
            found[place] = Drop(str(listing.scans[place].path), SAME_IMAGE, f"{scan.path.name}, of {scan.participant}")
    return found

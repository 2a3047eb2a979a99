"""Where scans come from: each source gives the `tables.Listing` of what there is, reading no image.

Training always goes through NIfTI files: the phantom is written to disk first and then read as any folder is.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data import bids, scan_tables, tables
from fedsparse_jax.data.phantom.cohort import write_cohort
from fedsparse_jax.data.table_files import expand_home


class ScanSource(NamedTuple):
    """A way to list scans, and whose keyword arguments a config may set as its options."""

    list_scans: Callable[..., tables.Listing]  # (root, cache, progress, **options)
    options_of: Callable


def list_phantom(root: str, cache: Path, progress: Callable, **options) -> tables.Listing:
    """The synthetic ageing brain, written once for its options.

    Args:
        root: where to write the BIDS folder; empty for a folder in the cache, named by the options.
        cache: the cache folder.
        progress: ``(items, description, total) -> items``.
        options: of `phantom.cohort.write_cohort`.
    """
    decisive = {key: value for key, value in options.items() if key != "workers"}
    name = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=list).encode()).hexdigest()[:12]
    folder = expand_home(root) if root else cache / f"phantom-{name}"
    return bids.read_bids(write_cohort(folder, progress=progress, **options))


def list_bids(root: str, cache: Path, progress: Callable, **options) -> tables.Listing:
    """A BIDS folder, raw or of derivatives. ``options`` are those of `bids.read_bids`."""
    return bids.read_bids(_given(root, "BIDS folder"), **options)


def list_table(root: str, cache: Path, progress: Callable, **options) -> tables.Listing:
    """A CSV, TSV or Excel file of paths, ids and ages. ``options`` are those of `scan_tables.read_table`."""
    table = _given(root, "CSV or TSV file")
    if table.is_dir():
        raise ArgumentError("root", root, "it is a folder; to read a BIDS folder set data.source to bids")
    return scan_tables.read_table(table, **options)


def _given(root: str, what: str) -> Path:
    if not root:
        raise ArgumentError("root", root, f"set it to the {what} to read")
    return expand_home(root)


SCAN_SOURCES: dict[str, ScanSource] = {
    "phantom": ScanSource(list_phantom, write_cohort),
    "bids": ScanSource(list_bids, bids.read_bids),
    "table": ScanSource(list_table, scan_tables.read_table),
}

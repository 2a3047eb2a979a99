"""Where scans come from: each source gives the `tables.Listing` of what there is, reading no image.

Training always goes through files: the phantom is written to disk first and then read as any folder is. Open cohorts
are sources of their own; each layout is a file in ``cohorts/``.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data import bids, scan_tables, tables
from fedsparse_jax.data.cohorts.abide import read_abide
from fedsparse_jax.data.cohorts.camcan import read_camcan
from fedsparse_jax.data.cohorts.cat12 import read_cat12
from fedsparse_jax.data.cohorts.freesurfer import read_freesurfer
from fedsparse_jax.data.cohorts.ixi import read_ixi
from fedsparse_jax.data.cohorts.oasis1 import read_oasis1
from fedsparse_jax.data.cohorts.openbhb import read_openbhb
from fedsparse_jax.data.cohorts.radiata import read_radiata
from fedsparse_jax.data.cohorts.scan_files import read_files
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


def list_cohort(read: Callable[..., tables.Listing], what: str) -> Callable[..., tables.Listing]:
    """The source of an open cohort or a layout: ``read`` of its folder, with its options."""

    def list_scans(root: str, cache: Path, progress: Callable, **options) -> tables.Listing:
        return read(_given(root, what), **options)

    return list_scans


def _given(root: str, what: str) -> Path:
    if not root:
        raise ArgumentError("root", root, f"set it to the {what} to read")
    return expand_home(root)


SCAN_SOURCES: dict[str, ScanSource] = {
    "phantom": ScanSource(list_phantom, write_cohort),
    "bids": ScanSource(list_bids, bids.read_bids),
    "table": ScanSource(list_table, scan_tables.read_table),
    "files": ScanSource(list_cohort(read_files, "folder of the scans, or the pattern"), read_files),
    "freesurfer": ScanSource(list_cohort(read_freesurfer, "SUBJECTS_DIR"), read_freesurfer),
    "cat12": ScanSource(list_cohort(read_cat12, "folder of the outputs"), read_cat12),
    "openbhb": ScanSource(list_cohort(read_openbhb, "folder of OpenBHB"), read_openbhb),
    "radiata": ScanSource(list_cohort(read_radiata, "folder of metadata.csv"), read_radiata),
    "ixi": ScanSource(list_cohort(read_ixi, "folder of IXI"), read_ixi),
    "oasis1": ScanSource(list_cohort(read_oasis1, "folder of OASIS-1"), read_oasis1),
    "abide": ScanSource(list_cohort(read_abide, "folder of ABIDE"), read_abide),
    "camcan": ScanSource(list_cohort(read_camcan, "folder of Cam-CAN"), read_camcan),
}

"""Where scans come from: each source gives the `tables.Listing` of what there is, reading no image.

Training always goes through NIfTI files: the phantom is written to disk first and then read as any folder is.
"""

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path

from fedsparse_jax.core.types import UsageError
from fedsparse_jax.data import bids, tables
from fedsparse_jax.data.phantom import cohort as phantom_writer


def with_options_of(function: Callable) -> Callable:
    """Gives a source's ``**options`` the names that ``function`` takes, so that a config can be checked."""
    theirs = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]

    def decorate(source: Callable) -> Callable:
        own = [p for p in inspect.signature(source).parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in own}
        new = [p for p in theirs if p.name not in names]
        source.__signature__ = inspect.Signature([*own, *new])  # type: ignore[attr-defined]
        return source

    return decorate


@with_options_of(phantom_writer.write_cohort)
def phantom(root: str, cache: Path, track: Callable, **options) -> tables.Listing:
    """The synthetic ageing brain, written once for its options.

    Args:
        root: where to write the BIDS folder; empty for a folder in the cache, named by the options.
        cache: the cache folder.
        track: progress, ``(items, description, total) -> items``.
        options: of `phantom.write_cohort`.
    """
    decisive = {key: value for key, value in options.items() if key != "workers"}
    name = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=list).encode()).hexdigest()[:12]
    folder = Path(root).expanduser() if root else cache / f"phantom-{name}"
    return bids.read_bids(phantom_writer.write_cohort(folder, track=track, **options))


@with_options_of(bids.read_bids)
def bids_folder(root: str, cache: Path, track: Callable, **options) -> tables.Listing:
    """A BIDS folder, raw or of derivatives. ``options`` are those of `bids.read_bids`."""
    return bids.read_bids(_given(root, "BIDS folder"), **options)


@with_options_of(tables.read_table)
def table(root: str, cache: Path, track: Callable, **options) -> tables.Listing:
    """A CSV or TSV file of paths, ids and ages. ``options`` are those of `tables.read_table`."""
    return tables.read_table(_given(root, "CSV or TSV file"), **options)


def _given(root: str, what: str) -> Path:
    if not root:
        raise UsageError(f"data.root is empty: set it to the {what} to read.")
    return Path(root).expanduser()


DATASETS: dict[str, Callable] = {
    "phantom": phantom,
    "bids": bids_folder,
    "table": table,
}

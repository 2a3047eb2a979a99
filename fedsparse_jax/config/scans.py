"""From a config to its scans: listed by the source, labelled, and brought into the cache that training reads."""

import contextlib
import errno
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from fedsparse_jax.config import checks
from fedsparse_jax.config.overrides import SUPPLIED_TO_SOURCES
from fedsparse_jax.config.registry import argument_path, bind_options, lookup
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data.labels import Label, with_labels
from fedsparse_jax.data.scan_cache import ScanSet, ingest
from fedsparse_jax.data.scan_sources import SCAN_SOURCES
from fedsparse_jax.data.tables import Listing
from fedsparse_jax.data.volumes import count_channels

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST)


def no_progress(items, description: str, total: int):
    """Progress for nobody: the items as they are."""
    return items


def read_scans(config: ConfigDict, progress=no_progress, *, trained: bool = False) -> ScanSet:
    """Lists the scans of ``config.data`` that have a label, and brings them into the cache, as `ingest_scans` does."""
    return ingest_scans(config, lambda cache: list_labelled(config, cache, progress), progress, trained=trained)


def list_labelled(config: ConfigDict, cache: Path, progress=no_progress) -> Listing:
    """The scans of ``config.data`` that have a label; no image is read."""
    label = label_from_config(config)
    listing = list_scans(config, cache, progress, need_age=label.is_age)
    with argument_path("data"):
        return with_labels(listing, label)


def list_scans(config: ConfigDict, cache: Path, progress=no_progress, *, need_age: bool = True) -> Listing:
    """What the source of ``config.data`` lists; no image is read.

    Args:
        config: of the scans.
        cache: the cache folder.
        progress: shown while a phantom is written.
        need_age: whether scans without an age are left out; a source that knows only such with ages does so anyway.
    """
    with argument_path("data.options", root="data.root"):
        return _list(config, cache, progress, need_age)


def refused_argument(config: ConfigDict, *, need_age: bool = True) -> ArgumentError | None:
    """The argument for which the source of ``config.data`` lists nothing; None where it lists, or else fails."""
    try:
        _list(config, Path(config.data.cache_dir), no_progress, need_age)
    except ArgumentError as error:
        return error
    except UsageError:
        pass
    return None


def _list(config: ConfigDict, cache: Path, progress: Callable, need_age: bool) -> Listing:
    data, source = config.data, lookup(SCAN_SOURCES, config.data.source, "data.source")
    readers = {name: one.list_scans for name, one in SCAN_SOURCES.items()}
    section = {"name": data.source, **data.options}
    listed = bind_options(readers, section, "data.options", *SUPPLIED_TO_SOURCES, options_of=source.options_of)
    may_lack = not need_age and "need_age" in inspect.signature(source.options_of).parameters
    return listed(root=data.root, cache=cache, progress=progress, **({"need_age": False} if may_lack else {}))


def options_of_source(source: str) -> set[str]:
    """The names of the options that a source takes."""
    known = inspect.signature(lookup(SCAN_SOURCES, source, "data.source").options_of).parameters
    return set(known) - set(SUPPLIED_TO_SOURCES)


def ingest_scans(
    config: ConfigDict, list_: Callable[[Path], Listing], progress=no_progress, *, trained: bool = False
) -> ScanSet:
    """Reads what ``list_(cache folder)`` lists, as ``config.data`` says: on its grid, aligned and normalised.

    ``trained`` says that the network is there already, so that its number of channels cannot be another.
    """
    data = config.data
    with cache_folder(data.cache_dir) as cache:
        listing = list_(cache)
        checks.check_channels(config, count_channels(listing.scans), "head", trained=trained)
        with argument_path("data"):
            return ingest(
                listing,
                shape=tuple(data.shape),
                align=data.align,
                normalise=data.normalise,
                cache_dir=cache,
                progress=progress,
                workers=data.workers,
            )


def label_from_config(config: ConfigDict) -> Label:
    """What is predicted of a scan."""
    return Label(config.data.label, config.task == "classification", tuple(config.data.classes))


@contextlib.contextmanager
def cache_folder(given: str) -> Iterator[Path]:
    """The folder of ``data.cache_dir``; where it cannot be made or written, the key is named."""
    place = f"data.cache_dir is {given!r}, "
    remedy = "set --config.data.cache_dir to a folder that you may write into"
    try:
        cache = Path(given).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{place}but nobody knows your home folder; {remedy}, or set HOME.") from error
    try:
        yield cache
    except OSError as error:
        refused = Path(error.filename or "")
        if error.errno not in NOT_WRITABLE or not (refused in cache.parents or cache in (refused, *refused.parents)):
            raise
        raise UsageError(f"{place}where nothing can be written ({refused}: {error.strerror}); {remedy}.") from error


def people_of_scans(scan_set: ScanSet) -> list[dict]:
    """Who each scan is of, as a row of predictions.tsv; and the cohort's own test set that the person is in, if any."""
    return [
        {"participant_id": scan.participant, "session": scan.session, "site": scan.site, "test_set": scan.test_set}
        for scan in scan_set.scans
    ]

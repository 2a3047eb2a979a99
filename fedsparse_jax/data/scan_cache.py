"""From a listing of scans to the one memory-mapped array that training reads.

Every image is read once. The cache is keyed by the content of the files (their size and first and last megabyte,
which hold the checksum of a compressed file; and, where that is not all of an uncompressed one, its date), by who
they are of, and by the options, so that nothing stale is ever trained on; it is written beside its final place and
moved there, so that there is never half a cache.
"""

import collections
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.files import forget_partial, partial_file, write_tsv, write_whole
from fedsparse_jax.data import nifti, registration, tables, templates, volumes
from fedsparse_jax.data.image_files import voxel_file
from fedsparse_jax.data.normalisation import NORMALISE

FORMAT = 4  # raise it when the cached numbers, or what is refused or warned of, would change
_EDGE = 2**20
SAME_IMAGE = "the same image as another scan's"
REGISTRATIONS = "registrations"  # folder within the cache: what was found of each scan


class ScanSet(NamedTuple):
    """What training reads."""

    inputs: np.ndarray  # f32[N, *shape, channels], memory-mapped
    scans: tuple[tables.Scan, ...]
    quality: tuple[nifti.Quality, ...]
    dropped: tuple[tables.Drop, ...]
    notes: tuple[str, ...]
    align: str = "affine"  # how they were brought onto the grid

    @property
    def volumes(self) -> np.ndarray:
        """The first channel, ``f32[N, *shape]``."""
        return self.inputs[..., 0]


def ingest(
    listing: tables.Listing,
    *,
    shape: tuple[int, int, int],
    align: str,
    normalise: str,
    cache_dir: Path,
    progress: Callable = lambda items, description, total: items,
    workers: int = 1,
) -> ScanSet:
    """Reads, checks, resamples and normalises every scan, or opens the cache where that has been done.

    Args:
        listing: from `bids.read_bids` or `scan_tables.read_table`.
        shape: voxels of the grid over the MNI box.
        align: a member of `nifti.ALIGN`, or ``register``.
        normalise: a member of `normalisation.NORMALISE`.
        cache_dir: folder of the caches; made if missing.
        progress: progress, ``(items, description, total) -> items``.
        workers: threads that read.

    Raises:
        UsageError: an unknown option, scans of unlike numbers of channels, or no scan that can be used (with counts by
            reason).
        OSError: the disk could not be read or written; nothing of it is remembered.
    """
    _check_options(shape, align, normalise)
    full = (*shape, volumes.count_channels(listing.scans))
    if full[-1] > 1 and align != "affine":
        raise ArgumentError(
            "align", align, "several channels must lie on one another; register them and set it to 'affine'"
        )
    paths = [scan.path for scan in listing.scans]
    key = _key(listing, paths, (tuple(shape), align, normalise))
    array, table = cache_dir / f"scans-{key}.npy", cache_dir / f"scans-{key}.json"
    if not (array.exists() and table.exists()):
        forget_partial(cache_dir)
        if align == nifti.REGISTER:
            forget_partial(cache_dir / REGISTRATIONS)
            registration.require_register()
            write_whole(cache_dir / REGISTRATIONS / "LICENCE.txt", f"{templates.NAME}\n\n{templates.LICENCE}\n")
        _write(listing, tuple(shape), align, normalise, array, table, progress, workers)
    return _open(listing, array, table, full, align)


def _check_options(shape, align: str, normalise: str) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise ArgumentError("shape", tuple(shape), "it needs three numbers of voxels")
    for key, value, known in (("align", align, (*nifti.ALIGN, nifti.REGISTER)), ("normalise", normalise, NORMALISE)):
        if value not in known:
            raise ArgumentError(key, value, f"it must be one of {', '.join(known)}")


def _key(listing: tables.Listing, paths: list[Path], options) -> str:
    total = hashlib.sha256(repr((FORMAT, options)).encode())
    for scan, path in zip(listing.scans, paths, strict=True):
        total.update(repr((scan.participant, scan.session, scan.age, scan.sex, scan.site)).encode())
        for part in (path, scan.mask, *scan.channels):
            total.update(_fingerprint(part) if part else b"-")
        if scan.grid or scan.num_channels > 1:
            total.update(repr((scan.grid, scan.volumes, len(scan.channels))).encode())
    return total.hexdigest()[:20]


def _fingerprint(path: Path) -> bytes:
    """See the top of this file; of a file that cannot be read, its name. A header counts with its voxels."""
    if path.suffix.lower() == ".hdr" and (voxels := voxel_file(path)):
        return hashlib.sha256(_fingerprint_of_one(path) + _fingerprint_of_one(voxels)).digest()
    return _fingerprint_of_one(path)


def _fingerprint_of_one(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        date = path.stat().st_mtime_ns if size > 2 * _EDGE and path.suffix != ".gz" else 0
        with open(path, "rb") as file:
            content = file.read(_EDGE)
            file.seek(max(size - _EDGE, 0))
            content += file.read(_EDGE)
    except OSError:
        return str(path).encode()
    return hashlib.sha256(f"{path.name}{size}{date}".encode() + content).digest()


def _write(listing, shape, align, normalise, array: Path, table: Path, progress, workers: int) -> None:
    """Streams the volumes to disk: one is in memory at a time (for each worker)."""
    kept: list[int] = []
    quality, dropped, refused = [], [], []
    kept_in = array.parent / REGISTRATIONS if align == nifti.REGISTER else None
    results = _prepare_all(listing.scans, shape, align, normalise, workers, kept_in)
    results = _without_repetitions(listing.scans, results)
    channels = volumes.count_channels(listing.scans)
    shape = (*shape, channels) if channels > 1 else shape
    with partial_file(array) as partial:
        written = np.lib.format.open_memmap(partial, "w+", np.float32, (len(listing.scans), *shape))
        _reserve(partial)
        doing = "Registering scans" if kept_in else "Reading scans"
        for i, prepared in enumerate(progress(results, doing, len(listing.scans))):
            if isinstance(prepared, tables.Drop):
                dropped.append(prepared._asdict())
                refused.append((i, prepared.what == str(listing.scans[i].mask)))
            else:
                written[len(kept)] = prepared[0].reshape(shape)
                scan_quality = prepared[1]
                quality.append(scan_quality._asdict())
                kept.append(i)
        if not kept:
            drops = [tables.Drop(**drop) for drop in dropped]
            sentence = f"None of the {len(listing.scans)} scans can be used ({tables.count_reasons(drops)})"
            raise tables.NothingLeft(sentence, [*drops, *listing.dropped])
        written.flush()
        del written
        _shrink(partial, len(kept), shape)
    write_whole(table, json.dumps({"kept": kept, "quality": quality, "dropped": dropped, "refused": refused}))


def _reserve(path: Path) -> None:
    """Takes the whole room on the disk at once: a full disk is an error here, and later a bus error."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path.parent)) from error


def _without_repetitions(scans, results: Iterable) -> Iterator:
    """The results, without an image that was there before: one person by two names could be in train and test."""
    seen: dict[bytes, tables.Scan] = {}
    for scan, prepared in zip(scans, results, strict=True):
        if not isinstance(prepared, tables.Drop):
            before = seen.setdefault(hashlib.sha256(prepared[0].tobytes()).digest(), scan)
            if before is not scan:
                also = f"{before.path.name}, of {before.participant}"
                prepared = tables.Drop(str(scan.path), SAME_IMAGE, also)
        yield prepared


def _shrink(path: Path, count: int, shape) -> None:
    """Cuts the array file to its first ``count`` volumes."""
    full = np.load(path, mmap_mode="r")
    if full.shape[0] == count:
        return
    shorter = path.with_name(path.name + ".short")
    target = np.lib.format.open_memmap(shorter, "w+", np.float32, (count, *shape))
    for i in range(count):
        target[i] = full[i]
    target.flush()
    os.replace(shorter, path)


def _prepare_all(scans, shape, align, normalise, workers: int, kept_in: Path | None) -> Iterator:
    def prepare(scan: tables.Scan):
        try:
            kept = kept_in / f"{_name_of_registration(scan)}.npz" if kept_in else None
            return volumes.prepare_channels(scan, shape, align, normalise, kept)
        except nifti.ScanError as error:
            _refuse_passing_error(error)
            return tables.Drop(str(error.path), error.reason, error.remedy)

    if workers <= 1:
        yield from map(prepare, scans)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(prepare, scans)


def _name_of_registration(scan: tables.Scan) -> str:
    """What the registration hangs on: the image, its mask, and how it is done."""
    parts = [_fingerprint(part) if part else b"-" for part in (scan.path, scan.mask)]
    how = repr((registration.REGISTRATION_RECIPE, scan.grid)).encode()
    return hashlib.sha256(b"".join([how, *parts])).hexdigest()[:20]


def _refuse_passing_error(error: nifti.ScanError) -> None:
    """Raises what went wrong with the machine and not with the image: tomorrow the same file may be read."""
    cause = error.__cause__
    if isinstance(cause, MemoryError):
        raise UsageError(f"The memory does not suffice to read {error.path}; lower data.workers, or free some memory.")
    if isinstance(cause, OSError) and cause.errno not in (None, errno.EACCES, errno.EPERM):
        raise OSError(cause.errno, cause.strerror, str(error.path)) from error


def _open(listing: tables.Listing, array: Path, table: Path, full: tuple[int, ...], align: str) -> ScanSet:
    stored = json.loads(table.read_text(encoding="utf-8"))
    quality = tuple(nifti.Quality(**_tuples(entry)) for entry in stored["quality"])
    refused = []
    for entry, (i, is_mask) in zip(stored["dropped"], stored["refused"], strict=True):
        path = listing.scans[i].mask if is_mask else listing.scans[i].path  # the files may have moved since
        refused.append(tables.Drop(**{**entry, "what": str(path)}))
    scans = tuple(listing.scans[i] for i in stored["kept"])
    notes = (*listing.notes, *([registration.NOTE] if align == nifti.REGISTER else []))
    inputs = np.load(array, mmap_mode="r").reshape(-1, *full)
    return ScanSet(inputs, scans, quality, (*listing.dropped, *refused), notes, align)


def _tuples(entry: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


ALIGNMENTS = {
    "affine": "affine: the headers are trusted, so the scans must be in MNI space",
    "rough": "rough: centre and spread of each brain matched to the template's; nothing is turned",
    "register": f"register: each scan registered to the {templates.NAME}",
}


def summarize_scans(scan_set: ScanSet) -> str:
    """What was accepted, what was dropped and why, and what to look at, as lines of text."""
    scans = scan_set.scans
    ages = np.array([scan.age for scan in scans])
    people = {scan.participant for scan in scans}
    sites = collections.Counter(scan.site for scan in scans)
    tested = collections.Counter(scan.test_set for scan in scans if scan.test_set)
    lines = [
        f"accepted  {len(scans)} scans of {len(people)} people",
        f"ages      {ages.mean():.1f} +- {ages.std():.1f} years, {ages.min():.1f} to {ages.max():.1f}",
        f"sexes     {_counts(collections.Counter(scan.sex for scan in scans))}",
        f"sites     {_counts(sites)}",
        f"grid      {' x '.join(map(str, scan_set.volumes.shape[1:]))} voxels over the MNI box",
        *([f"test sets {_counts(tested)}"] if tested else []),
        *([f"channels  {scan_set.inputs.shape[-1]} images of each head"] if scan_set.inputs.shape[-1] > 1 else []),
        f"align     {ALIGNMENTS[scan_set.align]}",
        f"files     {_counts(collections.Counter(describe_source(quality) for quality in scan_set.quality))}",
        f"dropped   {len(scan_set.dropped)}",
    ]
    reasons = collections.Counter(drop.reason for drop in scan_set.dropped)
    warnings = collections.Counter(warning for quality in scan_set.quality for warning in quality.warnings)
    lines += [f"  {count:5d}  {reason}" for reason, count in reasons.most_common()]
    lines += [f"warnings  {sum(warnings.values())}"] if warnings else []
    lines += [f"  {count:5d}  {warning}" for warning, count in warnings.most_common()]
    return "\n".join(lines + [f"note      {note}" for note in scan_set.notes])


def describe_source(quality: nifti.Quality) -> str:
    """Shape, voxel size and orientation of the file, in words."""
    zooms = " x ".join(f"{zoom:.3g}" for zoom in quality.zooms)
    return f"{' x '.join(map(str, quality.shape))} at {zooms} mm {quality.orientation}"


def _counts(counter: collections.Counter, most: int = 8) -> str:
    text = ", ".join(f"{name}: {count}" for name, count in counter.most_common(most))
    return text + (f", and {len(counter) - most} more" if len(counter) > most else "")


def write_tables(scan_set: ScanSet, folder: Path) -> None:
    """``accepted.tsv``, a row a scan with its quality, and ``dropped.tsv``, with reasons."""
    head = ("path", "participant_id", "session", "age", "sex", "site", *nifti.Quality._fields)
    rows = [
        (scan.path, scan.participant, scan.session or "n/a", scan.age, scan.sex, scan.site, *_cells(quality))
        for scan, quality in zip(scan_set.scans, scan_set.quality, strict=True)
    ]
    write_tsv(folder / "accepted.tsv", head, rows)
    write_tsv(folder / "dropped.tsv", tables.Drop._fields, scan_set.dropped)


def _cells(quality: nifti.Quality) -> list[str]:
    shape, zooms, orientation, *numbers, warnings = quality
    return [
        "x".join(map(str, shape)),
        "x".join(f"{zoom:.4g}" for zoom in zooms),
        orientation,
        *(f"{number:.4g}" if math.isfinite(number) else "n/a" for number in numbers),
        "; ".join(warnings) or "n/a",
    ]

"""What an image file is by its first bytes: links that lead nowhere, pages instead of images, headers that lie.

nibabel opens most of these without a word, and fails later, or not at all.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

from fedsparse_jax.core.errors import UsageError

ZIPPED = (".gz", ".mgz")
GZIP = b"\x1f\x8b"  # what a compressed file begins with
MGH = b"\0\0\0\x01"  # how FreeSurfer's volumes begin
MAX_TRAILER = 2**24  # bytes before or behind the voxels
HEADERS = ((348, 108, "f", 112, "f"), (540, 168, "q", 176, "d"))  # length, vox_offset and scl_slope of NIfTI-1 and -2
POINTERS = {
    b"version https://git-lfs": ("Git LFS pointer", "fetch it with 'git lfs pull'"),
    b"/annex/objects/": ("git-annex pointer", "fetch it with 'datalad get' or 'git annex get'"),
    b"<!doctype": ("web page", "download the image itself"),
    b"<html": ("web page", "download the image itself"),
}


class ScanError(UsageError):
    """One image cannot be used; ``reason`` is the same for all images that share it."""

    def __init__(self, path: Path, reason: str, remedy: str):
        self.path, self.reason, self.remedy = path, reason, remedy
        super().__init__(f"{path}: {reason}; {remedy}.")


def check_file(path: Path) -> list[str]:
    """What is odd about a file that may be an image, as warnings.

    Raises:
        ScanError: it is none, and why.
    """
    if path.is_symlink() and not path.exists():
        annexed = "annex" in str(path.readlink())
        remedy = "fetch it with 'datalad get'" if annexed else "restore what it points to"
        raise ScanError(path, "broken link", remedy)
    if not path.exists():
        raise ScanError(path, "no such file", "correct the path")
    if not path.is_file():
        raise ScanError(path, "not a file", "give the image itself")
    if path.suffix.lower() == ".hdr" and voxel_file(path) is None:
        raise ScanError(path, "no .img beside it", f"put {path.stem}.img, which holds the voxels, into its folder")
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ScanError(path, "cannot be opened", f"check its permissions ({short_text(error)})") from error
    if not start:
        raise ScanError(path, "empty file", "fetch it again")
    for mark, (reason, remedy) in POINTERS.items():
        if mark in start.lower():
            raise ScanError(path, reason, remedy)
    zipped = start[:2] == GZIP
    _check_name(path, zipped, start)
    return _check_header(path, _unzipped_start(path) if zipped else start, zipped)


def voxel_file(path: Path) -> Path | None:
    """The file that holds the voxels of a header file, as ``a.img`` those of ``a.hdr``; None where there is none."""
    return next((other for other in (path.with_suffix(".img"), path.with_suffix(".IMG")) if other.exists()), None)


def _check_name(path: Path, zipped: bool, start: bytes) -> None:
    """Refuses a name that promises compression where there is none, and the reverse."""
    named = path.name.lower().endswith(ZIPPED)
    if zipped and not named:
        raise ScanError(path, "name and content disagree", "the content is compressed: name it .gz")
    if named and not zipped:
        if not (_header_form(start) or start[:4] == MGH):
            raise ScanError(path, "neither compressed nor an image", "fetch it again")
        raise ScanError(path, "name and content disagree", "the content is not compressed: name it without .gz")


def _header_form(start: bytes) -> tuple[str, int, str, int, str] | None:
    """Of a NIfTI or Analyze header the byte order, and where and as what its vox_offset and its scl_slope stand."""
    for order in "<>":
        for size, at, kind, slope_at, slope_kind in HEADERS:
            if start[:4] == struct.pack(f"{order}i", size) and len(start) >= 184:
                return order, at, kind, slope_at, slope_kind
    return None


def _unzipped_start(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            start = file.read(352)
        if start[:2] == GZIP:
            raise ScanError(path, "compressed twice", "unpack it once (gunzip), and name what comes out .gz again")
        return start
    except (EOFError, OSError, zlib.error) as error:
        raise ScanError(path, "damaged compression", f"fetch it again ({short_text(error)})") from error


def _check_header(path: Path, head: bytes, zipped: bool) -> list[str]:
    """Refuses a compressed NIfTI file whose voxels begin far behind its header: nibabel would read all until there.

    A scale that is no number is warned of, because nibabel passes over it.
    """
    if not (form := _header_form(head)):
        return []
    order, at, kind, slope_at, slope_kind = form
    (offset,) = struct.unpack_from(order + kind, head, at)
    if zipped and not 0 <= offset <= MAX_TRAILER:  # a NaN is refused, too
        raise ScanError(path, "unreadable header", f"its voxels begin at byte {offset:.4g}; convert it again")
    (slope,) = struct.unpack_from(order + slope_kind, head, slope_at)
    is_nifti = head[344:346] in (b"n+", b"ni") or head[4:6] in (b"n+", b"ni")
    return [] if math.isfinite(slope) or not is_nifti else ["the scale in its header is no number; raw values used"]


def short_text(error: Exception) -> str:
    """What an error says, on one line of at most 80 characters."""
    return " ".join(str(error).split())[:80] or type(error).__name__

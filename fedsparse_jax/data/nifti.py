"""One image file to one clean volume: checked, in RAS, on the grid, normalised.

nibabel opens truncated, mislabelled and half-downloaded files without a word and fails, or does not fail, when
their data are used. Here everything that can be wrong with a file is found at ingest, and said in one sentence.
"""

import gzip
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from fedsparse_jax.core.files import MAX_INFLATION
from fedsparse_jax.data import registration, scan_checks
from fedsparse_jax.data.image_files import MAX_TRAILER, ZIPPED, ScanError, check_file, short_text
from fedsparse_jax.data.normalisation import NORMALISE
from fedsparse_jax.data.resampling import resample

FOV = (182.0, 218.0, 182.0)  # mm, the MNI152 box
CORNER = (-90.5, -126.5, -72.5)  # RAS mm, where the box begins
ORIGINS = {  # RAS mm of the first voxel's centre of FSL's grids; the 2 mm grid takes every second voxel of the other
    (182, 218, 182): (-91.0, -126.0, -72.0),
    (91, 109, 91): (-90.0, -126.0, -72.0),
}
TEMPLATE_CENTRE = (0.0, -24.0, 12.0)  # RAS mm, centre of the phantom's brain, which sits in that box
TEMPLATE_SPREAD = (30.5, 38.5, 28.5)  # mm, standard deviation of its voxels along each axis
MAX_BYTES = 2**31  # of one image, uncompressed
MIN_AXIS, MIN_FOV, MAX_FOV = 8, 80.0, 320.0
MOST_NOT_FINITE = 0.05  # share of voxels that are no numbers, from which it matters where they lie


class Quality(NamedTuple):
    """What a person should look at before they trust a scan."""

    shape: tuple[int, ...]  # of the file
    zooms: tuple[float, ...]  # mm
    orientation: str  # of the file, such as LAS
    nonzero: float  # share of voxels on the grid
    mean: float  # of the non-zero voxels on the grid, before normalisation
    std: float  # same
    litres: float  # of tissue, as the file holds it
    overlap: float  # Dice with the template's brain; of registered scans at 2 mm, else at 8 mm
    correlation: float  # with the template within its brain, likewise
    rotation: float  # degrees that the scan was turned by; nan where it was not registered
    scale: float  # of the template to fit the scan, likewise
    warnings: tuple[str, ...]


class Image(NamedTuple):
    """A checked image in RAS."""

    data: np.ndarray  # f32[X, Y, Z], finite
    affine: np.ndarray  # f64[4, 4], voxel to RAS mm
    shape: tuple[int, ...]
    zooms: tuple[float, ...]
    orientation: str
    warnings: tuple[str, ...]


# --- reading ------------------------------------------------------------------------------------


def load_image(path: str | Path, volume: int | None = None, volumes: int = 1) -> Image:
    """Reads and checks one image: the file's only volume, or ``volume`` of a file of so many ``volumes``.

    Raises:
        ScanError: it is no readable three-dimensional image of plausible size, orientation and content.
    """
    path = Path(path)
    odd = check_file(path)
    image = _open(path)
    _check_type(path, image)
    image = _squeeze(path, image, volumes if volume is not None else 1)
    affine, warnings = _affine(path, image)
    check_field_of_view(path, image.shape[:3], affine)
    data, more = clean_values(path, _values(path, _complete(path, image), volume))
    return in_ras(data, affine, (*odd, *warnings, *more))


def in_ras(data: np.ndarray, affine: np.ndarray, warnings: tuple[str, ...] = ()) -> Image:
    """Checked values ``f32[X, Y, Z]`` with their axes turned to RAS."""
    orientation = "".join(str(code) for code in nib.aff2axcodes(affine))
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    zooms = tuple(float(z) for z in nib.affines.voxel_sizes(affine))
    values = np.ascontiguousarray(canonical.dataobj, np.float32)
    return Image(values, canonical.affine, data.shape, zooms, orientation, warnings)


def _open(path: Path):
    try:
        return nib.load(path)
    except Exception as error:  # nibabel raises many types for a bad header
        raise ScanError(path, "unreadable header", f"fetch or convert it again ({short_text(error)})") from error


def _check_type(path: Path, image) -> None:
    if not isinstance(image, nib.Nifti1Pair | nib.MGHImage | nib.AnalyzeImage) or isinstance(image, nib.Cifti2Image):
        raise ScanError(path, f"a {type(image).__name__}, not a NIfTI volume", "convert it to NIfTI")
    kind = np.dtype(image.get_data_dtype()).kind
    if kind not in "iuf":
        reason = {"c": "complex image", "V": "colour image"}.get(kind, "no numeric image")
        raise ScanError(path, reason, "give the magnitude in grey levels")


def _squeeze(path: Path, image, volumes: int = 1):
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if volumes > 1 and shape[3:] != (volumes,):
        raise ScanError(path, f"not {volumes} volumes", f"its shape is {shape}; ask for as many volumes as there are")
    if volumes == 1 and len(shape) != 3:
        raise ScanError(path, f"{len(shape)}D image", "give one three-dimensional T1-weighted image")
    size = math.prod(shape) * max(4, np.dtype(image.get_data_dtype()).itemsize)  # in the file, and as float32
    most = path.stat().st_size * MAX_INFLATION
    if size > MAX_BYTES or (path.name.lower().endswith(ZIPPED) and _end_of_data(image) > most):
        raise ScanError(path, "implausible size", f"its header claims {size / 2**20:,.0f} MiB; fetch it again")
    return image


def _end_of_data(image) -> int:
    """Bytes of the header and the voxels."""
    return image.dataobj.offset + math.prod(image.shape) * np.dtype(image.get_data_dtype()).itemsize


def _affine(path: Path, image) -> tuple[np.ndarray, list[str]]:
    affine, warnings = np.array(image.affine, float), []
    header = image.header
    old = isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair)
    if old and not path.with_suffix(".mat").exists():  # where SPM keeps what Analyze cannot say
        warnings.append("no orientation in the header")
    if isinstance(image, nib.Nifti1Pair):
        unit = header.get_xyzt_units()[0]
        affine[:3] *= {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)
        if unit in ("meter", "micron"):
            warnings.append(f"units are {unit}, converted to mm")
        qform, q = header.get_qform(coded=True)
        sform, s = header.get_sform(coded=True)
        if not q and not s:
            warnings.append("no orientation in the header")
        elif q and s and not np.allclose(qform, sform, atol=0.5):
            warnings.append("qform and sform disagree; sform used")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ScanError(path, "broken orientation", "its affine has no inverse; convert it again")
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 0.01:
        warnings.append("sheared axes")
    return affine, warnings


def check_field_of_view(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Refuses a slice or two, and a field of view that no head has."""
    if min(shape) < MIN_AXIS:
        raise ScanError(path, "too few slices", f"every axis needs at least {MIN_AXIS} voxels, not {shape}")
    extent = nib.affines.voxel_sizes(affine) * shape
    if extent.min() < MIN_FOV or extent.max() > MAX_FOV:
        size = " x ".join(f"{side:.0f}" for side in extent)
        remedy = f"it spans {size} mm, a head {MIN_FOV:.0f} to {MAX_FOV:.0f} mm; mend the voxel size in its header"
        raise ScanError(path, "implausible field of view", remedy)


def _complete(path: Path, image):
    """The image with all of its bytes read, and the checksum of a compressed file verified."""
    if path.name.lower().endswith(ZIPPED):
        try:
            with gzip.open(path) as file:
                content = file.read(_end_of_data(image) + MAX_TRAILER)
                more = file.read(1)
            if not more:
                return type(image).from_bytes(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ScanError(path, "damaged compression", f"fetch it again ({short_text(error)})") from error
        except Exception as error:
            raise ScanError(path, "unreadable data", f"fetch it again ({short_text(error)})") from error
        raise ScanError(path, "implausible size", "it holds far more than its header claims; fetch it again")
    return image


def _values(path: Path, image, volume: int | None = None) -> np.ndarray:
    try:
        proxy = image.dataobj if volume is None else image.dataobj[:, :, :, volume]
        return np.asarray(proxy, np.float32).reshape(image.shape[:3])
    except Exception as error:  # truncated data, a missing .img, ...
        raise ScanError(path, "unreadable data", f"fetch it again ({short_text(error)})") from error


def clean_values(path: Path, data: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Values ``f32[X, Y, Z]`` that are finite and plausible, and what had to be done to them.

    Raises:
        ScanError: they cannot be those of a T1-weighted image.
    """
    warnings = []
    finite = np.isfinite(data)
    if not finite.any():
        raise ScanError(path, "no finite voxel", "convert it again")
    if _is_head(~finite):
        raise ScanError(path, "voxels inside the head are no numbers", "convert it again")
    if not finite.all():
        warnings.append("voxels that are not numbers were set to 0")
        data = np.where(finite, data, 0).astype(np.float32)
    if data.max() == data.min():
        raise ScanError(path, "constant image", "there is nothing to see in it; convert it again")
    if (data < 0).sum() > 0.2 * (data != 0).sum():
        raise ScanError(path, "many negative values", "it may be a CT or a statistical map; give a T1-weighted MRI")
    return _without_spikes(data, warnings), warnings


def _is_head(voxels: np.ndarray) -> bool:
    """Whether so many voxels, and so few of them at the sides of the image, are those of the head."""
    inner = (slice(1, -1),) * 3
    at_the_sides = (voxels.sum() - voxels[inner].sum()) / max(voxels.size - voxels[inner].size, 1)
    return bool(voxels.mean() > MOST_NOT_FINITE and at_the_sides < voxels.mean() / 2)


def _without_spikes(data: np.ndarray, warnings: list[str]) -> np.ndarray:
    """Clips single absurd voxels, which would squeeze everything else into a narrow range."""
    positive = data[data > 0]
    for percent in (99.9, 99.0):  # a few, or up to a hundredth of them all
        bright = np.percentile(positive, percent) if positive.size else np.inf
        if data.max() > 20 * bright:
            warnings.append("absurdly bright voxels were clipped")
            return np.minimum(data, np.float32(2 * bright))
    return data


# --- onto the grid ------------------------------------------------------------------------------


def grid_affine(shape) -> np.ndarray:
    """RAS affine, ``f64[4, 4]``, of a grid of ``shape`` voxels over the MNI152 box.

    182x218x182 and 91x109x91 are the 1 mm and the 2 mm grid of FSL, whose boxes lie half a millimetre apart. A grid of
    any other shape fills the box from ``CORNER`` on.
    """
    voxel = np.array(FOV) / shape
    affine = np.diag([*voxel, 1.0])
    affine[:3, 3] = ORIGINS.get(tuple(shape), np.array(CORNER) + 0.5 * voxel)
    return affine


def to_grid(data: np.ndarray, affine: np.ndarray, shape, *, align: str = "affine", move=None) -> np.ndarray:
    """Resamples a volume in RAS onto the grid, linearly; outside the field of view it is 0.

    Where the grid is coarser than the volume, a Gaussian goes first whose width (FWHM) makes up the difference in
    quadrature. A volume that is on the grid already is returned as it is.

    Args:
        data: ``f32[X, Y, Z]``.
        affine: ``f64[4, 4]``, voxel to RAS mm.
        shape: of the grid.
        align: a member of ``ALIGN``.
        move: ``f64[4, 4]``, template mm to scan mm, instead of ``align``.
    """
    target = grid_affine(shape)
    if move is None and align == "affine" and data.shape == tuple(shape) and _is_grid(affine, target):
        return data.astype(np.float32)
    move = ALIGN[align](data, affine) if move is None else move
    to_voxel = np.linalg.inv(affine) @ move @ target
    return resample(data, to_voxel, shape)


def _is_grid(affine: np.ndarray, target: np.ndarray) -> bool:
    same_axes = np.allclose(affine[:3, :3], target[:3, :3], atol=1e-3)
    return same_axes and np.abs(affine[:3, 3] - target[:3, 3]).max() < 0.01


def by_affine(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Trusts the header: the scan is registered to MNI space."""
    return np.eye(4)


def roughly(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Template mm to scan mm: centre of mass and spread of the brain along each axis matched to the template's.

    A fallback for skull-stripped scans when no registration tool is at hand; it neither rotates nor warps.
    """
    where = np.argwhere(data > 0.1 * np.percentile(data[data > 0], 90))
    world = where[:: max(1, len(where) // 200_000)] @ affine[:3, :3].T + affine[:3, 3]
    scale = world.std(0) / TEMPLATE_SPREAD
    move = np.diag([*scale, 1.0])
    move[:3, 3] = world.mean(0) - scale * TEMPLATE_CENTRE
    return move


ALIGN: dict[str, Callable] = {"affine": by_affine, "rough": roughly}
REGISTER = "register"  # the further way to align: see `registration`


# --- intensities --------------------------------------------------------------------------------


def prepare_scan(
    path: Path,
    mask: Path | None,
    shape,
    align: str,
    normalise: str,
    load: Callable[[Path], Image] = load_image,
    kept: Path | None = None,
) -> tuple[np.ndarray, Quality]:
    """File to ``f32[*shape]`` as training sees it, and what a person should know about it.

    Args:
        path: the image.
        mask: of the brain, or None.
        shape: of the grid.
        align: a member of ``ALIGN``, or ``REGISTER``.
        normalise: a member of ``NORMALISE``.
        kept: file in which the registration of this scan is kept from one time to the next.

    Raises:
        ScanError: the file cannot be used, or nothing of it falls onto the grid.
    """
    image = load(path)
    data, warnings = image.data, list(image.warnings)
    if mask is not None:
        data = np.where(_same_grid(mask, image), data, 0).astype(np.float32)
    if not (data > 0).any():
        raise ScanError(path, "nothing positive", "a T1-weighted image has positive intensities; convert it again")
    bright = scan_checks.tissue(data)
    litres, stripped = scan_checks.litres_of(bright, image.affine), align != REGISTER
    tissue_map = scan_checks.is_tissue_map(path.name)  # of which the checks of T1-weighted images say nothing
    if not tissue_map and scan_checks.is_flat(data, bright):
        raise ScanError(path, *scan_checks.MASK)
    warnings += [] if tissue_map else scan_checks.check_extent(bright, image.affine, litres, stripped=stripped)
    if align == REGISTER:
        volume, figures, more = _registered(path, data, image.affine, shape, kept)
    else:
        volume, figures, more = _aligned(data, image.affine, shape, align, bright, litres, tissue_map)
    brain = volume[volume != 0]
    if brain.size == 0:
        raise ScanError(path, "off the grid", "it does not overlap the MNI box; register it, or align it by 'rough'")
    if brain.std() == 0:
        raise ScanError(path, *scan_checks.MASK)
    quality = Quality(
        shape=image.shape,
        zooms=image.zooms,
        orientation=image.orientation,
        nonzero=brain.size / volume.size,
        mean=float(brain.mean()),
        std=float(brain.std()),
        litres=litres,
        **figures,
        warnings=(*warnings, *more),
    )
    return NORMALISE[normalise](volume).astype(np.float32), quality


def _registered(path, data, affine, shape, kept: Path | None) -> tuple[np.ndarray, dict[str, float], list[str]]:
    """The brain on the grid, how well it lies, and warnings."""
    try:
        found = registration.register_once(data, affine, kept) if kept else registration.register(data, affine)
    except RuntimeError as error:  # SimpleITK's
        remedy = f"it may be no head; look at it, or leave it out ({short_text(error)})"
        raise ScanError(path, "cannot be registered", remedy) from error
    volume = to_grid(found.unbias(data, affine), affine, shape, move=found.move)
    brain = registration.brain_on_grid(grid_affine(shape), shape, found.head)
    return np.where(brain, volume, 0), found.figures, found.warnings()


def _aligned(data, affine, shape, align, bright, litres, tissue_map) -> tuple[np.ndarray, dict[str, float], list[str]]:
    """The same of a scan that is not registered here."""
    volume, grid, warnings = to_grid(data, affine, shape, align=align), grid_affine(shape), []
    fit = scan_checks.fit_to_template(volume, grid)
    if litres <= scan_checks.HEAD_LITRES:  # a head's place and looks say nothing of its brain's
        share = volume.sum() * math.prod(FOV) / volume.size / (data.sum() * abs(np.linalg.det(affine[:3, :3])))
        if align == "affine":
            warnings += scan_checks.check_position(bright, affine, share, None if tissue_map else fit.overlap)
        warnings += [] if tissue_map else scan_checks.check_looks(volume, grid)
    return volume, {**fit._asdict(), "rotation": math.nan, "scale": math.nan}, warnings


def _same_grid(mask: Path, image: Image) -> np.ndarray:
    loaded = load_image(mask)
    if loaded.data.shape != image.data.shape or not np.allclose(loaded.affine, image.affine, atol=1e-3):
        raise ScanError(mask, "mask on another grid", f"it must have the image's shape {image.data.shape} and affine")
    return loaded.data > 0.5

"""Raw scans to the template, whole heads and stripped brains alike: bias corrected, turned, scaled, and stripped.

1. The scan goes onto even grids of 2, 4 and 8 mm.
2. N4 (Tustison et al., IEEE TMI 2010) takes out the slow change of brightness across the head.
3. `pose_search` finds the brain, however the header says that it lies; the three best places are refined as
   similarities (7 parameters), and the best of them as an affine (12), by Mattes' mutual information at 4 and at 2 mm.
4. What lies outside the template's brain and a few millimetres around it is taken away.

SimpleITK computes 2 and 3. Each scan takes one thread and a fixed seed, so that results do not hang on how many scans
are worked on at a time. What was found is kept for each scan, so that a stopped command goes on where it was.
"""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import partial_file, read_npz
from fedsparse_jax.data.coarse_brain import BRAIN_CENTRE
from fedsparse_jax.data.pose_search import Pose, search_poses
from fedsparse_jax.data.resampling import halve, resample, resample_evenly
from fedsparse_jax.data.scan_checks import INVERTED_CONTRAST, dice, pearson
from fedsparse_jax.data.templates import FIT, NAME, NO_EXTRA, Template, load_template

REGISTRATION_RECIPE = 1  # raise it when the same scan would be registered otherwise
STARTS = 3  # places that are refined
TURNED_FAR = "turned by more than 45 degrees: the header may be wrong, and then left may be right"
NOTE = f"registered to the {NAME}, whose licence stands beside the registrations in the cache"
BINS = 32  # of the joint histogram
RIM_VOXELS = {True: 1, False: 2}  # voxels of 2 mm around the template's brain that a head, and a stripped brain, keep
SKULL = 0.25  # of the tissue, outside the brain: more is a head
N4_ITERATIONS = (30, 30, 20)  # at control points that grow denser
MIN_OVERLAP, MIN_CORRELATION, MAX_ROTATION, LIKELY_SCALES = 0.88, 0.2, 45.0, (0.75, 1.35)


class Registration(NamedTuple):
    """What is kept of one scan."""

    move: np.ndarray  # f64[4, 4], template mm to scan mm
    log_bias: np.ndarray  # f32[X, Y, Z]: the scan is to be divided by its exponential
    bias_affine: np.ndarray  # f64[4, 4], voxel of it to scan mm
    head: bool  # the skull is there
    overlap: float  # Dice of the scan's brain with the template's, at 2 mm
    correlation: float  # with the template, within its brain, at 2 mm
    rotation: float  # degrees
    scale: float  # of the template, to fit the scan; the cube root of the change of volume

    @property
    def figures(self) -> dict[str, float]:
        """The last four, by name."""
        return {name: getattr(self, name) for name in ("overlap", "correlation", "rotation", "scale")}

    def unbias(self, data: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """The scan without its bias."""
        to_voxel = np.linalg.inv(self.bias_affine) @ affine
        field = ndimage.affine_transform(
            self.log_bias, to_voxel[:3, :3], to_voxel[:3, 3], output_shape=data.shape, order=1, mode="nearest"
        )
        return (data / np.exp(field)).astype(np.float32)

    def warnings(self) -> list[str]:
        """What a person should look at."""
        scales = np.linalg.svd(self.move[:3, :3], compute_uv=False)
        smallest, largest = LIKELY_SCALES
        doubts = {
            f"registration in doubt: overlap below {MIN_OVERLAP}": self.overlap < MIN_OVERLAP,
            f"registration in doubt: correlation below {MIN_CORRELATION}": 0 <= self.correlation < MIN_CORRELATION,
            INVERTED_CONTRAST: self.correlation < 0,
            "registration in doubt: an unlikely size": scales.min() < smallest or scales.max() > largest,
            TURNED_FAR: self.rotation > MAX_ROTATION,
        }
        return [warning for warning, holds in doubts.items() if holds]


def require_register() -> Any:
    """SimpleITK.

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise UsageError(NO_EXTRA) from error
    load_template()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # sums by several threads differ in their last digits
    return SimpleITK


def register(data: np.ndarray, affine: np.ndarray) -> Registration:
    """Registers one scan.

    Args:
        data: ``f32[X, Y, Z]`` in RAS order.
        affine: ``f64[4, 4]``, voxel to RAS mm.

    Raises:
        UsageError: the extra is not installed.
    """
    require_register()
    even, grid = resample_evenly(np.maximum(data, 0), affine, 2.0, FIT)
    log_bias, bias_affine = _log_bias(*halve(even, grid))
    kept = Registration(np.eye(4), log_bias, bias_affine, False, 0, 0, 0, 0)
    levels = [(kept.unbias(even, grid), grid)]
    for _ in range(2):
        levels.append(halve(*levels[-1]))
    fine, middle, coarse = levels
    refined = [_refine_similarity(pose, middle) for pose in search_poses(*coarse)[:STARTS]]
    _, start = min(refined, key=lambda result: result[0])
    move = _refine_affine(start, fine, middle)
    return kept._replace(move=move, **_figures(move, *fine))


def _log_bias(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N4's field of a scan at 4 mm, kept at 8 mm."""
    itk = require_register()
    bright = data > 0.1 * np.percentile(data[data > 0], 95)
    n4 = itk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations(N4_ITERATIONS)
    n4.Execute(_image(data, affine), _image(bright.astype(np.uint8), affine))
    field = itk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(_image(data, affine))).T
    return halve(field.astype(np.float32), affine)


def _image(data: np.ndarray, affine: np.ndarray):
    """As SimpleITK holds it; its millimetres are those of the affine, whatever it calls them."""
    image = require_register().GetImageFromArray(np.ascontiguousarray(data.T))
    image.SetSpacing([float(step) for step in np.diag(affine)[:3]])
    image.SetOrigin([float(place) for place in affine[:3, 3]])
    return image


@functools.cache
def _targets() -> dict[int, tuple[Any, Any]]:
    """The template and the region in which it is compared, at 4 and at 2 mm."""
    template = load_template()
    intensity, at_4 = halve(template.intensity, template.affine)
    inside = halve(template.inside.astype(np.float32), template.affine)[0] > 0.5
    wide = lambda mask, margin: ndimage.binary_dilation(mask, iterations=margin).astype(np.uint8)
    return {
        4: (_image(intensity, at_4), _image(wide(inside, 1), at_4)),
        2: (_image(template.intensity, template.affine), _image(wide(template.inside, 2), template.affine)),
    }


def _moving(data: np.ndarray, affine: np.ndarray):
    return _image(np.minimum(data, np.percentile(data[data > 0.05 * data.max()], 99.5)), affine)


def _method(transform, before: np.ndarray, step: float, smallest: float, iterations: int):
    """A registration that changes ``transform``, behind which the scan is moved by ``before``."""
    itk = require_register()
    method = itk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        step, smallest, iterations, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetMovingInitialTransform(_transform(before))
    method.SetInitialTransform(transform, inPlace=True)
    return method


def _transform(move: np.ndarray):
    transform = require_register().AffineTransform(3)
    transform.SetMatrix(move[:3, :3].ravel().tolist())
    transform.SetTranslation(move[:3, 3].tolist())
    return transform


def _matrix(transform) -> np.ndarray:
    move, centre = np.eye(4), np.array(transform.GetCenter())
    move[:3, :3] = np.array(transform.GetMatrix()).reshape(3, 3)
    move[:3, 3] = centre + transform.GetTranslation() - move[:3, :3] @ centre
    return move


def _refine_similarity(pose: Pose, middle) -> tuple[float, np.ndarray]:
    """Minus the mutual information that a place reaches at 4 mm, and the refined move."""
    similarity = require_register().Similarity3DTransform()
    similarity.SetCenter(BRAIN_CENTRE)
    method = _method(similarity, pose.move, step=4.0, smallest=0.1, iterations=60)
    target, region = _targets()[4]
    method.SetMetricFixedMask(region)
    method.Execute(target, _moving(*middle))
    return method.GetMetricValue(), pose.move @ _matrix(similarity)


def _refine_affine(start: np.ndarray, fine, middle) -> np.ndarray:
    """The move with 12 parameters: at 4 mm, then at 2 mm on every fifth voxel."""
    affine = require_register().AffineTransform(3)
    affine.SetCenter(BRAIN_CENTRE)
    for spacing, level, step, iterations in ((4, middle, 1.0, 80), (2, fine, 0.5, 40)):
        method = _method(affine, start, step=step, smallest=0.02, iterations=iterations)
        if spacing == 2:
            method.SetMetricSamplingStrategy(method.REGULAR)
            method.SetMetricSamplingPercentage(0.2, seed=1)
        target, region = _targets()[spacing]
        method.SetMetricFixedMask(region)
        method.Execute(target, _moving(*level))
    return start @ _matrix(affine)


def _figures(move: np.ndarray, even: np.ndarray, grid: np.ndarray) -> dict[str, Any]:
    """Whether it is a head, and how well it lies."""
    template = load_template()
    moved = resample(even, np.linalg.inv(grid) @ move @ template.affine, template.inside.shape)
    bright = moved > 0.15 * np.percentile(moved[template.inside], 90)
    near = ndimage.binary_dilation(template.inside, iterations=RIM_VOXELS[False])
    head = bool((bright & ~near).sum() > SKULL * bright.sum())
    left, sizes, right = np.linalg.svd(move[:3, :3])
    turned = np.clip((np.trace(left @ right) - 1) / 2, -1, 1)
    return {
        "head": head,
        "overlap": dice(bright & near if head else bright, template.inside),
        "correlation": pearson(moved[template.inside], template.intensity[template.inside]),
        "rotation": math.degrees(math.acos(turned)),
        "scale": float(np.prod(sizes) ** (1 / 3)),
    }


def brain_on_grid(affine: np.ndarray, shape: tuple[int, int, int], head: bool) -> np.ndarray:
    """What is kept of a registered scan on a grid in the template's space, ``bool[*shape]``."""
    template: Template = load_template()
    near = ndimage.binary_dilation(template.inside, iterations=RIM_VOXELS[head]).astype(np.float32)
    return resample(near, np.linalg.inv(template.affine) @ affine, shape) > 0.5


def register_once(data: np.ndarray, affine: np.ndarray, file: Path) -> Registration:
    """`register`, or what ``file`` holds of an earlier time; a damaged file is made anew."""
    try:
        stored = read_npz(file)
        return Registration(**{name: _plain(stored[name]) for name in Registration._fields})
    except (FileNotFoundError, UsageError, KeyError):
        found = register(data, affine)
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in found._asdict().items()}
    with partial_file(file) as partial, open(partial, "wb") as stream:
        np.savez(stream, **arrays)
    return found


def _plain(value: np.ndarray) -> Any:
    return value if value.ndim else value.item()

"""What can be told of a scan without registering it, in words: a mask, a whole head, upside down, cut off, no brain.

The checks see 8 mm at a time and compare with the coarse brain that the package brings with it. They find gross errors.
Left and right are not among them: a mirrored brain looks like a brain, and no check here can tell.

The limits were set on the 16 brains of ds002748, on Colin 27, on phantoms of three sizes, and on each of them turned,
inverted or cut; and on boxes, balls and noise. The outermost slice with tissue of those brains has at most .10 of what
the largest has (2 mm, limit .26), and of phantoms .32 (11 mm, limit .54); of a brain that is cut 15 mm below its top,
behind, or at a side it has .3 and more. A brain that is cut at its narrow bottom is told by where it ends.
"""

import re
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from fedsparse_jax.data.coarse_brain import (
    BRAIN_CENTRE,
    BRAIN_ENDS,
    BRAIN_ENDS_SHARE,
    about_centre,
    load_coarse_brain,
    onto_coarse_brain,
    orientations,
    turned_brains,
    unit_rows,
)

BRAIN_LITRES = (0.9, 1.9)
HEAD_LITRES = 2.3  # brains scaled to the template may have a little more than others; heads have 3 and more
MAX_OFF = 15.0  # mm from the template's centre
MAX_OUTSIDE = 0.05  # of the scan's intensity
FLAT = 0.8  # share of neighbouring voxels of equal value, from which an image is a mask or a map of labels
FEW = 0.02  # of the largest slice's tissue: slices with less are specks around a scan
CUT_SHARE, CUT_SHARE_MM = 0.2, 0.03  # of the largest slice's tissue, in the outermost one, and more for each mm of it
MAX_SHORT = 14.0  # mm: the ends of brains in MNI space are up to 2.1 short of the template's, of phantoms up to 11.2
LEAST_OVERLAP = 0.82  # brains in MNI space have .925 and more, roughly aligned ones .905, phantoms .852
LIKE_A_BRAIN = 0.87  # correlation with the template, moved onto the scan: brains have .88 to .95, a box .86
TURNED = (0.88, 0.04)  # the correlation of another orientation, and by how much it is above that of this one
INVERTED = -0.12  # correlation within the brain: brains have .10 to .35, phantoms -.07 to .05, inverted ones -.13
SIDES = (("left", "right"), ("back", "front"), ("bottom", "top"))
INVERTED_CONTRAST = "dark where a T1-weighted image is bright; give a T1-weighted image"
MASK = "a mask, not an image", "its tissue has one value, or few; give the image that it was made from"
REMEDY = "register it (data.align=register)"


# Maps of a tissue, by the names that CAT12, SPM, OpenBHB and BIDS give them: no head, and no T1-weighted image.
TISSUE_MAP = re.compile(r"^(s?m?w?p[1-6]|s?m?wc[1-6]|s?wj)|cat12vbm|_probseg|_label-(GM|WM|CSF)")


def is_tissue_map(name: str) -> bool:
    """Whether a file's name says that it is a map of a tissue.

    >>> is_tissue_map("mwp1sub-01_T1w.nii"), is_tissue_map("wmsub-01.nii"), is_tissue_map("sub-01_T1w.nii.gz")
    (True, False, False)
    """
    return bool(TISSUE_MAP.search(name))


class TemplateFit(NamedTuple):
    """How a volume compares with the template where it lies."""

    overlap: float  # Dice of what is bright with the template's brain
    correlation: float  # of the intensities within the template's brain


def tissue(data: np.ndarray) -> np.ndarray:
    """Which voxels are brighter than a tenth of the bright ones, ``bool[X, Y, Z]``."""
    return data > 0.1 * np.percentile(data[data > 0], 90)


def litres_of(bright: np.ndarray, affine: np.ndarray) -> float:
    """Volume of the voxels that are true."""
    return float(bright.sum() * abs(np.linalg.det(affine[:3, :3])) / 1e6)


def is_flat(data: np.ndarray, bright: np.ndarray) -> bool:
    """Whether voxels of ``bright`` have the values of their neighbours: those of a mask do, and those of labels."""
    equal = pairs = 0
    for axis in range(3):
        here, there = (np.s_[:,] * axis + (part,) for part in (np.s_[1:], np.s_[:-1]))
        both = bright[here] & bright[there]
        equal += int((both & (data[here] == data[there])).sum())
        pairs += int(both.sum())
    return equal > FLAT * pairs


def check_extent(bright: np.ndarray, affine: np.ndarray, litres: float, *, stripped: bool = True) -> list[str]:
    """Warnings of a scan as its file holds it, before it is aligned.

    Args:
        bright: ``bool[X, Y, Z]`` in RAS order, from `tissue`.
        affine: ``f64[4, 4]``, voxel to RAS mm.
        litres: of tissue.
        stripped: whether a scan without its skull is needed.
    """
    warnings, low, high = [], *BRAIN_LITRES
    head = litres > HEAD_LITRES
    if stripped and head:
        remedy = "strip the skull, or register it (data.align=register)"
        warnings.append(f"a whole head: more than {HEAD_LITRES} litres, where a brain has {low} to {high}; {remedy}")
    if litres < low:
        warnings.append(f"too small for a brain: less than {low} litres")
    sides = [("top",)] if head else SIDES  # of a head the neck is always cut off, and often the nose
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    cut = [side for side in _cut_sides(bright, zooms) if any(side in pair for pair in sides)]
    return warnings + ([f"cut off at the {' and '.join(cut)}"] if cut else [])


def _cut_sides(bright: np.ndarray, zooms: np.ndarray) -> list[str]:
    """Where tissue ends at a plane: at the edge of the file, or where everything behind it was set to zero."""
    found = []
    for axis, (names, zoom) in enumerate(zip(SIDES, zooms, strict=True)):
        area = bright.sum(tuple({0, 1, 2} - {axis}))
        ends = area[np.flatnonzero(area > FEW * area.max())[[0, -1]]]
        limit = CUT_SHARE + CUT_SHARE_MM * zoom
        found += [name for name, end in zip(names, ends, strict=True) if end > limit * area.max()]
    return found


def fit_to_template(volume: np.ndarray, affine: np.ndarray) -> TemplateFit:
    """The two figures of a volume in the template's space; not a number where nothing of it is there."""
    template, coarse = load_coarse_brain(), onto_coarse_brain(volume, affine)
    if not (coarse > 0).any():
        return TemplateFit(np.nan, np.nan)
    bright, brain = tissue(coarse), template.inside > 0.5
    return TemplateFit(dice(bright, brain), pearson(coarse[brain], template.intensity[brain]))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks: twice what both hold, of what they hold together."""
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two arrays; 0 where one does not vary."""
    return float((unit_rows(a.astype(np.float64)) * unit_rows(b.astype(np.float64))).sum())


def check_position(bright: np.ndarray, affine: np.ndarray, share_inside: float, overlap: float | None) -> list[str]:
    """Warnings of a scan whose header is to be trusted: whether it lies where the template does.

    Args:
        bright: ``bool[X, Y, Z]``, from `tissue`.
        affine: ``f64[4, 4]``, voxel to RAS mm.
        share_inside: of the scan's intensity, how much fell onto the grid.
        overlap: with the template's brain; None for the map of a tissue, which need not fill it.
    """
    centre = affine[:3, :3] @ np.array(ndimage.center_of_mass(bright)) + affine[:3, 3]
    remedy = f"{REMEDY}, or align it by 'rough'"
    if np.linalg.norm(centre - BRAIN_CENTRE) > MAX_OFF:
        return [f"not in MNI space: its centre is more than {MAX_OFF:.0f} mm from the template's; {remedy}"]
    if share_inside < 1 - MAX_OUTSIDE:
        return [f"much of it lies outside the MNI box; {remedy}"]
    if overlap is not None and (short := _short_sides(bright, affine)):
        sides = " and ".join(short)
        return [f"it ends more than {MAX_SHORT:.0f} mm within the template's brain at the {sides}; it may be cut off"]
    if overlap is not None and overlap < LEAST_OVERLAP:
        return [f"it does not lie on the template's brain; {remedy}"]
    return []


def _short_sides(bright: np.ndarray, affine: np.ndarray) -> list[str]:
    """Where a scan ends far within the template's brain, leaving out the outermost `BRAIN_ENDS_SHARE` of both."""
    where = np.flatnonzero(bright)
    where = np.stack(np.unravel_index(where[:: max(1, len(where) // 200_000)], bright.shape), 1)
    places = where @ affine[:3, :3].T + affine[:3, 3]
    half_a_voxel = np.abs(affine[:3, :3]).sum(1) / 2
    low, high = np.quantile(places, (BRAIN_ENDS_SHARE, 1 - BRAIN_ENDS_SHARE), axis=0)
    short = np.stack([low - BRAIN_ENDS[0], np.array(BRAIN_ENDS[1]) - high], 1) - half_a_voxel[:, None]
    return [SIDES[axis][end] for axis, end in np.argwhere(short > MAX_SHORT)]


def check_looks(volume: np.ndarray, affine: np.ndarray) -> list[str]:
    """Warnings of what a stripped scan shows, wherever it lies: turned, inverted, or no brain.

    Args:
        volume: ``f32[X, Y, Z]``, aligned and not normalised.
        affine: ``f64[4, 4]``, voxel to RAS mm.
    """
    template, positive = load_coarse_brain(), np.maximum(volume, 0)
    coarse = onto_coarse_brain(positive, affine)
    if not (coarse > 0).any():
        return []
    bright, brain = tissue(coarse), template.inside > 0.5
    scale = float((bright.sum() / brain.sum()) ** (1 / 3))
    centre = template.affine[:3, :3] @ np.array(ndimage.center_of_mass(bright)) + template.affine[:3, 3]
    capped = np.minimum(positive, np.percentile(coarse[bright], 98))
    moved = onto_coarse_brain(capped, affine, about_centre(np.eye(3), scale, centre))
    found = turned_brains() @ unit_rows(moved.ravel())
    best = int(found.argmax())
    if found[best] < LIKE_A_BRAIN:
        return ["it does not look like an upright brain"]
    if found[best] > TURNED[0] and found[best] - found[0] > TURNED[1]:
        return [f"{_turned(orientations()[best])}; mend the orientation in its header"]
    deep = ndimage.binary_erosion(template.inside > 0.9)
    if pearson(moved[deep], template.intensity[deep]) < INVERTED:
        return [INVERTED_CONTRAST]
    return []


def _turned(turn: np.ndarray) -> str:
    """How a scan lies whose head is turned so, in words."""
    top, front = turn[:, 2].round().astype(int), turn[:, 1].round().astype(int)
    if top[2] == -1:
        return "it lies upside down"
    if top[2] == 1:
        return f"its face looks to the {_direction(front)}"
    return f"its top points to the {_direction(top)}"


def _direction(vector: np.ndarray) -> str:
    axis = int(np.abs(vector).argmax())
    return SIDES[axis][int(vector[axis] > 0)]

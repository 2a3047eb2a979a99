"""Gross errors of scans in words: said of those that have them, and of no sound one."""

import numpy as np
import pytest
from scipy import ndimage

from fedsparse_jax.data import bids, coarse_brain, nifti, scan_checks
from fedsparse_jax.data.phantom.anatomy import draw_person, render_scan

SHAPE = (46, 55, 46)
GRID = nifti.grid_affine(SHAPE)


@pytest.fixture(scope="module")
def brains(repository):
    """Six real brains, roughly aligned."""
    scans = bids.read_bids(repository / "tests/files/ds002748_small").scans
    images = [nifti.load_image(scan.path) for scan in scans]
    return [nifti.to_grid(image.data, image.affine, SHAPE, align="rough") for image in images]


def warnings_of(volume, affine=GRID):
    bright = scan_checks.tissue(volume)
    extent = scan_checks.check_extent(bright, affine, scan_checks.litres_of(bright, affine))
    position = scan_checks.check_position(bright, affine, 1.0, scan_checks.fit_to_template(volume, affine).overlap)
    return extent + position + scan_checks.check_looks(volume, affine)


def test_sound_brains_are_not_warned_of(brains):
    assert [warnings_of(brain) for brain in brains] == [[]] * 6


@pytest.mark.parametrize("shape", [(16, 18, 16), (24, 28, 24), (46, 55, 46)])
def test_phantoms_are_not_warned_of(shape):
    for seed in range(5):
        phantom = render_scan(draw_person(40 + 10 * seed, np.random.default_rng(seed)), shape)
        assert warnings_of(phantom, nifti.grid_affine(shape)) == []


def turned(brain, turn):
    """A brain that was turned about the middle of its grid; the affine is that of the grid all the same."""
    to_voxel = np.linalg.inv(GRID) @ coarse_brain.about_centre(np.array(turn, float).T) @ GRID
    return ndimage.affine_transform(brain, to_voxel[:3, :3], to_voxel[:3, 3], order=1)


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (np.diag([1, -1, -1]), "it lies upside down"),
        (np.diag([-1, 1, -1]), "it lies upside down"),
        (np.diag([-1, -1, 1]), "its face looks to the back"),
        ([[0, -1, 0], [1, 0, 0], [0, 0, 1]], "its face looks to the left"),
        ([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], "its face looks to the right"),
        ([[1, 0, 0], [0, 0, -1], [0, 1, 0]], "its top points to the back"),
        ([[1, 0, 0], [0, 0, 1], [0, -1, 0]], "its top points to the front"),
        ([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], "its top points to the right"),
        ([[0, 0, -1], [0, 1, 0], [1, 0, 0]], "its top points to the left"),
    ],
)
def test_a_turned_brain_is_said_to_be(brains, turn, words):
    for brain in brains[:3]:
        (warning,) = scan_checks.check_looks(turned(brain, turn), GRID)
        assert warning == f"{words}; mend the orientation in its header"


def test_a_brain_in_mni_space_is_not_warned_of(tmp_path):
    """The template itself, as FSL's grid holds it: brains scaled to it are larger than most."""
    import nibabel as nib

    datasets = pytest.importorskip("nilearn.datasets")
    image, mask = datasets.load_mni152_template(resolution=2), datasets.load_mni152_brain_mask(resolution=2)
    data = np.where(np.asarray(mask.dataobj) > 0, image.get_fdata(dtype=np.float32), 0)
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "a.nii.gz")
    _, quality = nifti.prepare_scan(tmp_path / "a.nii.gz", None, (46, 55, 46), "affine", "volume")
    assert quality.warnings == () and 1.8 < quality.litres < 1.95
    assert quality.overlap > 0.9 and quality.correlation > 0.95


def test_left_and_right_cannot_be_told(brains):
    assert [scan_checks.check_looks(brain[::-1], GRID) for brain in brains] == [[]] * 6


def test_inverted_contrast_is_said(brains):
    for brain in brains:
        bright = np.percentile(brain[brain > 0], 95)
        inverted = np.where(brain > 0.25 * bright, 1.3 * bright - brain, 0).clip(0)
        (warning,) = scan_checks.check_looks(inverted, GRID)
        assert warning.startswith("dark where a T1-weighted image is bright")


def millimetres():
    where = np.indices(SHAPE).transpose(1, 2, 3, 0) @ GRID[:3, :3] + GRID[:3, 3]
    return np.moveaxis(where - coarse_brain.BRAIN_CENTRE, -1, 0)


@pytest.mark.parametrize("kind", ["box", "bottle", "legs", "everything"])
def test_what_is_no_brain_is_said(kind):
    x, y, z = np.abs(millimetres())
    there = {
        "box": (x < 60) & (y < 75) & (z < 60),
        "bottle": (x**2 + y**2 < 60**2) & (z < 80),
        "legs": (x - 45) ** 2 + y**2 < 35**2,
        "everything": x < np.inf,
    }[kind]
    texture = 1 + 0.2 * np.random.default_rng(0).standard_normal(SHAPE)
    assert "it does not look like an upright brain" in scan_checks.check_looks(there * texture, GRID)


def test_a_whole_head_is_told_by_its_litres_before_it_is_squeezed(tmp_path, brains):
    import nibabel as nib

    away = ndimage.distance_transform_edt(brains[0] <= 0, sampling=np.diag(GRID)[:3])
    head = brains[0] + np.where((away > 9) & (away < 18), brains[0].max(), 0)
    for align in ("affine", "rough"):
        for name, data in (("head", head), ("brain", brains[0])):
            nib.save(nib.Nifti1Image(data.astype(np.float32), GRID), tmp_path / f"{name}.nii")
            _, quality = nifti.prepare_scan(tmp_path / f"{name}.nii", None, (24, 28, 24), align, "volume")
            said = [warning for warning in quality.warnings if warning.startswith("a whole head")]
            assert len(said) == (name == "head") and (quality.litres > 2.3) == (name == "head")
    assert said == [] and "data.align=register" in scan_checks.check_extent(head > 0, GRID, 3.0)[0]


def test_a_map_of_grey_matter_is_no_head_and_is_not_judged_as_one(tmp_path, brains):
    """As CAT12 names it; the same content under a scan's name is said to be none."""
    import nibabel as nib

    bright = np.percentile(brains[0][brains[0] > 0], 95)
    share = brains[0] / bright
    grey = np.where((share > 0.4) & (share < 0.75), share, 0).astype(np.float32)
    said = {}
    for name in ("mwp1sub-1.nii", "sub-1_T1w.nii"):
        nib.save(nib.Nifti1Image(grey, GRID), tmp_path / name)
        said[name] = nifti.prepare_scan(tmp_path / name, None, SHAPE, "affine", "volume")[1].warnings
    assert said["mwp1sub-1.nii"] == () and len(said["sub-1_T1w.nii"]) > 0


def test_small_things_are_too_small():
    assert scan_checks.check_extent(np.ones((9, 9, 9), bool), GRID, 0.5)[0].startswith("too small for a brain")


@pytest.mark.parametrize(
    ("side", "cut"),
    [
        ("top", np.s_[:, :, :30]),
        ("bottom", np.s_[:, :, 18:]),
        ("back", np.s_[:, 20:]),
        ("front", np.s_[:, :40]),
        ("left", np.s_[16:]),
        ("right", np.s_[:32]),
    ],
)
def test_what_is_cut_off_is_said_with_its_side(brains, side, cut):
    for brain in brains:
        assert f"cut off at the {side}" in scan_checks.check_extent(scan_checks.tissue(brain[cut]), GRID, 1.2)


@pytest.mark.parametrize(
    ("side", "zeroed"),
    [
        ("top", np.s_[:, :, 31:]),
        ("back", np.s_[:, :18]),
        ("front", np.s_[:, 40:]),
        ("left", np.s_[:16]),
        ("right", np.s_[30:]),
    ],
)
def test_what_was_set_to_zero_is_cut_off_as_well(brains, side, zeroed):
    """As in a scan that was cut, and registered or padded afterwards: no tissue is at the edge of the file."""
    for brain in brains:
        cut = brain.copy()
        cut[zeroed] = 0
        cut[0, 0, 0] = cut[-1, -1, -1] = brain.max()  # specks
        assert f"cut off at the {side}" in warnings_of(cut)


def test_a_scan_that_ends_within_the_template_is_said_with_its_side(brains):
    """The bottom of a brain is too narrow for its end to be told from a cut one."""
    x, y, z = millimetres()
    texture = 1 + 0.2 * np.random.default_rng(0).standard_normal(SHAPE)
    ball = np.where(x**2 + y**2 + z**2 < 67**2, texture, 0).astype(np.float32)
    for volume, side in ((np.where(z > -40, brains[0], 0), "bottom"), (ball, "front")):
        bright = scan_checks.tissue(volume)
        (warning,) = scan_checks.check_position(bright, GRID, 1.0, 0.9)
        assert warning.startswith(f"it ends more than 14 mm within the template's brain at the {side};")
        assert scan_checks.check_position(bright, GRID, 1.0, None) == []  # the map of a tissue


def test_what_covers_little_of_the_template_is_said(brains):
    bright = scan_checks.tissue(brains[0])
    assert scan_checks.check_position(bright, GRID, 1.0, 0.83) == []
    assert scan_checks.check_position(bright, GRID, 1.0, 0.81)[0].startswith("it does not lie on the template's brain")


@pytest.mark.parametrize("align", ["affine", "rough", "register"])
@pytest.mark.parametrize("values", ["0 and 1", "0 and 1000", "labels", "interpolated"])
def test_a_mask_is_refused_as_one(tmp_path, brains, align, values):
    """However it is aligned, also on the very grid; under the name of a map of a tissue it may be one."""
    import nibabel as nib

    inside = brains[0] > 0
    lobes = np.indices(SHAPE).sum(0) // 25
    data = {
        "0 and 1": inside,
        "0 and 1000": 1000 * inside,
        "labels": np.where(inside, 1 + lobes, 0),
        "interpolated": ndimage.affine_transform(inside.astype(np.float32), np.eye(3), 0.3, order=1),
    }[values]
    for shape in (SHAPE, (24, 28, 24)):
        nib.save(nib.Nifti1Image(data.astype(np.float32), GRID), tmp_path / "sub-1_T1w.nii")
        with pytest.raises(nifti.ScanError, match="a mask, not an image; its tissue has one value, or few; give the"):
            nifti.prepare_scan(tmp_path / "sub-1_T1w.nii", None, shape, align, "volume")
    assert not scan_checks.is_flat(brains[0].astype(np.uint8), inside)


def test_a_map_of_one_value_under_a_map_s_name(tmp_path, brains):
    import nibabel as nib

    nib.save(nib.Nifti1Image((brains[0] > 0).astype(np.float32), GRID), tmp_path / "mwp1a.nii")
    assert nifti.prepare_scan(tmp_path / "mwp1a.nii", None, (24, 28, 24), "affine", "volume")[1].warnings == ()
    with pytest.raises(nifti.ScanError, match="a mask"):
        nifti.prepare_scan(tmp_path / "mwp1a.nii", None, SHAPE, "affine", "volume")


def test_a_neck_is_always_cut_off_and_not_said():
    x, y, z = millimetres()
    head = (x / 75) ** 2 + (y / 80) ** 2 + (z.clip(0) / 65) ** 2 < 1  # a dome on a neck
    assert [text for text in scan_checks.check_extent(head, GRID, 4.0) if text.startswith("cut")] == []
    assert scan_checks.check_extent(head[:, :, :30], GRID, 4.0)[-1] == "cut off at the top"


@pytest.mark.parametrize(
    ("move", "inside", "said"),
    [
        ((0, 0, 0), 1.0, ""),
        ((0, 9, 0), 1.0, ""),
        ((0, 25, 0), 1.0, "not in MNI space: its centre is more than 15 mm from the template's"),
        ((0, 0, -25), 0.8, "not in MNI space: its centre is more than 15 mm from the template's"),
        ((0, 0, 0), 0.96, ""),
        ((0, 0, 0), 0.94, "much of it lies outside the MNI box"),
    ],
)
def test_a_header_that_is_not_in_mni_space_is_said_with_the_remedy(brains, move, inside, said):
    affine = GRID.copy()
    affine[:3, 3] += move
    found = scan_checks.check_position(scan_checks.tissue(brains[0]), affine, inside, None)
    remedy = "register it (data.align=register), or align it by 'rough'"
    assert found == ([f"{said}; {remedy}"] if said else [])


def test_the_figures_by_hand():
    a, b = np.array([True, True, False, False]), np.array([True, False, True, True])
    assert scan_checks.dice(a, b) == pytest.approx(2 * 1 / 5)
    assert scan_checks.pearson(np.array([1.0, 2, 3]), np.array([5.0, 3, 1])) == pytest.approx(-1)
    template = coarse_brain.load_coarse_brain()
    for axis, ends in enumerate(zip(*coarse_brain.BRAIN_ENDS)):
        share = template.inside.sum(tuple({0, 1, 2} - {axis})) / template.inside.sum()
        edges = template.affine[axis, 3] + 8 * (np.arange(len(share) + 1) - 0.5)
        found = np.interp((0.02, 0.98), np.concatenate([[0], share.cumsum()]), edges)
        assert found == pytest.approx(ends, abs=0.1)
    itself = scan_checks.fit_to_template(template.intensity * (template.inside > 0.5), template.affine)
    assert itself.overlap > 0.98 and itself.correlation == pytest.approx(1)
    assert np.isnan(scan_checks.fit_to_template(np.zeros((9, 9, 9), np.float32), GRID)).all()

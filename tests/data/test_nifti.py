"""Image files: the good, the odd and the broken."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.data import nifti, normalisation

SHAPE = (20, 24, 22)
AFFINE = np.diag([8.0, 8.0, 7.0, 1.0])
AFFINE[:3, 3] = (-80, -100, -60)


def volume(seed=0):
    data = np.zeros(SHAPE, np.float32)
    data[4:16, 5:20, 4:18] = np.random.default_rng(seed).uniform(50, 500, (12, 15, 14))
    return data


def save(path, data=None, affine=AFFINE, cls=nib.Nifti1Image, dtype=None, **header):
    image = cls(volume() if data is None else data, affine)
    if dtype:
        image.set_data_dtype(dtype)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


# --- the good and the odd: all give the same volume -----------------------------------------------


@pytest.mark.parametrize("axcodes", ["LAS", "PIR", "LIA", "RAS", "SPL"])
def test_every_storage_order_gives_the_same_volume(tmp_path, axcodes):
    image = nib.Nifti1Image(volume(), AFFINE)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes))
    nib.save(image.as_reoriented(turn), tmp_path / "a.nii.gz")
    loaded = nifti.load_image(tmp_path / "a.nii.gz")
    assert loaded.orientation == axcodes
    np.testing.assert_array_equal(loaded.data, volume())
    np.testing.assert_allclose(loaded.affine, AFFINE, atol=1e-4)


def rounded():
    return np.round(volume())


ODD = {
    "int16.nii": dict(data=rounded().astype(np.int16)),
    "uint8.nii.gz": dict(data=(rounded() / 2).astype(np.uint8), factor=2),
    "float64.nii": dict(data=rounded().astype(np.float64)),
    "nifti2.nii.gz": dict(data=rounded(), cls=nib.Nifti2Image),
    "pair.hdr": dict(data=rounded(), cls=nib.Nifti1Pair),
    "freesurfer.mgz": dict(data=rounded(), cls=nib.MGHImage),
    "UPPER.NII.GZ": dict(data=rounded()),
    "Größe 脑.nii.gz": dict(data=rounded()),
    "trailing.nii": dict(data=rounded()[..., None, None]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read(tmp_path, name):
    options = dict(ODD[name])
    factor = options.pop("factor", 1)
    save(tmp_path / name, **options)
    np.testing.assert_allclose(nifti.load_image(tmp_path / name).data * factor, rounded(), atol=factor)


def test_slope_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Image((rounded() / 2).astype(np.int16), AFFINE)
    image.header.set_slope_inter(2.0, 10.0)
    nib.save(image, tmp_path / "a.nii")
    raw = nib.load(tmp_path / "a.nii")
    assert (raw.dataobj.slope, raw.dataobj.inter) == (2.0, 10.0)
    np.testing.assert_allclose(nifti.load_image(tmp_path / "a.nii").data, np.asarray(raw.dataobj), rtol=1e-6)


def test_big_endian(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">f4")
    nib.save(nib.Nifti1Image(rounded().astype(">f4"), AFFINE, header), tmp_path / "a.nii")
    np.testing.assert_allclose(nifti.load_image(tmp_path / "a.nii").data, rounded())


def test_metres_become_millimetres(tmp_path):
    small = AFFINE.copy()
    small[:3] /= 1000
    image = nib.Nifti1Image(rounded(), small)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    loaded = nifti.load_image(tmp_path / "a.nii")
    np.testing.assert_allclose(loaded.affine, AFFINE, rtol=1e-5)
    assert "units are meter, converted to mm" in loaded.warnings


def warned(tmp_path, change):
    image = nib.Nifti1Image(volume(), AFFINE)
    change(image)
    nib.save(image, tmp_path / "a.nii")
    return nifti.load_image(tmp_path / "a.nii").warnings


def test_doubtful_orientations_are_warned_of(tmp_path):
    def disagree(image):
        image.set_qform(np.diag([8.0, 8, 7, 1]), code=1)
        image.set_sform(AFFINE, code=1)

    def nowhere(image):
        image.set_qform(None, code=0)
        image.set_sform(None, code=0)

    assert "qform and sform disagree; sform used" in warned(tmp_path, disagree)
    assert "no orientation in the header" in warned(tmp_path, nowhere)
    assert warned(tmp_path, lambda image: None) == ()


def test_shear_is_warned_of(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 1] = 3.0
    save(tmp_path / "a.nii", affine=sheared)
    assert "sheared axes" in nifti.load_image(tmp_path / "a.nii").warnings


def test_nan_background_becomes_zero(tmp_path):
    data = volume()
    data[data == 0] = np.nan
    save(tmp_path / "a.nii", data=data)
    image = nifti.load_image(tmp_path / "a.nii")
    np.testing.assert_array_equal(image.data, volume())
    assert image.warnings == ("voxels that are not numbers were set to 0",)


def test_an_absurd_voxel_is_clipped(tmp_path):
    data = volume()
    data[10, 10, 10] = 1e9
    save(tmp_path / "a.nii", data=data)
    image = nifti.load_image(tmp_path / "a.nii")
    assert image.data.max() < 2000 and image.warnings == ("absurdly bright voxels were clipped",)


@pytest.mark.parametrize("share", [0.0002, 0.005])
def test_a_share_of_absurd_voxels_is_clipped(tmp_path, share):
    """Up to a hundredth of the bright ones; else the brain is squeezed into a narrow range, and nobody is told."""
    data = volume()
    hot = np.random.default_rng(1).choice(np.flatnonzero(data), max(1, int(share * (data > 0).sum())), replace=False)
    data.flat[hot] = 1e8
    save(tmp_path / "a.nii", data=data)
    image = nifti.load_image(tmp_path / "a.nii")
    assert image.warnings == ("absurdly bright voxels were clipped",)
    cool = np.setdiff1d(np.arange(data.size), hot)
    np.testing.assert_array_equal(image.data.flat[cool], volume().flat[cool])
    assert image.data.max() < 2.1 * volume().max()


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("cls", "at", "form"), [(nib.Nifti1Image, 112, "<f"), (nib.Nifti2Image, 176, "<d")])
@pytest.mark.parametrize("slope", [np.inf, np.nan, 2.0])
def test_a_scale_that_is_no_number_is_warned_of(tmp_path, name, cls, at, form, slope):
    save(tmp_path / "plain.nii", rounded().astype(np.int16), cls=cls)
    content = bytearray((tmp_path / "plain.nii").read_bytes())
    struct.pack_into(form, content, at, slope)
    (tmp_path / name).write_bytes(gzip.compress(bytes(content)) if name.endswith("gz") else content)
    image = nifti.load_image(tmp_path / name)
    said = ("the scale in its header is no number; raw values used",)
    assert image.warnings == (() if np.isfinite(slope) else said)
    np.testing.assert_allclose(image.data, rounded() * (slope if np.isfinite(slope) else 1))


def test_analyze_has_no_orientation_and_that_is_said(tmp_path):
    nib.save(nib.AnalyzeImage(rounded().astype(np.int16), None), tmp_path / "a.img")
    header = bytearray((tmp_path / "a.hdr").read_bytes())
    struct.pack_into("<3f", header, 80, 8.0, 8.0, 7.0)
    (tmp_path / "a.hdr").write_bytes(header)
    assert "no orientation in the header" in nifti.load_image(tmp_path / "a.hdr").warnings
    save(tmp_path / "b.hdr", cls=nib.Nifti1Pair)
    assert nifti.load_image(tmp_path / "b.hdr").warnings == ()


def test_a_missing_img_is_named_and_a_name_with_gz_is_not_blamed_for_an_error_page(tmp_path):
    orphan(tmp_path / "a.hdr")
    with pytest.raises(
        nifti.ScanError, match=r"no \.img beside it; put a\.img, which holds the voxels, into its folder"
    ):
        nifti.load_image(tmp_path / "a.hdr")
    (tmp_path / "b.nii.gz").write_bytes(b'{"message": "not found"}')
    with pytest.raises(nifti.ScanError, match="neither compressed nor an image; fetch it again"):
        nifti.load_image(tmp_path / "b.nii.gz")


# --- the broken: each is refused with its reason --------------------------------------------------


def text(content):
    return lambda path: path.write_bytes(content)


def cut(share):
    def make(path):
        save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def flipped(path):
    save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def huge(path):
    save(path, data=rounded().astype(np.int16))
    content = bytearray(path.read_bytes())
    struct.pack_into("<8h", content, 40, 3, 3200, 3200, 3200, 1, 1, 1, 1)
    path.write_bytes(bytes(content))


def wrong_dim(path):
    save(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<h", content, 40, 9)
    path.write_bytes(bytes(content))


def renamed(path):
    other = path.with_name("x.nii")
    save(other)
    path.write_bytes(gzip.compress(other.read_bytes()))


def unzipped(path):
    other = path.with_name("x.nii")
    save(other)
    path.write_bytes(other.read_bytes())


def colour(path):
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, AFFINE), path)


def singular(path):
    save(path)
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    path.write_bytes(bytes(content))


def orphan(path):
    save(path, cls=nib.Nifti1Pair)
    path.with_suffix(".img").unlink()


def link(path):
    path.symlink_to("../.git/annex/objects/xx/yy")


def nan_head(path):
    data = volume()
    save(path, data=np.where(data > 0, np.nan, data + 1))


def twice(path):
    save(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


BROKEN = {
    "compressed twice": ("a.nii.gz", twice, "compressed twice"),
    "a head of no numbers": ("a.nii", nan_head, "voxels inside the head are no numbers"),
    "empty": ("a.nii", text(b""), "empty file"),
    "lfs": ("a.nii.gz", text(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS pointer"),
    "annex": ("a.nii.gz", text(b"/annex/objects/MD5E-s1--0.nii.gz"), "git-annex pointer"),
    "annex link": ("a.nii.gz", link, "broken link"),
    "html": ("a.nii.gz", text(b"<!DOCTYPE html><html>404"), "web page"),
    "noise": ("a.nii", text(bytes(range(256)) * 4), "unreadable header"),
    "folder": ("a.nii", lambda path: path.mkdir(), "not a file"),
    "missing": ("a.nii", lambda path: None, "no such file"),
    "truncated gzip": ("a.nii.gz", cut(0.6), "damaged compression"),
    "corrupt gzip": ("a.nii.gz", flipped, "damaged compression"),
    "truncated": ("a.nii", cut(0.5), "unreadable data"),
    "header only": ("a.nii", lambda path: (save(path), path.write_bytes(path.read_bytes()[:352])), "unreadable data"),
    "no img": ("a.hdr", orphan, "no .img beside it"),
    "one byte": ("a.nii.gz", text(b"x"), "neither compressed nor an image"),
    "error page": ("a.nii.gz", text(b"<Error><Code>NoSuchKey</Code></Error>" * 20), "neither compressed nor an image"),
    "64 GiB": ("a.nii", huge, "implausible size"),
    "dim 9": ("a.nii", wrong_dim, "unreadable header"),
    "gzip named .nii": ("a.nii", renamed, "name and content disagree"),
    ".nii named gzip": ("a.nii.gz", unzipped, "name and content disagree"),
    "complex": ("a.nii", lambda path: save(path, data=volume().astype(np.complex64)), "complex image"),
    "colour": ("a.nii", colour, "colour image"),
    "4D": ("a.nii", lambda path: save(path, data=np.stack([volume()] * 2, -1)), "4D image"),
    "5D": ("a.nii", lambda path: save(path, data=np.stack([volume()] * 2, -1)[..., None, :]), "5D image"),
    "2D": ("a.nii", lambda path: save(path, data=volume()[:, :, 9]), "2D image"),
    "thin": ("a.nii", lambda path: save(path, data=volume()[:, :, :3]), "too few slices"),
    "mouse": ("a.nii", lambda path: save(path, affine=np.diag([0.1, 0.1, 0.1, 1])), "implausible field of view"),
    "singular": ("a.nii", singular, "broken orientation"),
    "zeros": ("a.nii", lambda path: save(path, data=np.zeros(SHAPE, np.float32)), "constant image"),
    "constant": ("a.nii", lambda path: save(path, data=np.ones(SHAPE, np.float32)), "constant image"),
    "all NaN": ("a.nii", lambda path: save(path, data=np.full(SHAPE, np.nan, np.float32)), "no finite voxel"),
    "CT": ("a.nii", lambda path: save(path, data=volume() - 1000), "many negative values"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.filterwarnings("ignore")
def test_broken_files_are_refused_with_their_reason(tmp_path, kind):
    name, make, reason = BROKEN[kind]
    make(tmp_path / name)
    with pytest.raises(nifti.ScanError) as refusal:
        nifti.load_image(tmp_path / name)
    assert refusal.value.reason == reason
    assert str(tmp_path / name) in str(refusal.value) and "\n" not in str(refusal.value)


# --- the grid and the intensities -----------------------------------------------------------------


def test_the_grids_of_fsl_begin_where_fsl_says():
    # Its headers, whose x runs from right to left: [-2, 0, 0, 90] over 91 voxels, [-1, 0, 0, 90] over 182.
    assert nifti.grid_affine((91, 109, 91))[:, 3].tolist() == [90 - 2 * 90, -126, -72, 1]
    assert nifti.grid_affine((182, 218, 182))[:, 3].tolist() == [90 - 181, -126, -72, 1]
    assert np.diag(nifti.grid_affine((91, 109, 91))).tolist() == [2, 2, 2, 1]


def ball(shape, origin, voxel):
    """A ball about a point of the head, in mm, on a grid of its own: ``(volume, affine)``."""
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = origin
    where = np.indices(shape).transpose(1, 2, 3, 0) * voxel + origin
    distance = np.linalg.norm((where - (3, -24, 12)) / (60, 80, 55), axis=-1)
    return np.clip((1 - distance) * 30, 0, 1).astype(np.float32), affine


def test_a_head_from_fsl_s_1_mm_grid_lies_where_the_one_from_its_2_mm_grid_does():
    grid = (91, 109, 91)
    centre = lambda volume: [np.average(where, weights=volume) for where in np.indices(grid)]
    coarse = nifti.to_grid(*ball(grid, (-90, -126, -72), 2.0), grid)
    fine = nifti.to_grid(*ball((182, 218, 182), (-91, -126, -72), 1.0), grid)
    np.testing.assert_allclose(centre(coarse), centre(fine), atol=0.01)
    assert np.abs(coarse - fine).max() < 0.3


def test_fsl_s_1_mm_grid_passes_through_unchanged():
    data, affine = ball((182, 218, 182), (-91, -126, -72), 1.0)
    np.testing.assert_array_equal(nifti.to_grid(data, affine, data.shape), data)


def test_a_volume_on_the_grid_passes_through_unchanged():
    data = np.random.default_rng(0).normal(size=(12, 14, 12)).astype(np.float32)
    np.testing.assert_array_equal(nifti.to_grid(data, nifti.grid_affine(data.shape), data.shape), data)


def test_fsl_s_2_mm_grid_passes_through_unchanged():
    data = np.random.default_rng(0).normal(size=(91, 109, 91)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    np.testing.assert_array_equal(nifti.to_grid(data, affine, data.shape), data)


def test_a_linear_ramp_stays_a_ramp():
    shape, finer = (13, 15, 13), (26, 30, 26)
    affine = nifti.grid_affine(shape)

    def ramp(grid):
        to_mm = nifti.grid_affine(grid)
        return (np.indices(grid).transpose(1, 2, 3, 0) @ to_mm[:3, :3] + to_mm[:3, 3]) @ [1.0, 2.0, -0.5]

    resampled = nifti.to_grid(ramp(shape).astype(np.float32), affine, finer)
    np.testing.assert_allclose(resampled[2:-2, 2:-2, 2:-2], ramp(finer)[2:-2, 2:-2, 2:-2], atol=1e-3)


def test_a_coarser_grid_keeps_the_mean_and_does_not_alias():
    fine = nifti.grid_affine((48, 56, 48))
    chequers = (np.indices((48, 56, 48)).sum(0) % 2).astype(np.float32)
    coarse = nifti.to_grid(chequers, fine, (24, 28, 24))[2:-2, 2:-2, 2:-2]
    assert abs(coarse.mean() - 0.5) < 0.01 and coarse.std() < 0.05


def test_rough_alignment_undoes_shift_and_scale():
    shape = (46, 55, 46)
    affine = nifti.grid_affine(shape)
    where = np.indices(shape).transpose(1, 2, 3, 0) @ affine[:3, :3] + affine[:3, 3]
    radii = np.sqrt(5) * np.array(nifti.TEMPLATE_SPREAD)  # SD of a solid ellipsoid is its radius over sqrt(5)
    brain = (((where - nifti.TEMPLATE_CENTRE) / radii) ** 2).sum(-1) < 1
    moved = nifti.grid_affine(shape)
    moved[:3] = np.diag([0.9, 1.1, 0.95]) @ moved[:3]
    moved[:3, 3] += (20, 35, -25)
    undone = nifti.to_grid(brain.astype(np.float32), moved, shape, align="rough") > 0.5
    overlap = 2 * (undone & brain).sum() / (undone.sum() + brain.sum())
    assert overlap > 0.98


def test_normalisations_by_hand():
    values = np.array([0.0, 0.0, 2.0, 4.0])
    np.testing.assert_allclose(normalisation.zscore_volume(values), (values - 1.5) / np.sqrt(2.75))
    np.testing.assert_allclose(normalisation.zscore_brain(values), [0, 0, -1, 1])
    np.testing.assert_allclose(normalisation.percentile(values), values / 3.98)


def test_a_brain_beside_the_box_is_warned_of_or_refused(tmp_path):
    for shift, expected in ((90, None), (300, "off the grid")):
        affine = AFFINE.copy()
        affine[0, 3] += shift
        save(tmp_path / "a.nii", affine=affine)
        if expected is None:
            _, quality = nifti.prepare_scan(tmp_path / "a.nii", None, (24, 28, 24), "affine", "volume")
            assert any(warning.startswith("not in MNI space") for warning in quality.warnings)
        else:
            with pytest.raises(nifti.ScanError, match=expected):
                nifti.prepare_scan(tmp_path / "a.nii", None, (24, 28, 24), "affine", "volume")


@pytest.mark.parametrize("align", nifti.ALIGN)
def test_nothing_positive_is_refused(tmp_path, align):
    data = np.zeros(SHAPE, np.float32)
    data[0, 0, 0] = -1
    save(tmp_path / "a.nii", data=data)
    with pytest.raises(nifti.ScanError):
        nifti.prepare_scan(tmp_path / "a.nii", None, (24, 28, 24), align, "volume")


def test_a_brain_mask_is_applied(tmp_path):
    save(tmp_path / "a.nii.gz")
    keep = np.zeros(SHAPE, np.uint8)
    keep[5:15, 6:18, 5:16] = 1
    mask = save(tmp_path / "m.nii.gz", data=keep)
    with_mask, quality = nifti.prepare_scan(tmp_path / "a.nii.gz", mask, (24, 28, 24), "affine", "brain")
    without, whole = nifti.prepare_scan(tmp_path / "a.nii.gz", None, (24, 28, 24), "affine", "brain")
    assert quality.nonzero < whole.nonzero and with_mask.shape == without.shape == (24, 28, 24)

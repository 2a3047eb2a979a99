"""Volumes from NumPy arrays and several images of a head: where they lie, what is refused, and what the cache holds."""

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data import grids, nifti, scan_cache, scan_tables, tables, volumes
from tests.helpers.stand_ins import LAS_1, LAS_2, ball, save_array, save_image

GRID = (46, 55, 46)


def scan(path, **more):
    return tables.Scan(path, "sub-1", "", 60.0, "F", "n/a", **more)


def is_brighter_on_the_right(volume):
    """Of a volume of 16 x 18 x 16 voxels with a `ball`: inside, the right half is brighter by 0.2 of about 0.4."""
    inside = volume[:, 8:10, 7:9]
    return inside[9].min() > inside[6].max()


def ingest(tmp_path, *scans, **changes):
    options = dict(shape=(16, 18, 16), align="affine", normalise="brain", cache_dir=tmp_path / "cache")
    return scan_cache.ingest(tables.Listing(scans), **{**options, **changes})


@pytest.mark.parametrize(("name", "affine"), [("mni182", LAS_1), ("mni91", LAS_2)])
def test_an_array_lies_as_the_nifti_file_of_its_grid(tmp_path, name, affine):
    """The same numbers, once as an array of float64 and once as NIfTI with the affine: the same volume to the bit."""
    shape = grids.GRIDS[name].shape
    array = save_array(tmp_path / "a.npy", 1, shape, affine)
    image = save_image(tmp_path / "a.nii.gz", 1, shape, affine)
    found, expected = volumes.load_volume(array, grids.GRIDS[name]), volumes.load_volume(image)
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert found[2:5] == expected[2:5] and found.orientation == "LAS"


@pytest.mark.parametrize("name", grids.GRIDS)
def test_grids_hold_the_head(name):
    """The centre of the brain is inside, and the middle of the first axis is within two voxels of the midline."""
    grid = grids.GRIDS[name]
    affine = np.array(grid.affine)
    place = np.linalg.inv(affine) @ [0, -24, 12, 1]
    assert (place[:3] > 0).all() and (place[:3] < grid.shape).all()
    assert abs(place[0] - (grid.shape[0] - 1) / 2) < 2


def test_fsl_s_1_mm_array_is_only_flipped(tmp_path):
    """No value is interpolated: the first axis is reversed, and that is all."""
    path = save_array(tmp_path / "a.npy", 3, (182, 218, 182), LAS_1)
    prepared, _ = volumes.prepare_channels(
        scan(path, grid=grids.GRIDS["mni182"]), (182, 218, 182), "affine", "percentile"
    )
    raw = np.load(path)[0, 0].astype(np.float32)[::-1]
    np.testing.assert_array_equal(prepared[..., 0], raw / np.percentile(raw[raw != 0], 99))


def test_the_right_side_stays_right(tmp_path):
    """`ball` is brighter where x is positive; on the grid x rises with the first axis."""
    path = save_array(tmp_path / "a.npy", 0, (121, 145, 121), np.array(grids.GRIDS["mni121"].affine))
    (volume,) = ingest(tmp_path, scan(path, grid=grids.GRIDS["mni121"])).volumes
    assert is_brighter_on_the_right(volume)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda p: np.save(p, np.zeros((4, 182, 218, 182), np.uint8)), "an array of 4 axes; its shape is"),
        (lambda p: np.save(p, np.ones((91, 109, 91), np.float32)), r"another shape; it has \(91, 109, 91\)"),
        (lambda p: np.save(p, np.zeros((182, 218, 182), complex)), "an array of complex128; save the grey levels"),
        (lambda p: np.save(p, np.array([{}]), allow_pickle=True), "no NumPy array; save it by numpy.save"),
        (lambda p: p.write_bytes(b"\x93NUMPY"), "no NumPy array"),
        (lambda p: p.write_bytes(b""), "empty file"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1"), "Git LFS pointer; fetch it"),
        (lambda p: None, "no such file"),
        (lambda p: np.save(p, np.zeros((182, 218, 182), np.uint8)), "constant image"),
    ],
)
def test_arrays_that_are_no_volume_are_one_sentence(tmp_path, content, message):
    content(tmp_path / "a.npy")
    with pytest.raises(nifti.ScanError, match=message):
        volumes.load_volume(tmp_path / "a.npy", grids.GRIDS["mni182"])


def test_a_truncated_array_is_refused(tmp_path):
    path = save_array(tmp_path / "a.npy", 0, (91, 109, 91), LAS_2)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(nifti.ScanError, match="no NumPy array"):
        volumes.load_volume(path, grids.GRIDS["mni91"])


def test_an_array_of_nobody_s_grid_is_refused_when_it_is_listed_and_when_it_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((91, 109, 91), np.float32))
    (tmp_path / "t.csv").write_text("id,age,path\na,60,a.npy\n")
    with pytest.raises(ArgumentError, match=r"^affine is None: .*a\.npy is an array .*set it to one of mni182, mni91"):
        scan_tables.read_table(tmp_path / "t.csv")
    with pytest.raises(ArgumentError, match="^affine is 'mni': it must be one of mni182"):
        scan_tables.read_table(tmp_path / "t.csv", affine="mni")
    with pytest.raises(ArgumentError, match=r"^affine is \[\[1, 0\]\]: .* three rows of four numbers"):
        scan_tables.read_table(tmp_path / "t.csv", affine=[[1, 0]])
    (read,) = scan_tables.read_table(tmp_path / "t.csv", affine="mni91").scans
    assert read.grid == grids.GRIDS["mni91"]
    with pytest.raises(nifti.ScanError, match="an array without an affine"):
        volumes.load_array(tmp_path / "a.npy", None)


def test_an_affine_may_be_given_in_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("id,age,path\na,60,a.npy\nb,61,b.nii\n")
    numbers = LAS_2[:3].tolist()
    array, image = scan_tables.read_table(tmp_path / "t.csv", affine=numbers).scans
    np.testing.assert_array_equal(array.grid.affine, LAS_2)
    assert array.grid.shape is None and image.grid is None  # an image says itself how it lies
    flat = scan_tables.read_table(tmp_path / "t.csv", affine=LAS_2.ravel().tolist()).scans[0]
    assert flat.grid == array.grid


def test_channels_are_brought_onto_the_grid_each_by_itself(tmp_path):
    one, two = save_image(tmp_path / "t1.nii.gz", 1), save_image(tmp_path / "flair.nii.gz", 2, (91, 109, 91), LAS_2)
    alone = [ingest(tmp_path, scan(path)).volumes[0] for path in (one, two)]
    both = ingest(tmp_path, scan(one, channels=(two,)))
    assert both.inputs.shape == (1, 16, 18, 16, 2)
    for i, expected in enumerate(alone):
        np.testing.assert_array_equal(both.inputs[0, ..., i], expected)
    np.testing.assert_array_equal(both.volumes[0], alone[0])
    assert "channels  2 images of each head" in scan_cache.summarize_scans(both)


def test_the_cache_knows_all_images(tmp_path):
    one, two = save_image(tmp_path / "t1.nii.gz", 1), save_image(tmp_path / "flair.nii.gz", 2)
    before = ingest(tmp_path, scan(one, channels=(two,))).inputs.filename
    assert ingest(tmp_path, scan(one, channels=(two,))).inputs.filename == before
    save_image(two, 3)
    assert ingest(tmp_path, scan(one, channels=(two,))).inputs.filename != before
    assert ingest(tmp_path, scan(one)).inputs.filename != before


def test_the_cache_knows_how_an_array_lies(tmp_path):
    path = save_array(tmp_path / "a.npy", 1, (91, 109, 91), LAS_2)
    turned = LAS_2.copy()
    turned[0] = -turned[0]
    grids_ = [grids.Grid(tuple(map(tuple, affine.tolist()))) for affine in (LAS_2, turned)]
    one, other = (ingest(tmp_path, scan(path, grid=grid)).volumes[0] for grid in grids_)
    assert is_brighter_on_the_right(one) and is_brighter_on_the_right(other[::-1])


def test_one_channel_is_stored_as_ever(tmp_path):
    scan_set = ingest(tmp_path, scan(save_image(tmp_path / "a.nii.gz", 1)))
    assert np.load(scan_set.inputs.filename).shape == (1, 16, 18, 16) and scan_set.inputs.shape == (1, 16, 18, 16, 1)
    assert isinstance(scan_set.inputs, np.memmap)


def test_volumes_of_a_file_are_channels_only_where_that_is_said(tmp_path):
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = (-90, -126, -72)
    data = np.stack([ball(GRID, affine, seed) for seed in (1, 2)], -1)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "both.nii.gz")
    (tmp_path / "t.csv").write_text("id,age,path\na,60,both.nii.gz\n")
    with pytest.raises(UsageError, match="4D image"):
        ingest(tmp_path, *scan_tables.read_table(tmp_path / "t.csv").scans)
    both = ingest(tmp_path, *scan_tables.read_table(tmp_path / "t.csv", volumes=2).scans)
    for i in range(2):
        single = scan(save_image(tmp_path / f"{i}.nii.gz", i + 1, GRID, affine))
        np.testing.assert_array_equal(both.inputs[0, ..., i], ingest(tmp_path, single).volumes[0])
    with pytest.raises(UsageError, match="not 3 volumes"):
        ingest(tmp_path, *scan_tables.read_table(tmp_path / "t.csv", volumes=3).scans)
    with pytest.raises(ArgumentError, match="^volumes is 0: a file has at least one volume"):
        scan_tables.read_table(tmp_path / "t.csv", volumes=0)


def test_columns_of_paths_are_channels(tmp_path):
    (tmp_path / "t.csv").write_text("id,age,t1w,flair\na,60,a.nii,b.nii\nb,61,c.nii,n/a\n")
    listing = scan_tables.read_table(tmp_path / "t.csv", path_col="t1w,flair")
    assert [(one.path.name, one.channels[0].name) for one in listing.scans] == [("a.nii", "b.nii")]
    assert [drop.reason for drop in listing.dropped] == ["path is missing"]
    with pytest.raises(ArgumentError, match="^volumes is 2: the channels are several files already; set it to 1"):
        scan_tables.read_table(tmp_path / "t.csv", path_col="t1w,flair", volumes=2)


def test_channels_that_do_not_fit_are_refused(tmp_path):
    one, two = save_image(tmp_path / "t1.nii.gz", 1), save_image(tmp_path / "flair.nii.gz", 2)
    with pytest.raises(UsageError, match=r"as many channels \(.* has 1, .* has 2\)"):
        ingest(tmp_path, scan(one), scan(one, channels=(two,)))
    with pytest.raises(ArgumentError, match=r"^align is 'rough': several channels must lie on one another"):
        ingest(tmp_path, scan(one, channels=(two,)), align="rough")
    two.write_bytes(b"<html>")
    with pytest.raises(UsageError, match="1 x web page"):
        ingest(tmp_path, scan(one, channels=(two,)))

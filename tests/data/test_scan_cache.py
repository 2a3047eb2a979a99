"""The cache: what is in it, when it is made anew, and what is said about what was left out."""

import errno

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.core import files
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data import bids, nifti, scan_cache, tables

SHAPE = (12, 14, 12)


@pytest.fixture
def listing(tmp_path):
    scans = []
    for i in range(3):
        data = np.zeros(SHAPE, np.float32)
        data[2:-2, 2:-2, 2:-2] = np.random.default_rng(i).uniform(100, 200, (8, 10, 8))
        path = tmp_path / f"{i}.nii.gz"
        nib.save(nib.Nifti1Image(data, nifti.grid_affine(SHAPE)), path)
        scans.append(tables.Scan(path, f"sub-{i}", "", 60.0 + i, "F", "n/a"))
    return tables.Listing(tuple(scans))


def read(listing, tmp_path, **changes):
    options = dict(shape=SHAPE, align="affine", normalise="volume", cache_dir=tmp_path / "cache")
    return scan_cache.ingest(listing, **{**options, **changes})


def test_the_cache_holds_what_the_files_hold(listing, tmp_path):
    scan_set = read(listing, tmp_path)
    assert scan_set.volumes.shape == (3, *SHAPE) and isinstance(scan_set.volumes, np.memmap)
    for volume, scan in zip(scan_set.volumes, scan_set.scans):
        raw = nib.load(scan.path).get_fdata()
        np.testing.assert_allclose(volume, (raw - raw.mean()) / raw.std(), atol=1e-5)


def test_a_full_disk_is_said_before_anything_is_written_and_leaves_nothing(listing, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device: '.*cache'"):
        patch.setattr(scan_cache.os, "posix_fallocate", full)
        read(listing, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(read(listing, tmp_path).volumes) == 3


@pytest.mark.parametrize("cause", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_a_passing_error_of_the_machine_is_not_remembered_as_a_bad_scan(listing, tmp_path, monkeypatch, cause):
    prepare = nifti.prepare_scan

    def fails(path, *others):
        if path == listing.scans[1].path:
            raise nifti.ScanError(path, "damaged compression", "fetch it again") from cause
        return prepare(path, *others)

    with monkeypatch.context() as patch, pytest.raises((OSError, UsageError), match=r"1\.nii\.gz"):
        patch.setattr(nifti, "prepare_scan", fails)
        read(listing, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(read(listing, tmp_path).scans) == 3


def test_what_a_killed_process_left_is_deleted_and_what_a_live_one_writes_is_not(listing, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/.scans-0.npy.0a1b2c3d.partial").write_bytes(b"half")
    with files.partial_file(tmp_path / "cache/scans-1.npy") as alive:
        assert len(read(listing, tmp_path).scans) == 3
        assert [path.name for path in (tmp_path / "cache").glob(".*.partial")] == [alive.name]


@pytest.mark.parametrize("workers", [1, 2])
def test_one_image_by_two_names_is_one_scan(listing, tmp_path, workers):
    """Copied and named anew, as somebody who is twice in a cohort; else he could be in training and in the test set."""
    twin = tmp_path / "another.nii.gz"
    twin.write_bytes(listing.scans[1].path.read_bytes())
    scans = (*listing.scans, tables.Scan(twin, "sub-9", "", 61.0, "F", "n/a"))
    scan_set = read(listing._replace(scans=scans), tmp_path, workers=workers)
    assert [scan.participant for scan in scan_set.scans] == ["sub-0", "sub-1", "sub-2"]
    (drop,) = scan_set.dropped
    assert drop.reason == "the same image as another scan's" and drop.detail.endswith("1.nii.gz, of sub-1")


def test_the_second_time_no_image_is_read(listing, tmp_path, monkeypatch):
    first = read(listing, tmp_path)
    monkeypatch.setattr(nifti, "prepare_scan", lambda *_: pytest.fail("an image was read"))
    again = read(listing, tmp_path)
    np.testing.assert_array_equal(first.volumes, again.volumes)
    assert first[1:] == again[1:]


@pytest.mark.parametrize("change", ["content", "age", "option"])
def test_a_change_makes_it_anew(listing, tmp_path, change):
    before = set(read(listing, tmp_path).volumes.filename for _ in range(2))
    options = {}
    if change == "content":
        nib.save(
            nib.Nifti1Image(np.random.default_rng(9).uniform(1, 2, SHAPE), nifti.grid_affine(SHAPE)),
            listing.scans[1].path,
        )
    if change == "age":
        listing = listing._replace(scans=(listing.scans[0]._replace(age=1.0), *listing.scans[1:]))
    if change == "option":
        options = dict(normalise="brain")
    assert len(before) == 1 and read(listing, tmp_path, **options).volumes.filename not in before


def test_a_header_counts_with_its_voxels(listing, tmp_path):
    """Of a pair only the header's path is listed; what changes, or comes later, is the other file."""
    image = nib.load(listing.scans[1].path)
    nib.save(nib.Nifti1Pair(np.asarray(image.dataobj), image.affine), tmp_path / "a.hdr")
    scans = (listing.scans[0], listing.scans[1]._replace(path=tmp_path / "a.hdr"))
    listing, voxels = listing._replace(scans=scans), tmp_path / "a.img"
    before = read(listing, tmp_path).volumes[1]
    content = voxels.read_bytes()
    voxels.write_bytes(np.sqrt(np.frombuffer(content, np.float32)).tobytes())
    assert (read(listing, tmp_path).volumes[1] != before).any()
    voxels.unlink()
    assert [drop.reason for drop in read(listing, tmp_path).dropped] == ["no .img beside it"]
    voxels.write_bytes(content)
    np.testing.assert_array_equal(read(listing, tmp_path).volumes[1], before)


def test_what_was_dropped_is_named_where_it_lies_now(listing, tmp_path):
    """The same files in two folders share a cache; each is told of its own."""
    for folder in ("p", "q"):
        (tmp_path / folder).mkdir()
        for scan in listing.scans:
            (tmp_path / folder / scan.path.name).write_bytes(scan.path.read_bytes())
        (tmp_path / folder / "1.nii.gz").write_bytes(b"<!doctype html>")
        (tmp_path / folder / "twin.nii.gz").write_bytes(listing.scans[0].path.read_bytes())
    found = {}
    for folder in ("p", "q"):
        scans = [scan._replace(path=tmp_path / folder / scan.path.name) for scan in listing.scans]
        twin = scans[0]._replace(path=tmp_path / folder / "twin.nii.gz", participant="sub-9")
        found[folder] = read(listing._replace(scans=(*scans, twin)), tmp_path)
    assert found["p"].volumes.filename == found["q"].volumes.filename
    for folder, scan_set in found.items():
        names = [str(tmp_path / folder / name) for name in ("1.nii.gz", "twin.nii.gz")]
        assert [drop.what for drop in scan_set.dropped] == names
        assert scan_set.dropped[1].detail == "0.nii.gz, of sub-0"


@pytest.mark.parametrize("align", ["affine", "rough"])
def test_the_summary_names_the_alignment(listing, tmp_path, align):
    text = scan_cache.summarize_scans(read(listing, tmp_path, align=align))
    assert f"align     {align}: " in text


def test_broken_files_are_dropped_with_their_reason(listing, tmp_path):
    listing.scans[1].path.write_bytes(b"<!doctype html>")
    scan_set = read(listing, tmp_path)
    assert [scan.participant for scan in scan_set.scans] == ["sub-0", "sub-2"]
    assert [drop.reason for drop in scan_set.dropped] == ["web page"]
    assert scan_set.volumes.shape == (2, *SHAPE)
    text = scan_cache.summarize_scans(scan_set)
    assert "accepted  2 scans of 2 people" in text and "1  web page" in text
    scan_cache.write_tables(scan_set, tmp_path)
    assert len((tmp_path / "accepted.tsv").read_text().splitlines()) == 3
    assert "web page" in (tmp_path / "dropped.tsv").read_text()


def test_nothing_left_is_one_sentence_with_counts(listing, tmp_path):
    for scan in listing.scans:
        scan.path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"None of the 3 scans can be used \(3 x empty file\)"):
        read(listing, tmp_path)
    assert not list((tmp_path / "cache").iterdir())


def test_a_killed_ingest_leaves_no_cache(listing, tmp_path):
    def killed(items, description, total):
        for item in items:
            yield item
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(listing, tmp_path, progress=killed)
    assert not list((tmp_path / "cache").iterdir())
    assert len(read(listing, tmp_path).scans) == 3


def test_threads_change_nothing(listing, tmp_path):
    alone = read(listing, tmp_path)
    many = read(listing, tmp_path, workers=3, cache_dir=tmp_path / "other")
    np.testing.assert_array_equal(alone.volumes, many.volumes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(align="by eye"), "^align is 'by eye': it must be one of affine, rough"),
        (dict(normalise="not"), "^normalise is 'not': it must be one of volume, brain, percentile"),
        (dict(shape=(4, 4)), r"^shape is \(4, 4\): it needs three numbers of voxels"),
    ],
)
def test_unknown_options_are_refused(listing, tmp_path, wrong, message):
    with pytest.raises(ArgumentError, match=message):
        read(listing, tmp_path, **wrong)
    assert not (tmp_path / "cache").exists()


def test_real_brains(repository, tmp_path):
    root = repository / "tests/files/ds002748_small"
    scan_set = read(bids.read_bids(root), tmp_path, shape=(24, 28, 24), normalise="brain")
    assert len(scan_set.scans) == 6 and not scan_set.dropped
    assert sorted(scan.age for scan in scan_set.scans) == [19, 24, 31, 39, 44, 55]
    inside = scan_set.volumes != 0
    assert 0.15 < inside.mean() < 0.45
    mean_brain = inside.mean(0) > 0.5
    for brain in inside:  # upright and overlapping
        assert 2 * (brain & mean_brain).sum() / (brain.sum() + mean_brain.sum()) > 0.85

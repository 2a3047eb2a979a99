"""Registration: heads whose place is known are found, what was found is kept, and a missing extra is said."""

import sys

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data import bids, nifti, pose_search, registration, scan_cache, tables, templates
from fedsparse_jax.data.resampling import resample_evenly
from tests.helpers.heads import distances, rigid, template_brain, with_skull

SHAPE = (24, 28, 24)
TURNED = "turned by more than 45 degrees: the header may be wrong, and then left may be right"


@pytest.mark.parametrize(
    ("turns", "shift", "head"), [((180, 0, 0), (9, 20, 30), False), ((25, 8, -20), (-40, 30, 10), True)]
)
def test_the_search_finds_the_brain_to_a_voxel_and_25_degrees(turns, shift, head):
    data, affine = template_brain()
    if head:
        data, affine = with_skull(data, affine)
    known = rigid(turns, shift)
    pose = pose_search.search_poses(*resample_evenly(data, known @ affine, 8.0))[0]
    turn, scale = pose.move[:3, :3], np.linalg.det(pose.move[:3, :3]) ** (1 / 3)
    degrees = np.degrees(np.arccos(np.clip((np.trace(known[:3, :3].T @ turn / scale) - 1) / 2, -1, 1)))
    assert distances(pose.move, known)[0] < 8 and degrees < 25


HEADS = {  # whether the skull is there, degrees, mm, scale
    "head, back to front": (True, (0, 0, 180), (5, 0, 0), 0.95),
    "stripped": (False, (14, -6, 9), (25, -30, 10), 1.07),
    "head, tilted": (True, (14, -6, 9), (25, -30, 10), 1.07),
    "head on its side": (True, (-80, 0, 0), (0, 40, 0), 1.0),
    "stripped, upside down": (False, (180, 0, 0), (0, 0, 0), 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEADS)
def test_a_known_move_is_recovered_to_a_millimetre(kind):
    head, turns, shift, scale = HEADS[kind]
    data, affine = template_brain()
    if head:
        data, affine = with_skull(data, affine)
    known = rigid(turns, shift, scale)
    found = registration.register(data, known @ affine)
    assert distances(found.move, known).max() < 1.5
    assert found.head == head and found.scale == pytest.approx(scale, abs=0.01)
    angle = np.degrees(np.arccos((np.trace(known[:3, :3] / scale) - 1) / 2))
    assert found.rotation == pytest.approx(angle, abs=1)
    assert found.overlap > 0.93 and found.correlation > 0.85
    assert found.warnings() == ([TURNED] if angle > 45 else [])
    unbiased = found.unbias(data, known @ affine)
    inside = lambda values: values[tuple(slice(p, p + n) for p, n in zip(_pads(data), _inside().shape))][_inside()]
    rows = np.broadcast_to(np.arange(_inside().shape[1])[:, None], _inside().shape)[_inside()]
    bent = [abs(np.corrcoef(rows, inside(values))[0, 1]) for values in (data, unbiased)]
    assert bent[1] < 0.85 * bent[0]  # brightness no longer grows from back to front


def _inside():
    return templates.load_template().inside


def _pads(data):
    return [(n - m) // 2 for n, m in zip(data.shape, _inside().shape)]


def test_the_warnings_by_hand():
    sound = registration.Registration(np.eye(4), np.zeros((2, 2, 2)), np.eye(4), False, 0.95, 0.5, 10.0, 1.0)
    assert sound.warnings() == []
    assert sound._replace(overlap=0.8).warnings() == ["registration in doubt: overlap below 0.88"]
    assert sound._replace(correlation=0.1).warnings() == ["registration in doubt: correlation below 0.2"]
    assert sound._replace(correlation=-0.3).warnings()[0].startswith("dark where a T1-weighted image is bright")
    assert sound._replace(move=np.diag([1.5, 1, 1, 1])).warnings() == ["registration in doubt: an unlikely size"]
    assert sound._replace(rotation=90.0).warnings() == [TURNED]


def test_bias_is_divided_out_wherever_the_scan_lies():
    field = np.full((3, 3, 3), np.log(2.0), np.float32)
    kept = registration.Registration(np.eye(4), field, np.diag([60.0, 60, 60, 1]), False, 1, 1, 0, 1)
    affine = rigid((0, 0, 90), (50, 0, 0)) @ np.diag([8.0, 8, 8, 1])
    np.testing.assert_allclose(kept.unbias(np.full((9, 9, 9), 6.0, np.float32), affine), 3.0, rtol=1e-5)


@pytest.fixture
def counted(monkeypatch):
    """Registration by the header alone, which is counted."""
    calls = []

    def register(data, affine):
        calls.append(1)
        return registration.Registration(
            np.eye(4), np.zeros((2, 2, 2), np.float32), np.eye(4), False, 0.95, 0.5, 1.0, 1.0
        )

    monkeypatch.setattr(registration, "register", register)
    return calls


def test_what_was_found_is_kept_and_a_damaged_file_is_made_anew(counted, tmp_path):
    file = tmp_path / "registrations/a.npz"
    first = registration.register_once(np.ones((9, 9, 9)), np.eye(4), file)
    again = registration.register_once(np.ones((9, 9, 9)), np.eye(4), file)
    assert counted == [1] and first[3:] == again[3:] and type(again.head) is bool
    np.testing.assert_array_equal(first.move, again.move)
    file.write_bytes(file.read_bytes()[:100])
    registration.register_once(np.ones((9, 9, 9)), np.eye(4), file)
    assert counted == [1, 1]


@pytest.fixture
def listing(tmp_path):
    scans = []
    for i in range(4):
        data, affine = template_brain(seed=i)
        path = tmp_path / f"{i}.nii.gz"
        nib.save(nib.Nifti1Image(data[::2, ::2, ::2], affine @ np.diag([2.0, 2, 2, 1])), path)
        scans.append(tables.Scan(path, f"sub-{i}", "", 60.0 + i, "F", "n/a"))
    return tables.Listing(tuple(scans))


def ingest(listing, tmp_path, **changes):
    options = dict(shape=SHAPE, align="register", normalise="volume", cache_dir=tmp_path / "cache")
    return scan_cache.ingest(listing, **{**options, **changes})


def test_a_stopped_preparation_goes_on_scan_by_scan(counted, listing, tmp_path):
    def killed(items, description, total):
        assert description == "Registering scans"
        for i, item in enumerate(items):
            yield item
            if i == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(listing, tmp_path, progress=killed)
    done = len(counted)
    assert 2 <= done < 4
    scan_set = ingest(listing, tmp_path)
    assert len(counted) == 4 and len(scan_set.scans) == 4
    ingest(listing, tmp_path, shape=(12, 14, 12))  # another grid needs no other registration
    assert len(counted) == 4


def test_a_registered_cohort_says_so_and_names_the_licence(counted, listing, tmp_path):
    scan_set = ingest(listing, tmp_path, workers=2)
    text = scan_cache.summarize_scans(scan_set)
    assert "align     register: each scan registered to the ICBM 152" in text and "whose licence stands" in text
    kept = tmp_path / "cache/registrations"
    assert "McGill University" in (kept / "LICENCE.txt").read_text() and len(list(kept.glob("*.npz"))) == 4
    assert [quality.overlap for quality in scan_set.quality] == [0.95] * 4
    inside = registration.brain_on_grid(nifti.grid_affine(SHAPE), SHAPE, head=False)
    background = scan_set.volumes[0].min()
    assert (scan_set.volumes[0][~inside] == background).all()


def test_a_head_is_stripped_by_the_template_s_brain():
    affine = nifti.grid_affine((91, 109, 91))
    narrow, wide = (registration.brain_on_grid(affine, (91, 109, 91), head) for head in (True, False))
    assert (narrow <= wide).all()
    assert 1.9 < narrow.sum() * 8e-6 < 2.3  # litres: the template's 1.88 and a rim of 2 mm
    assert wide.sum() > 1.05 * narrow.sum()


@pytest.mark.parametrize("package", ["SimpleITK", "nilearn"])
def test_a_missing_extra_is_one_sentence_with_the_command(listing, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    templates.load_template.cache_clear()
    with pytest.raises(UsageError, match=r"^data.align is 'register', which needs SimpleITK and nilearn: pip install"):
        ingest(listing, tmp_path)
    assert not list((tmp_path / "cache").glob("*"))


def test_what_cannot_be_registered_is_dropped_with_its_reason(listing, tmp_path, monkeypatch):
    def fails(data, affine):
        raise RuntimeError("all samples map outside\nmoving image buffer")

    monkeypatch.setattr(registration, "register", fails)
    with pytest.raises(UsageError, match="4 x cannot be registered"):
        ingest(listing, tmp_path)


@pytest.mark.slow
def test_real_brains_land_however_they_lie(repository):
    root = repository.parent / "shared/data/ds002748_subset"
    if not root.is_dir():
        pytest.skip("the raw scans are not here")
    scan = bids.read_bids(root).scans[1]
    image = nifti.load_image(scan.path)
    known = rigid((15, -10, 20), (20, -25, 15))
    found = registration.register(image.data, image.affine)
    again = registration.register(image.data, known @ image.affine)
    assert found.overlap > 0.94 and found.correlation > 0.5 and found.warnings() == []
    assert distances(np.linalg.inv(known) @ again.move, found.move).max() < 3
    twice = registration.register(image.data, image.affine)
    np.testing.assert_array_equal(twice.move, found.move)

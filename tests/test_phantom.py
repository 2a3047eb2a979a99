"""The synthetic brain: deterministic, ageing as published, and a folder that any BIDS reader accepts."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.data import bids, brain, nifti, phantom
from fedsparse_jax.types import UsageError

SHAPE = (12, 14, 12)


def cohort(root, people=4, **options):
    return phantom.write_cohort(root, people=people, **{"shape": SHAPE, "seed": 3, **options})


def hashes(root, pattern="*.nii.gz"):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob(pattern))}


def typical(age, **options):
    return brain.person(age, np.random.default_rng(0), spread=0.0, **options)


def test_the_seed_decides_every_byte(tmp_path):
    assert hashes(cohort(tmp_path / "a")) == hashes(cohort(tmp_path / "b"))
    assert hashes(cohort(tmp_path / "c", seed=4)) != hashes(tmp_path / "a")


def test_a_larger_cohort_begins_with_the_same_people(tmp_path):
    small, large = hashes(cohort(tmp_path / "a", people=3)), hashes(cohort(tmp_path / "b", people=5))
    assert len(large) == 5 and small.items() <= large.items()


def test_threads_change_nothing(tmp_path):
    assert hashes(cohort(tmp_path / "a")) == hashes(cohort(tmp_path / "b", workers=2))


def test_the_folder_is_read_like_any_other(tmp_path):
    listing = bids.read_bids(cohort(tmp_path / "a", sites=3))
    assert len(listing.scans) == 4 and not listing.dropped
    assert all(
        44 <= scan.age <= 82 and scan.sex in "FM" and scan.site.startswith("site") for scan in listing.scans
    )
    description = json.loads((tmp_path / "a/dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"]


def test_the_truth_is_apart(tmp_path):
    root = cohort(tmp_path / "a")
    columns = (root / "participants.tsv").read_text().splitlines()[0].split("\t")
    assert columns == ["participant_id", "age", "sex", "site"]
    truth = (root / "phenotype/latents.tsv").read_text().splitlines()
    assert len(truth) == 5 and {"true_gap", "vent_ml", "wmh_ml"} <= set(truth[0].split("\t"))


def test_background_is_exactly_zero_and_the_affine_is_the_grid_s(tmp_path):
    root = cohort(tmp_path / "a", people=1)
    image = nib.load(next(root.rglob("*.nii.gz")))
    data = np.asarray(image.dataobj)
    edge = np.ones(SHAPE, bool)
    edge[1:-1, 1:-1, 1:-1] = False
    assert (data[edge] == 0).mean() > 0.95 and 0.2 < (data > 0).mean() < 0.5
    np.testing.assert_allclose(image.affine, nifti.grid_affine(SHAPE), atol=1e-4)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header["sform_code"] > 0 and image.header["qform_code"] > 0


def test_an_unfinished_cohort_is_continued(tmp_path):
    def killed(items, description, total):
        for i, item in enumerate(items):
            if i == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        cohort(tmp_path / "a", track=killed)
    assert not (
        tmp_path / "a/dataset_description.json"
    ).exists()  # written last, so not taken for a whole one
    assert hashes(cohort(tmp_path / "a")) == hashes(cohort(tmp_path / "b"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    cohort(tmp_path / "a")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match=str(tmp_path)):
        cohort(tmp_path)
    cohort(tmp_path / "a")
    with pytest.raises(UsageError, match="something other"):
        cohort(tmp_path / "a", seed=9)


@pytest.mark.parametrize("wrong", [dict(people=0), dict(spread=-1.0), dict(shape=(0, 4, 4)), dict(sites=0)])
def test_impossible_options(tmp_path, wrong):
    with pytest.raises(UsageError, match=r"data\.options\."):
        cohort(tmp_path / "a", **{"people": 2, **wrong})


def test_ventricles_grow_as_published():
    # 18 ml x exp(.020 t + .00022 t |t|) with t = age - 45, for a person without peculiarities.
    for age, expected in ((45, 18.0), (65, 29.3), (85, 57.0)):
        assert typical(age).vent_ml == pytest.approx(expected, rel=0.02)
    assert typical(65, sex="M").vent_ml > typical(65, sex="F").vent_ml


def test_every_sign_of_age_points_the_right_way():
    young, old = typical(50), typical(80)
    for grows in ("vent_ml", "third_mm", "sulcus_mm", "rim_mm", "wmh_ml", "gm", "iron"):
        assert getattr(old, grows) > getattr(young, grows)
    for shrinks in ("thick_mm", "depth_mm", "hippo_ml", "wm", "deep"):
        assert getattr(old, shrinks) < getattr(young, shrinks)
    assert old.folds == young.folds


def test_age_shows_in_the_image():
    bright = [(lambda v: (v > 200).sum())(brain.render(typical(age), (24, 28, 24))) for age in (45, 65, 85)]
    assert bright[0] > bright[1] > bright[2]


def test_a_person_keeps_the_brain_and_two_people_differ():
    one, other = (brain.person(60.0, np.random.default_rng(i)) for i in (1, 2))
    scans = [brain.render(one, (24, 28, 24), scan_seed=k).ravel() for k in (0, 1)] + [
        brain.render(other, (24, 28, 24)).ravel()
    ]
    again, different = np.corrcoef(scans)[0, 1:]
    assert again > 0.99 > different

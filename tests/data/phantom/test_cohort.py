"""A cohort of phantoms: the seed decides every byte of a folder that any BIDS reader accepts."""

import csv
import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data import bids, nifti
from fedsparse_jax.data.phantom import anatomy, cohort

SHAPE = (12, 14, 12)
SMALL = dict(shape=(16, 18, 16), sites=3, seed=7)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def scans(root):
    return sorted(root.rglob("*_T1w.nii.gz"))


def written(root, people=4, **options):
    return cohort.write_cohort(root, people=people, **{"shape": SHAPE, "seed": 3, **options})


def hashes(root, pattern="*.nii.gz"):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob(pattern))}


def test_the_seed_decides_every_byte(tmp_path):
    assert hashes(written(tmp_path / "a")) == hashes(written(tmp_path / "b"))
    assert hashes(written(tmp_path / "c", seed=4)) != hashes(tmp_path / "a")


def test_a_larger_cohort_begins_with_the_same_people(tmp_path):
    small, large = hashes(written(tmp_path / "a", people=3)), hashes(written(tmp_path / "b", people=5))
    assert len(large) == 5 and small.items() <= large.items()


def test_threads_change_nothing(tmp_path):
    assert hashes(written(tmp_path / "a")) == hashes(written(tmp_path / "b", workers=2))


def test_the_folder_is_read_like_any_other(tmp_path):
    listing = bids.read_bids(written(tmp_path / "a", sites=3))
    assert len(listing.scans) == 4 and not listing.dropped
    assert all(44 <= scan.age <= 82 and scan.sex in "FM" for scan in listing.scans)
    assert all(scan.site.startswith("site") for scan in listing.scans)
    description = json.loads((tmp_path / "a/dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"]


def test_the_truth_is_apart(tmp_path):
    root = written(tmp_path / "a")
    columns = (root / "participants.tsv").read_text().splitlines()[0].split("\t")
    assert columns == ["participant_id", "age", "sex", "site"]
    truth = (root / "phenotype/latents.tsv").read_text().splitlines()
    assert len(truth) == 5 and {"true_gap", "vent_ml", "wmh_ml"} <= set(truth[0].split("\t"))


def test_background_is_exactly_zero_and_the_affine_is_the_grid_s(tmp_path):
    root = written(tmp_path / "a", people=1)
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
        written(tmp_path / "a", progress=killed)
    # The description is written last, so that a part is not taken for the whole.
    assert not (tmp_path / "a/dataset_description.json").exists()
    scan = next((tmp_path / "a").rglob("*.nii.gz"))
    scan.with_name(f".{scan.name}.0a1b2c3d.partial").write_bytes(b"what SIGKILL leaves")
    assert hashes(written(tmp_path / "a")) == hashes(written(tmp_path / "b"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    written(tmp_path / "a")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == before


def test_a_start_that_was_killed_before_its_first_file_can_be_made_again(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/..phantom_unfinished.json.0a1b2c3d.partial").touch()
    assert hashes(written(tmp_path / "a")) == hashes(written(tmp_path / "b"))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match=str(tmp_path)):
        written(tmp_path)
    written(tmp_path / "a")
    with pytest.raises(UsageError, match="something other"):
        written(tmp_path / "a", seed=9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(people=0), "^people is 0: that makes no cohort; give at least 1"),
        (dict(spread=-1.0), "^spread is -1.0: that makes no cohort; give 0 or more"),
        (dict(shape=(0, 4, 4)), r"^shape is \(0, 4, 4\): that makes no cohort; .* at least 8 voxels"),
        (dict(shape=(24, 24)), r"^shape is \(24, 24\): give 3 numbers"),
        (dict(sites=0), "^sites is 0: that makes no cohort; give at least 1"),
        (dict(age_range=(82.0, 44.0)), r"^age_range is \(82.0, 44.0\): that makes no cohort"),
        (dict(confound=1.5), "^confound is 1.5: that makes no cohort"),
    ],
)
def test_impossible_options_are_refused(tmp_path, wrong, message):
    with pytest.raises(ArgumentError, match=message):
        written(tmp_path / "a", **{"people": 2, **wrong})
    assert not (tmp_path / "a").exists()


def test_files_keep_the_brain_mask():
    person, site = anatomy.draw_person(60, np.random.default_rng(0)), anatomy.Site(gain=0.01)
    volume = anatomy.render_scan(person, (16, 18, 16), site)
    stored = nib.Nifti1Image.from_bytes(cohort._nifti(volume)).get_fdata()
    np.testing.assert_array_equal(stored > 0, volume > 0)


def test_sessions_are_the_same_person_older(tmp_path):
    root = cohort.write_cohort(tmp_path / "long", people=2, sessions=3, years_between=4.0, **SMALL)
    latents = rows(root / "phenotype" / "latents.tsv")[:3]
    assert [row["session_id"] for row in latents] == ["ses-01", "ses-02", "ses-03"]
    assert len({row["true_gap"] for row in latents}) == 1
    assert float(latents[0]["vent_ml"]) < float(latents[1]["vent_ml"]) < float(latents[2]["vent_ml"])
    first = float(rows(root / "participants.tsv")[0]["age"])
    ages = [float(row["age"]) for row in rows(root / "sub-0001" / "sub-0001_sessions.tsv")]
    np.testing.assert_allclose(ages, [first, first + 4, first + 8])
    assert [path.parent.parent.name for path in scans(root)] == ["ses-01", "ses-02", "ses-03"] * 2


def drawn(**changes):
    options = dict(shape=(8, 8, 8), seed=0, sites=8, spread=1.0, site_strength=1.0, age_mean=62.7, age_sd=7.9)
    options |= dict(age_range=(44.0, 82.0), sessions=1, years_between=2.0, confound=0.0) | changes
    return [cohort.draw_participant(cohort.CohortOptions(people=1500, **options), i) for i in range(1500)]


def test_ages_and_sites_are_drawn_as_asked():
    people = drawn()
    ages, sites = np.array([p.age for p in people]), np.array([p.site for p in people])
    assert ages.mean() == pytest.approx(62.7, abs=0.5) and ages.std() == pytest.approx(7.5, abs=0.4)
    assert ages.min() >= 44 and ages.max() <= 82
    assert np.bincount(sites, minlength=8).min() > 130
    assert abs(np.corrcoef(ages, sites)[0, 1]) < 0.08
    assert np.mean([p.sex == "F" for p in people]) == pytest.approx(0.5, abs=0.05)


def test_confounding_ties_site_to_age():
    for confound, low, high in ((0.6, 0.5, 0.68), (1.0, 0.95, 1.0), (-0.6, -0.68, -0.5)):
        people = drawn(confound=confound)
        assert low < np.corrcoef([p.age for p in people], [p.site for p in people])[0, 1] < high


def test_patients_are_drawn_as_asked_and_have_what_they_are_said_to_have(tmp_path):
    assert np.mean([p.patient for p in drawn(patients=0.3)]) == pytest.approx(0.3, abs=0.04)
    assert [p._replace(patient=False) for p in drawn(patients=0.3)] == drawn()  # the same people otherwise
    root = written(tmp_path / "a", people=60, patients=0.5, spread=0.5)
    table, latents = rows(root / "participants.tsv"), rows(root / "phenotype" / "latents.tsv")
    ill = np.array([row["diagnosis"] == "patient" for row in table])
    hippocampi = np.array([float(row["hippo_ml"]) for row in latents])
    assert 15 < ill.sum() < 45
    assert hippocampi[ill].mean() < 0.87 * hippocampi[~ill].mean()
    assert np.corrcoef(hippocampi, [float(row["memory"]) for row in table])[0, 1] > 0.5


def test_a_patient_is_the_same_person_with_smaller_hippocampi_and_larger_ventricles():
    draw = lambda **traits: anatomy.draw_person(60.0, np.random.default_rng(1), "M", **traits)
    well, ill, strong = draw(), draw(patient=True), draw(sex_strength=8.0)
    assert ill.hippo_ml / well.hippo_ml == pytest.approx(np.exp(-0.22))
    assert ill.vent_ml / well.vent_ml == pytest.approx(np.exp(0.30))
    assert strong.vent_ml / well.vent_ml == pytest.approx(np.exp(7 * 0.07))
    assert ill._replace(hippo_ml=well.hippo_ml, vent_ml=well.vent_ml) == well == strong._replace(vent_ml=well.vent_ml)


def test_options_that_came_later_leave_older_folders_as_they_are(tmp_path):
    """The stamp of a folder without them is that of before, so that it is still taken for this cohort."""
    written(tmp_path / "a")
    stamp = json.loads((tmp_path / "a/dataset_description.json").read_text())["GeneratedBy"][0]["Options"]
    assert not stamp.keys() & {"sex_strength", "patients"}
    assert (tmp_path / "a/participants.tsv").read_text().startswith("participant_id\tage\tsex\tsite\n")

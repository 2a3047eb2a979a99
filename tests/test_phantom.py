"""The phantom: published rates of ageing, the same bytes for a seed, and a folder that is never half-trusted."""

import csv
import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.data import brain, phantom
from fedsparse_jax.types import UsageError

SMALL = dict(shape=(16, 18, 16), sites=3, seed=7)
QUIET = brain.Site(bias=0.0, noise=0.0, blur=0.0)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def digests(root):
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def scans(root):
    return sorted(root.rglob("*_T1w.nii.gz"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return phantom.write_cohort(tmp_path_factory.mktemp("phantom") / "six", people=6, **SMALL)


# --- anatomy


@pytest.mark.parametrize(
    ("age", "ventricles", "hippocampus", "thickness", "lesions"),
    [(45, 18.0, 3.60, 3.00, 0.70), (65, 29.3, 3.14, 2.83, 2.73), (85, 57.0, 2.53, 2.60, 10.6)],
)
def test_median_brain_follows_the_published_curves(age, ventricles, hippocampus, thickness, lesions):
    # The curves worked out by hand, e.g. 18 ml * exp(.020 * 20 + .00022 * 20^2) = 29.3 ml at 65.
    who = brain.person(age, np.random.default_rng(0), spread=0.0)
    found = (who.vent_ml, who.hippo_ml, who.thick_mm, who.wmh_ml)
    np.testing.assert_allclose(found, (ventricles, hippocampus, thickness, lesions), rtol=0.005)
    assert who.true_gap == 0


def test_population_means_are_the_published_volumes():
    for age, ventricles in ((45, 18.5), (65, 30.0), (85, 60.0)):
        people = [brain.person(age, np.random.default_rng(i)) for i in range(600)]
        assert np.mean([who.vent_ml for who in people]) == pytest.approx(ventricles, rel=0.05)
        assert np.std([who.true_gap for who in people]) == pytest.approx(2.0, rel=0.1)


def test_men_have_larger_ventricles():
    women, men = (brain.person(60, np.random.default_rng(1), sex) for sex in "FM")
    assert men.vent_ml / women.vent_ml == pytest.approx(np.exp(0.14))
    assert men._replace(sex="F", vent_ml=women.vent_ml) == women


def test_ageing_brains_lose_tissue_and_gain_fluid():
    def image_of(age, i):
        return brain.render(brain.person(age, np.random.default_rng(i)), (48, 56, 48), QUIET)

    def tissue_share(volume):
        inside = volume[volume > 0]
        return np.mean(inside > 0.5 * np.percentile(inside, 90))

    shares = [np.mean([tissue_share(image_of(age, i)) for i in range(5)]) for age in (45, 65, 85)]
    assert shares[0] > shares[1] + 0.02 and shares[1] > shares[2] + 0.04


def test_rendered_ventricles_grow_as_the_latent_does():
    # The box around the frontal horns and bodies, far from sulci: dark voxels there are ventricle.
    def fluid_ml(age):
        volume = brain.render(brain.person(age, np.random.default_rng(0), spread=0.0), (91, 109, 91), QUIET)
        box = volume[32:59, 37:75, 32:52]
        return 0.008 * np.sum(box < 0.4 * volume.max())

    young, middle, old = map(fluid_ml, (45, 65, 85))
    assert young < 0.8 * middle < 0.8 * 0.8 * old
    assert 8 < young < 25 and 30 < old < 70


def test_background_is_zero_and_brain_is_not():
    volume = brain.render(brain.person(60, np.random.default_rng(0)), (24, 28, 24))
    assert volume.dtype == np.float32 and volume.shape == (24, 28, 24) and np.isfinite(volume).all()
    edges = [volume[0], volume[-1], volume[:, 0], volume[:, -1], volume[..., 0], volume[..., -1]]
    assert not any(edge.any() for edge in edges)
    assert 0.15 < np.mean(volume > 0) < 0.30
    assert volume.min() == 0


def test_scans_of_one_person_resemble_each_other_more_than_another_person():
    first, second = (brain.person(60, np.random.default_rng(i)) for i in (1, 2))
    scans = [
        brain.render(who, (24, 28, 24), QUIET, seed) for who, seed in ((first, 0), (first, 1), (second, 0))
    ]
    again, other = np.corrcoef([scan.ravel() for scan in scans])[0, 1:]
    assert again > 0.99 and other < 0.97
    assert not np.array_equal(scans[0], scans[1])
    np.testing.assert_array_equal(scans[0], brain.render(first, (24, 28, 24), QUIET, 0))


def test_frontal_lobe_is_at_the_front_of_the_array():
    # The cerebellum lies behind and below: +y is to the front and +z is up, as the RAS affine says.
    volume = brain.render(brain.person(50, np.random.default_rng(0), spread=0.0), (24, 28, 24), QUIET)
    bottom = volume[:, :, :6] > 0
    assert bottom[:, :14].sum() > 5 * bottom[:, 14:].sum()


# --- the folder


def test_folder_is_bids(cohort):
    description = json.loads((cohort / "dataset_description.json").read_text())
    assert (
        description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Options"]["seed"] == 7
    )
    people = rows(cohort / "participants.tsv")
    assert list(people[0]) == ["participant_id", "age", "sex", "site"]
    assert [p["participant_id"] for p in people] == [f"sub-{i:04d}" for i in range(1, 7)]
    assert all(44 <= float(p["age"]) <= 82 and p["age"] == f"{float(p['age']):.1f}" for p in people)
    name = "sub-{0}/anat/sub-{0}_space-MNI152NLin6Asym_desc-preproc_T1w.nii.gz"
    assert [str(path.relative_to(cohort)) for path in scans(cohort)] == [
        name.format(f"{i:04d}") for i in range(1, 7)
    ]
    leftovers = [path.name for path in cohort.rglob(".*")]
    assert leftovers == []


def test_latents_are_apart(cohort):
    latents = rows(cohort / "phenotype" / "latents.tsv")
    assert {"true_gap", "vent_ml"} <= set(latents[0]) and not {"age", "sex", "seed"} & set(latents[0])
    assert len(latents) == 6 and set(json.loads((cohort / "phenotype" / "latents.json").read_text())) < set(
        latents[0]
    )
    assert "true_gap" not in (cohort / "participants.tsv").read_text()


def test_images_are_ras_on_the_mni_box(cohort):
    image = nib.load(scans(cohort)[0])
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.get_data_dtype() == np.int16 and image.shape == (16, 18, 16)
    assert int(image.header["sform_code"]) == 4 and int(image.header["qform_code"]) == 4
    np.testing.assert_allclose(image.affine, brain.affine((16, 18, 16)), atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-4)
    corner, far = image.affine @ [-0.5, -0.5, -0.5, 1], image.affine @ [15.5, 17.5, 15.5, 1]
    np.testing.assert_allclose((far - corner)[:3], [182, 218, 182], atol=1e-3)


def test_2_mm_grid_has_the_mni_affine():
    expected = [[2, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]]
    np.testing.assert_array_equal(brain.affine((91, 109, 91)), expected)


def test_files_keep_the_brain_mask():
    who, site = brain.person(60, np.random.default_rng(0)), brain.Site(gain=0.01)
    volume = brain.render(who, (16, 18, 16), site)
    stored = nib.Nifti1Image.from_bytes(phantom._nifti(volume)).get_fdata()
    np.testing.assert_array_equal(stored > 0, volume > 0)


@pytest.mark.parametrize("workers", [1, 3])
def test_same_seed_same_bytes(cohort, tmp_path, workers):
    assert digests(phantom.write_cohort(tmp_path / "again", people=6, workers=workers, **SMALL)) == digests(
        cohort
    )


def test_another_seed_is_another_cohort(cohort, tmp_path):
    other = phantom.write_cohort(tmp_path / "other", people=2, **SMALL | {"seed": 8})
    assert not set(digests(other).values()) & {
        digests(cohort)[str(p.relative_to(cohort))] for p in scans(cohort)
    }


def test_larger_cohort_begins_with_the_same_people(cohort, tmp_path):
    smaller = phantom.write_cohort(tmp_path / "four", people=4, **SMALL)
    assert rows(smaller / "participants.tsv") == rows(cohort / "participants.tsv")[:4]
    assert rows(smaller / "phenotype" / "latents.tsv") == rows(cohort / "phenotype" / "latents.tsv")[:4]
    assert [p.read_bytes() for p in scans(smaller)] == [p.read_bytes() for p in scans(cohort)[:4]]


def test_sessions_are_the_same_person_older(tmp_path):
    root = phantom.write_cohort(tmp_path / "long", people=2, sessions=3, years_between=4.0, **SMALL)
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
    return [phantom.draw_participant(phantom.Options(people=1500, **options), i) for i in range(1500)]


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


# --- unfinished, complete, foreign


def test_complete_cohort_is_left_alone(cohort, monkeypatch):
    monkeypatch.setattr(phantom, "render", lambda *_: pytest.fail("rendered again"))
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    assert phantom.write_cohort(str(cohort), people=6, **SMALL) == cohort
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*")} == before


def test_unfinished_cohort_is_continued(cohort, tmp_path):
    def stop_after_three(items, description, total):
        assert total == 6
        for done, item in enumerate(items, start=1):
            yield item
            if done == 3:
                raise KeyboardInterrupt

    root = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        phantom.write_cohort(root, people=6, track=stop_after_three, **SMALL)
    written = {path: path.stat().st_mtime_ns for path in scans(root)}
    assert len(written) == 3 and not (root / "dataset_description.json").exists()
    phantom.write_cohort(root, people=6, **SMALL)
    assert digests(root) == digests(cohort)
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())


def test_foreign_folders_are_refused(cohort, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match=r"holds something other than this phantom cohort.*another folder"):
        phantom.write_cohort(tmp_path, people=6, **SMALL)
    with pytest.raises(UsageError, match=str(tmp_path / "thesis.txt")):
        phantom.write_cohort(tmp_path / "thesis.txt", people=6, **SMALL)
    with pytest.raises(UsageError, match=str(cohort)):
        phantom.write_cohort(cohort, people=7, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("people", 0), ("shape", (24, 24)), ("sites", 0), ("spread", -1.0), ("age_sd", 0.0), ("age_range", (80, 50)),
     ("age_range", (200, 300)), ("confound", 1.5), ("sessions", 0)],
)  # fmt: skip
def test_impossible_options_are_refused_before_writing(tmp_path, option, value):
    with pytest.raises(UsageError, match=option):
        phantom.write_cohort(tmp_path / "new", **{"people": 2, **SMALL, option: value})
    assert not (tmp_path / "new").exists()

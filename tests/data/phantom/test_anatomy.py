"""The synthetic brain: it ages as published, in the image as in the numbers behind it."""

import numpy as np
import pytest

from fedsparse_jax.data.phantom import anatomy

QUIET = anatomy.Site(bias=0.0, noise=0.0, blur=0.0)


def typical(age, **options):
    return anatomy.draw_person(age, np.random.default_rng(0), spread=0.0, **options)


def test_men_have_larger_ventricles():
    assert typical(65, sex="M").vent_ml > typical(65, sex="F").vent_ml


def test_every_sign_of_age_points_the_right_way():
    young, old = typical(50), typical(80)
    for grows in ("vent_ml", "third_mm", "sulcus_mm", "rim_mm", "wmh_ml", "gm", "iron"):
        assert getattr(old, grows) > getattr(young, grows)
    for shrinks in ("thick_mm", "depth_mm", "hippo_ml", "wm", "deep"):
        assert getattr(old, shrinks) < getattr(young, shrinks)
    assert old.folds == young.folds


def test_age_shows_in_the_image():
    bright = [(anatomy.render_scan(typical(age), (24, 28, 24)) > 200).sum() for age in (45, 65, 85)]
    assert bright[0] > bright[1] > bright[2]


def test_a_person_keeps_the_brain_and_two_people_differ():
    person, other = (anatomy.draw_person(60.0, np.random.default_rng(i)) for i in (1, 2))
    first, second = (anatomy.render_scan(person, (24, 28, 24), scan_seed=k).ravel() for k in (0, 1))
    third = anatomy.render_scan(other, (24, 28, 24)).ravel()
    again, different = np.corrcoef([first, second, third])[0, 1:]
    assert again > 0.99 > different


@pytest.mark.parametrize(
    ("age", "ventricles", "hippocampus", "thickness", "lesions"),
    [(45, 18.0, 3.60, 3.00, 0.70), (65, 29.3, 3.14, 2.83, 2.73), (85, 57.0, 2.53, 2.60, 10.6)],
)
def test_median_brain_follows_the_published_curves(age, ventricles, hippocampus, thickness, lesions):
    # The curves worked out by hand, e.g. 18 ml * exp(.020 * 20 + .00022 * 20^2) = 29.3 ml at 65.
    person = typical(age)
    drawn = (person.vent_ml, person.hippo_ml, person.thick_mm, person.wmh_ml)
    np.testing.assert_allclose(drawn, (ventricles, hippocampus, thickness, lesions), rtol=0.005)
    assert person.true_gap == 0


def test_population_means_are_the_published_volumes():
    for age, ventricles in ((45, 18.5), (65, 30.0), (85, 60.0)):
        people = [anatomy.draw_person(age, np.random.default_rng(i)) for i in range(600)]
        assert np.mean([person.vent_ml for person in people]) == pytest.approx(ventricles, rel=0.05)
        assert np.std([person.true_gap for person in people]) == pytest.approx(2.0, rel=0.1)


def test_frontal_lobe_is_at_the_front_of_the_array():
    # The cerebellum lies behind and below: +y is to the front and +z is up, as the RAS affine says.
    volume = anatomy.render_scan(typical(50), (24, 28, 24), QUIET)
    bottom = volume[:, :, :6] > 0
    assert bottom[:, :14].sum() > 5 * bottom[:, 14:].sum()


def test_the_first_scanners_are_the_same_for_any_number_of_them():
    assert anatomy.draw_sites(2, seed=3) == anatomy.draw_sites(5, seed=3)[:2]
    alike = anatomy.draw_sites(2, seed=3, strength=0.0)
    assert alike[0] == alike[1] == anatomy.Site(bias=0.06, noise=0.015, blur=0.0)

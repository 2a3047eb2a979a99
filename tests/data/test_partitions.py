"""Partitions: published sizes, the age bands of the non-IID rule, and people who stay whole."""

import numpy as np
import pytest

from fedsparse_jax.core.types import UsageError
from fedsparse_jax.data import batching, partitions


@pytest.fixture(scope="module")
def ages():
    draws = np.random.default_rng(0).normal(62.7, 7.9, 20_000)
    return draws[(draws > 44) & (draws < 82)][:8356]


def test_skewed_sizes_are_the_published_ones():
    assert partitions.skewed_sizes(8356, 8) == [2401, 1765, 1303, 964, 714, 528, 391, 290]


@pytest.mark.parametrize("count", [8, 50, 512, 1000])
def test_skewed_sizes_use_everybody(count):
    sizes = partitions.skewed_sizes(count, 8)
    assert sum(sizes) == count and sizes == sorted(sizes, reverse=True)


def test_noniid_ages_match_the_reimplemented_rule(ages):
    # Means measured on a population like UK Biobank's; +-1.5 years for another draw of the people.
    parts = partitions.skewed_noniid(ages, None, 8, seed=0)
    means = [ages[part].mean() for part in parts]
    np.testing.assert_allclose(means, [65.8, 64.2, 58.8, 54.6, 71.6, 66.8, 56.3, 51.3], atol=1.5)


def test_iid_clients_have_the_populations_age(ages):
    means = [ages[part].mean() for part in partitions.uniform_iid(ages, None, 8, seed=0)]
    np.testing.assert_allclose(means, ages.mean(), atol=1.0)


def test_small_alpha_makes_clients_differ_more(ages):
    def spread(alpha):
        return np.std([ages[p].mean() for p in partitions.dirichlet(ages, None, 8, 0, alpha=alpha)])

    assert spread(0.1) > 2 * spread(100.0)


def test_no_person_in_two_places():
    rng = np.random.default_rng(0)
    people = [
        {"participant_id": f"sub-{i:02d}", "site": f"s{i % 3}", "session": str(k)}
        for i in range(30)
        for k in range(1 + i % 3)
    ]
    divide = lambda ages, sites, seed: partitions.divide(
        ages, sites, partition=partitions.uniform_iid, num_clients=4, seed=seed
    )
    targets = rng.normal(60, 5, len(people))
    federation = batching.federate(
        np.zeros((len(people), 2)), targets, people, divide=divide, test_share=0.2, seed=1
    )
    places = [
        {people[i]["participant_id"] for i in index} for index in [*federation.members, federation.test]
    ]
    assert sum(map(len, places)) == len(set.union(*places)) == 30
    assert sum(map(len, federation.members)) + len(federation.test) == len(people)


@pytest.mark.parametrize(
    ("count", "clients", "name", "message"),
    [
        (3, 4, "uniform_iid", "only 3 people"),
        (10, 0, "uniform_iid", "at least one client"),
        (9, 8, "skewed_iid", "without data"),
    ],
)
def test_refusals(count, clients, name, message):
    with pytest.raises(UsageError, match=message):
        partitions.divide(
            np.full(count, 60.0),
            ["a"] * count,
            partition=partitions.PARTITIONS[name],
            num_clients=clients,
            seed=0,
        )


def test_sites_are_the_clients():
    parts = partitions.by_site(None, ["b", "a", "b", "c"], 3, 0)
    assert [part.tolist() for part in parts] == [[1], [0, 2], [3]]
    with pytest.raises(UsageError, match="partition.num_clients=3"):
        partitions.by_site(None, ["b", "a", "b", "c"], 2, 0)
    with pytest.raises(UsageError, match="1 of 2 people have no site"):
        partitions.by_site(None, ["n/a", "a"], 1, 0)

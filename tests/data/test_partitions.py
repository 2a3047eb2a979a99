"""Partitions: published sizes, the age bands of the non-IID rule, and people who stay whole."""

import numpy as np
import pytest

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data import partitions


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


@pytest.mark.parametrize(("clients", "classes"), [(10, 3), (10, 1), (7, 2), (3, 2), (25, 2)])
def test_classes_per_client(clients, classes):
    labels = np.resize(np.arange(10), 500)
    parts = partitions.divide(
        labels,
        labels,
        partition=lambda *args: partitions.classes_per_client(*args, classes=classes),
        num_clients=clients,
        seed=1,
    )
    num_classes = [len(np.unique(labels[part])) for part in parts]
    assert num_classes == [max(classes, -(-10 // clients))] * clients
    counts = [[(labels[part] == k).sum() for part in parts if (labels[part] == k).any()] for k in range(10)]
    assert all(max(c) - min(c) <= 1 for c in counts)  # a class is shared out evenly


def test_more_classes_than_the_data_have_are_refused():
    with pytest.raises(ArgumentError, match="^classes is 4: the data have 3 classes; choose 1 to that"):
        partitions.classes_per_client(np.array([0, 1, 2, 0]), None, 2, 0, classes=4)


@pytest.mark.parametrize(
    ("count", "clients", "name", "message"),
    [
        (3, 4, "uniform_iid", "^num_clients is 4: only 3 people"),
        (10, 0, "uniform_iid", "^num_clients is 0: .*at least one client"),
        (9, 8, "skewed_iid", "^The partition leaves client . of 8 without data"),
    ],
)
def test_what_cannot_be_divided_is_refused(count, clients, name, message):
    with pytest.raises(UsageError, match=message):
        partitions.divide(
            np.full(count, 60.0), ["a"] * count, partition=partitions.PARTITIONS[name], num_clients=clients, seed=0
        )


def test_sites_are_the_clients():
    parts = partitions.by_site(None, ["b", "a", "b", "c"], 3, 0)
    assert [part.tolist() for part in parts] == [[1], [0, 2], [3]]
    with pytest.raises(ArgumentError, match=r"^num_clients is 2: the data come from 3 sites \(a, b, c\); set it to 3"):
        partitions.by_site(None, ["b", "a", "b", "c"], 2, 0)
    with pytest.raises(UsageError, match="1 of 2 people have no site"):
        partitions.by_site(None, ["n/a", "a"], 1, 0)


@pytest.mark.parametrize("parts", [[[0, 1], [1, 2, 3]], [[0, 1], [2]]])
def test_a_partition_must_give_everybody_once(parts):
    partition = lambda ages, sites, num_clients, seed: [np.array(part) for part in parts]
    with pytest.raises(UsageError, match="every person to exactly one client"):
        partitions.divide(np.full(4, 60.0), ["a"] * 4, partition=partition, num_clients=2, seed=0)


NAMES = [f"sub-{i:04d}" for i in range(2000)]


def chosen(names, share=0.25, seed=3):
    train, test = partitions.split_test(names, share, seed)
    assert sorted([*train, *test]) == list(range(len(names)))
    return {names[place] for place in test}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_test_set_is_nearly_a_share_of_the_people(share):
    sizes = np.array([len(chosen(NAMES, share, seed)) for seed in range(50)]) / len(NAMES)
    spread = np.sqrt(share * (1 - share) / len(NAMES))
    assert np.abs(sizes - share).max() < 4 * spread and abs(sizes.mean() - share) < 4 * spread / np.sqrt(50)
    assert chosen(NAMES, seed=3) == chosen(NAMES, seed=3) != chosen(NAMES, seed=4)


def test_whoever_comes_or_goes_moves_nobody_else_between_train_and_test():
    before = chosen(NAMES)
    for names in (NAMES[1:], NAMES[:-5], [*NAMES, "sub-new"], NAMES[::-1], ["a", *NAMES[::2]]):
        assert chosen(names) & set(NAMES) == before & set(names)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 3])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ArgumentError, match=f"^test_share is {share}: it is a share of the people"):
        partitions.split_test(NAMES, share, seed=0)


@pytest.mark.parametrize(("share", "count"), [(0.001, 0), (0.999, 20)])
def test_a_test_set_of_nobody_or_everybody_is_refused(share, count):
    with pytest.raises(ArgumentError, match=f"^test_share is {share}: of 20 people it puts {count} into"):
        partitions.split_test(NAMES[:20], share, seed=0)


def test_by_class_every_class_has_a_draw_of_its_own():
    labels = np.repeat(np.arange(10), 200)
    parts = partitions.divide(labels, labels, partition=partitions.dirichlet_by_class, num_clients=3, seed=1)
    shares = np.array([[(labels[part] == label).sum() for part in parts] for label in range(10)]) / 200
    assert np.unique(shares.round(2), axis=0).shape[0] == 10  # by quantiles in five bins they went in pairs


# --- validation ---------------------------------------------------------------------------------


def test_whoever_comes_or_goes_moves_nobody_else_between_training_and_validation():
    _, chosen = partitions.split_validation(NAMES, 0.25, seed=3)
    before = {NAMES[i] for i in chosen}
    _, chosen = partitions.split_validation([*NAMES[5:], "sub-new"], 0.25, seed=3)
    after = {[*NAMES[5:], "sub-new"][i] for i in chosen}
    assert len(before) > 0 and before - set(NAMES[:5]) == after - {"sub-new"}


def test_the_lots_of_validation_are_others_than_those_of_the_test():
    names = [f"person-{i}" for i in range(4000)]
    tested, validating = partitions.split_test(names, 0.5, seed=1)[1], partitions.split_validation(names, 0.5, 1)[1]
    both = len(np.intersect1d(tested, validating)) / len(names)
    assert abs(both - 0.25) < 0.03  # independent halves


@pytest.mark.parametrize("share", [-0.1, 1.0, 2, float("nan")])
def test_no_share_of_validation_is_refused(share):
    with pytest.raises(ArgumentError, match="validation_share"):
        partitions.split_validation(NAMES, share, seed=0)

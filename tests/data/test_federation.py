"""Who holds what: people stay whole, arrays become a federation, and what does not fit is refused."""

import functools

import numpy as np
import pytest

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.data import Federation, federate, from_arrays, partitions
from fedsparse_jax.data.federation import cohort_size


def examples(count, shape=(2, 2, 1), start=0):
    """Inputs that all hold their own number, counted from ``start``, and that number as a target."""
    numbers = np.arange(start, start + count, dtype=float)
    return np.broadcast_to(numbers.reshape(-1, *[1] * len(shape)), (count, *shape)), numbers


# --- from arrays --------------------------------------------------------------------------------


def test_arrays_become_a_federation():
    data = from_arrays([examples(3), examples(1, start=3)], test=examples(2, start=4), classes=6)
    assert [rows.tolist() for rows in data.members] == [[0, 1, 2], [3]] and data.test.tolist() == [4, 5]
    assert data.inputs.shape == (6, 2, 2, 1) and data.inputs.dtype == data.targets.dtype == np.float32
    assert data.inputs[:, 0, 0, 0].tolist() == data.targets.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.classes == 6 and data.train_targets.tolist() == [0, 1, 2, 3]
    assert data.client_sizes([1, 0]).tolist() == [1, 3] and data.client_sizes([1]).dtype == np.float32


def test_examples_of_arrays_have_names_of_their_own():
    data = from_arrays([examples(2)], test=examples(1))
    assert [row["participant_id"] for row in data.people] == ["example-000000", "example-000001", "example-000002"]
    assert {row["session"] for row in data.people} == {""} and {row["site"] for row in data.people} == {"n/a"}


@pytest.mark.parametrize(
    ("clients", "test", "message"),
    [
        ([], examples(2), "^clients is empty: a federation needs at least one client"),
        ([examples(2), examples(3, (2, 3, 1))], examples(2), r"differ in shape \(\(2, 2, 1\), \(2, 3, 1\)\)"),
        ([examples(2)], examples(2, (5,)), r"differ in shape \(\(2, 2, 1\), \(5,\)\)"),
        ([(examples(3)[0], np.ones(2))], examples(2), r"^3 inputs go with targets of shape \(2,\)"),
        ([examples(2)], (examples(2)[0], np.ones((2, 1))), r"^2 inputs go with targets of shape \(2, 1\)"),
        ([examples(2), examples(0)], examples(2), "holds no example; leave such a client out"),
        ([examples(2)], examples(0), "holds no example"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(clients, test, message):
    with pytest.raises(UsageError, match=message):
        from_arrays(clients, test)


@pytest.mark.parametrize("start", [0.5, -1, 2])
def test_targets_that_are_no_classes_are_refused(start):
    with pytest.raises(UsageError, match=r"^Not all targets are classes, whole numbers from 0 to 3"):
        from_arrays([examples(2, start=start), examples(3, start=start)], test=examples(1), classes=4)


# --- classes ------------------------------------------------------------------------------------


def test_own_classes_by_hand():
    # The first client holds class 0, the second 1 and 2; the test set has one of each.
    members, test = [np.array([0]), np.array([1, 2]), np.array([2, 1])], np.array([3, 4, 5])
    data = Federation(np.zeros((6, 1)), np.array([0, 1, 2, 0, 1, 2.0]), members, test, [], 3)
    first, second, like_second = data.own_tests()
    assert first.tolist() == [0] and second.tolist() == [1, 2] and like_second is second


def test_own_sites_by_hand():
    # Sites of the examples: a, b, untold; the test set has one of b and one of a.
    people = [{"site": site} for site in ("a", "b", "n/a", "b", "a")]
    members = [np.array([0, 2]), np.array([0, 1]), np.array([2])]
    data = Federation(np.zeros((5, 1)), np.zeros(5), members, np.array([3, 4]), people)
    assert [places.tolist() for places in data.own_tests()] == [[1], [0, 1], []]


# --- people, never scans ------------------------------------------------------------------------


def uniform(num_clients):
    return functools.partial(partitions.divide, partition=partitions.uniform_iid, num_clients=num_clients)


def test_no_person_in_two_places():
    rng = np.random.default_rng(0)
    people = [
        {"participant_id": f"sub-{i:02d}", "site": f"s{i % 3}", "session": str(k)}
        for i in range(30)
        for k in range(1 + i % 3)
    ]
    targets = rng.normal(60, 5, len(people))
    data = federate(np.zeros((len(people), 2)), targets, people, divide=uniform(4), test_share=0.2, seed=1)
    places = [{people[i]["participant_id"] for i in index} for index in [*data.members, data.test]]
    assert sum(map(len, places)) == len(set.union(*places)) == 30
    assert sum(map(len, data.members)) + len(data.test) == len(people)


def test_a_test_set_of_their_own_is_taken_as_it_is():
    # Three scans of two people, and one of a third, who is the test set.
    names = ["a", "b", "a", "c"]
    people = [{"participant_id": name, "site": "n/a", "session": ""} for name in names]
    data = federate(np.zeros((4, 1)), np.arange(4.0), people, divide=uniform(1), test_share=0.5, seed=0, test=[2])
    assert data.test.tolist() == [3] and data.members[0].tolist() == [0, 1, 2]


# --- how many take part -------------------------------------------------------------------------


@pytest.mark.parametrize(("participation", "size"), [(1.0, 8), (0.5, 4), (0.3, 2), (0.001, 1)])
def test_the_cohort_is_the_nearest_whole_number_and_somebody(participation, size):
    assert cohort_size(8, participation) == size


@pytest.mark.parametrize("participation", [0.0, -0.5, 1.01])
def test_an_impossible_participation_is_refused(participation):
    with pytest.raises(ArgumentError, match=f"^participation is {participation}: it is a share of the clients"):
        cohort_size(8, participation)


def test_several_test_sets_are_told_apart_and_one_is_the_whole():
    data = from_arrays([(np.zeros((2, 3)), np.zeros(2))], (np.zeros((4, 3)), np.zeros(4)))
    assert data.test_sets == {}
    named = ["", "", "inner", "outer", "inner", "outer"]
    people = [{**row, "test_set": name} for row, name in zip(data.people, named, strict=True)]
    sets = data._replace(people=people).test_sets
    assert {name: places.tolist() for name, places in sets.items()} == {"inner": [0, 2], "outer": [1, 3]}
    one = [{**row, "test_set": "inner" if name else ""} for row, name in zip(data.people, named, strict=True)]
    assert data._replace(people=one).test_sets == {}


# --- validation ---------------------------------------------------------------------------------

FAMILY = [
    {"participant_id": f"sub-{i:02d}", "site": "n/a", "session": str(k)} for i in range(40) for k in range(1 + i % 3)
]


def with_validation(share, people=FAMILY, **changes):
    arrays = np.zeros((len(people), 2)), np.arange(len(people), dtype=float) % 40
    return federate(*arrays, people, divide=uniform(3), test_share=0.2, seed=1, validation_share=share, **changes)


def test_people_of_the_validation_leave_training_and_nobody_else_moves():
    plain, data = with_validation(0.0), with_validation(0.3)
    assert plain.validation == () and plain.validation_rows.tolist() == []
    assert data.test.tolist() == plain.test.tolist() and len(data.validation) == 3
    for held, training, validation in zip(plain.members, data.members, data.validation, strict=True):
        assert sorted([*training, *validation]) == held.tolist()  # each client's own people
        names = [{FAMILY[i]["participant_id"] for i in rows} for rows in (training, validation)]
        assert not names[0] & names[1]  # all scans of a person are on one side
        lots = partitions.split_validation(sorted(names[0] | names[1]), 0.3, seed=1)[1]
        assert names[1] == {sorted(names[0] | names[1])[i] for i in lots}
    assert data.validation_rows.tolist() == [row for rows in data.validation for row in rows] != []
    assert len(data.train_targets) == sum(map(len, data.members))


def test_a_validation_of_nobody_or_of_all_of_a_client_is_refused():
    with pytest.raises(UsageError, match=r"^validation_share is 0.0001: of 3\d people it puts 0 into the validation"):
        with_validation(0.0001)
    with pytest.raises(UsageError, match=r"it takes all \d+ people of client 1 of 3 out of training; change it or the"):
        with_validation(0.999)


def test_a_test_set_of_their_own_leaves_validation_to_the_others():
    data = with_validation(0.3, test=[0, 1, 2])
    assert {FAMILY[i]["participant_id"] for i in data.test} == {"sub-00", "sub-01", "sub-02"}
    assert not set(data.validation_rows) & set(data.test) and len(data.validation_rows)

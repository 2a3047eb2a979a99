"""Streams of random numbers: no number is given twice, and none is ever given to another stream."""

import numpy as np

from fedsparse_jax.core.streams import Stream

NUMBERS = {
    "TEST_SPLIT": 1,
    "PARTITION_BY_CHANCE": 2,
    "PARTITION_BY_AGE": 3,
    "PARTITION_BY_DIRICHLET": 4,
    "COHORT": 5,
    "BATCHES": 6,
    "PARTITION_BY_CLASS": 7,
    "SCORED_BATCHES": 8,
    "MESSAGE_ROUNDING": 9,
    "SHADOW_HALVES": 11,
    "SERVER_KNOWN_MEMBERS": 21,
    "SERVER_KNOWN_OUTSIDERS": 22,
    "CLIENT_KNOWN_OUTSIDERS": 23,
    "OUTSIDER_KNOWN_MEMBERS": 24,
    "OUTSIDER_KNOWN_OUTSIDERS": 25,
    "BOOTSTRAP": 31,
    "PEOPLE_BOOTSTRAP": 32,
    "CLASSIFIER_VALIDATION": 41,
    "CLASSIFIER_ORDER": 42,
}


def test_all_numbers_are_distinct():
    numbers = [member.value for member in Stream.__members__.values()]  # aliases of one number included
    assert len(numbers) == len(set(numbers))


def test_no_stream_changes_its_number():
    given = {name: int(member) for name, member in Stream.__members__.items()}
    assert {name: given.get(name) for name in NUMBERS} == NUMBERS


def test_a_stream_stands_for_its_number_behind_the_seed():
    by_name, by_number = (np.random.default_rng([7, stream, 3]).random(4) for stream in (Stream.BATCHES, 6))
    assert by_name.tolist() == by_number.tolist()

"""The record of who was where: there and back, the same federation from it, and others refused by name."""

import functools
from pathlib import Path

import numpy as np
import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data import federate, partitions
from fedsparse_jax.data.roster import (
    federate_as_recorded,
    is_same_cohort,
    read_roster,
    refuse_other_split,
    roster_of,
    sets_by_name,
    write_roster,
)

RNG = np.random.default_rng(0)
NAMES = [f"sub-{i:02d}" for i in range(40)]
SCANS = [(name, session) for name in NAMES for session in ("ses-1", "ses-2")]


def people(scans=SCANS):
    return [dict(participant_id=name, session=session, site="abcd"[int(name[4:]) % 4]) for name, session in scans]


def ages(scans=SCANS):
    return np.array([50 + int(name[4:]) + int(session[4:]) for name, session in scans], np.float32)


def divided(partition="uniform_iid", seed=1, validation_share=0.0):
    divide = functools.partial(partitions.divide, partition=partitions.PARTITIONS[partition], num_clients=4)
    inputs = np.zeros((len(SCANS), 1))
    shares = dict(test_share=0.3, validation_share=validation_share)
    return federate(inputs, ages(), people(), divide=divide, seed=seed, **shares)


def as_recorded(scans, record, workdir="runs/x"):
    return federate_as_recorded(np.zeros((len(scans), 1)), ages(scans), people(scans), roster=record, workdir=workdir)


@pytest.fixture
def record(tmp_path):
    write_roster(tmp_path / "people.tsv", roster_of(divided()))
    return read_roster(tmp_path / "people.tsv")


def test_the_record_is_there_and_back(record):
    assert record == roster_of(divided())
    assert read_roster(Path("nowhere.tsv")) == ()


def test_the_record_says_which_test_set_where_there_are_several(tmp_path):
    data = divided()
    plain = (*roster_of(data),)
    named = tuple(entry._replace(test_set="external" if entry.set == "test" else "") for entry in plain)
    data = data._replace(people=[{**row, "test_set": "external"} for row in data.people])
    assert roster_of(data) == named  # who trains is in no test set, whatever the cohort calls them
    for name, record in (("plain", plain), ("named", named)):
        write_roster(tmp_path / name, record)
        assert read_roster(tmp_path / name) == record
    divided_anew = as_recorded(SCANS, named)  # whatever the cohort calls them now
    assert roster_of(divided_anew) == named and roster_of(as_recorded(SCANS, plain)) == plain
    assert "test_set" not in (tmp_path / "plain").read_text() and "test_set" in (tmp_path / "named").read_text()


@pytest.mark.parametrize("partition", sorted(set(partitions.PARTITIONS) - {"classes_per_client"}))
def test_the_recorded_federation_is_the_one_that_was_divided(partition):
    data = divided(partition)
    again = as_recorded(SCANS, roster_of(data))
    assert [rows.tolist() for rows in again.members] == [rows.tolist() for rows in data.members]
    assert again.test.tolist() == data.test.tolist()


def test_people_are_where_they_were_in_whatever_order_they_come(record):
    order = RNG.permutation(len(SCANS))
    shuffled = [SCANS[i] for i in order]
    assert sorted(roster_of(as_recorded(shuffled, record))) == sorted(record)


@pytest.mark.parametrize(
    ("scans", "message"),
    [
        (SCANS[:-1], r"^runs/x was trained on other people \(missing here: sub-39\); give it the same scans"),
        (SCANS[:-14], "missing here: sub-33, sub-34, sub-35, sub-36, sub-37 and 2 more"),
        ([*SCANS, ("sub-77", "ses-1")], r"\(new here: sub-77\)"),
        ([*SCANS[1:], ("sub-00", "ses-9")], r"\(missing here: sub-00; new here: sub-00\)"),
        ([*SCANS, SCANS[0]], r"\(new here: sub-00\)"),
    ],
)
def test_other_people_are_refused_by_name(record, scans, message):
    with pytest.raises(UsageError, match=message):
        as_recorded(scans, record)


def test_another_age_is_refused(record):
    older = ages() + np.array([0] * (len(SCANS) - 1) + [1], np.float32)
    with pytest.raises(UsageError, match=r"\(of another age: sub-39\)"):
        federate_as_recorded(np.zeros((len(SCANS), 1)), older, people(), roster=record, workdir="runs/x")


def test_another_split_is_refused(record):
    refuse_other_split(divided(), record, "runs/x")
    refuse_other_split(divided(seed=2), (), "runs/x")
    with pytest.raises(UsageError, match=r"^runs/x divided the people otherwise \(sub-\d\d from "):
        refuse_other_split(divided(seed=2), record, "runs/x")


def test_who_was_where(record):
    where = {entry.participant_id: entry.set for entry in record}
    some = [("sub-03", "ses-1"), ("sub-09", "ses-7"), ("sub-88", "ses-1")]  # one scan agrees: the same cohort
    assert sets_by_name(people(some), record) == [where["sub-03"], where["sub-09"], ""]
    assert is_same_cohort(people(some), ages(some), record)
    assert not is_same_cohort(people(some), ages(some) + 1, record)  # the same names in another cohort
    assert not is_same_cohort(people(some), ages(some), ())


def test_one_age_that_agrees_by_chance_makes_no_cohort(record):
    other = ages() + 3
    other[0] -= 3
    assert not is_same_cohort(people(), other, record)
    mended = ages()
    mended[:9] += 1
    assert is_same_cohort(people(), mended, record)


def test_the_validation_is_recorded_by_name_and_comes_back(tmp_path):
    data = divided(validation_share=0.3)
    write_roster(tmp_path / "people.tsv", roster_of(data))
    record = read_roster(tmp_path / "people.tsv")
    assert len(record) == len(SCANS)
    for client, rows in enumerate(data.validation):
        names = {data.people[row]["participant_id"] for row in rows}
        assert names == {e.participant_id for e in record if e.set == f"L{client + 1}-validation"} != set()
    again = as_recorded(SCANS, record)
    for part in ("members", "validation"):
        assert [rows.tolist() for rows in getattr(again, part)] == [rows.tolist() for rows in getattr(data, part)]
    refuse_other_split(data, record, "runs/x")
    with pytest.raises(UsageError, match=r"divided the people otherwise \(sub-\d\d from L\d-validation to L\d"):
        refuse_other_split(divided(), record, "runs/x")


def test_a_record_without_validation_gives_none(record):
    assert as_recorded(SCANS, record).validation == ()

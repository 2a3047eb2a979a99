"""Everybody is predicted once by a model that was not trained on him: the folds, their table, and whole runs."""

import numpy as np
import pytest

from fedsparse_jax.config import load_config
from fedsparse_jax.core.age_bias import AgeBias
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_tsv
from fedsparse_jax.core.tasks import CLASSIFICATION, REGRESSION
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.partitions import fold_people, fold_sites
from fedsparse_jax.runs.run_dir import recorded_people
from fedsparse_jax.studies.cross_validation import FoldOutcome, assign_folds, cross_validate, out_of_fold_table, summary


def test_people_are_dealt_evenly_and_stay_where_they_are_if_others_are_listed_otherwise():
    names = [f"sub-{i:03d}" for i in range(101)]
    fold = fold_people(names, 4, seed=1)
    assert np.bincount(fold).tolist() == [26, 25, 25, 25]
    order = np.random.default_rng(0).permutation(101)
    assert fold_people([names[i] for i in order], 4, seed=1).tolist() == fold[order].tolist()
    assert (fold_people(names, 4, seed=2) != fold).any()


def test_sites_stay_whole_and_the_folds_are_about_as_large():
    sites = np.repeat(list("ABCDE"), [10, 6, 5, 4, 3])
    fold = fold_sites(sites, 3)
    # A takes the first fold, B the second, C the third, D goes to C's 5, and E to B's 6.
    assert [set(fold[sites == one]) for one in "ABCDE"] == [{0}, {1}, {2}, {2}, {1}]
    assert np.bincount(fold_sites(sites, 5)).tolist() == [10, 6, 5, 4, 3]  # each alone


def federation(sites):
    """Two scans of each of some people, in reversed order of names."""
    people = [
        {"participant_id": f"sub-{len(sites) - i // 2}", "session": "", "site": sites[i // 2]}
        for i in range(2 * len(sites))
    ]
    return Federation(np.zeros((len(people), 1)), np.zeros(len(people)), [], np.zeros(0, int), people)


def test_folds_are_of_people_in_the_order_of_names():
    assert assign_folds(federation("AABBB"), "auto", "sites", 0).tolist() == [0, 0, 0, 1, 1]
    assert sorted(assign_folds(federation("AABBB"), "5", "people", 0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("sites", "folds", "over", "message"),
    [
        ("AAB", "auto", "people", "--folds is 'auto', which is a fold for each site; add --over=sites"),
        ("AAB", "3", "sites", "--folds is 3: it must be at least 2, and at most 2, as there are 2 sites"),
        ("AAB", "4", "people", "--folds is 4: .* as there are 3 people"),
        ("AAB", "1", "people", "--folds is 1: it must be at least 2"),
        (["A", "n/a", "B"], "2", "sites", "1 of 3 people have no site; .* --over=people"),
    ],
)
def test_folds_that_cannot_be_are_refused(sites, folds, over, message):
    with pytest.raises(UsageError, match=message):
        assign_folds(federation(sites), folds, over, 0)


def outcome(name, site, errors, bias=None):
    people = [{"participant_id": f"{name}-{i}", "session": "", "site": site} for i in range(len(errors))]
    targets = np.linspace(50, 70, len(errors))
    return FoldOutcome(name, people, targets, targets + errors, 6.0, bias)


def test_the_table_by_hand():
    folds = [outcome("fold-1", "A", [1, -1, 4]), outcome("fold-2", "B", [-3, -1])]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in summary(folds, REGRESSION, "sites").splitlines()[:6]
    ]
    assert head[:3] == ["fold", "scans", "MAE (y)"] and head[-1] == "MAE of predicting the mean"
    first, second, mean, whole = (dict(zip(head, row)) for row in rows)
    assert (first["fold"], first["scans"], first["MAE (y)"]) == ("fold-1 (A)", "3", "2.00")
    assert second["bias, mean of predicted minus true (y)"] == "-2.00" and second["Pearson r"] == "1.000"
    assert mean["MAE (y)"] == "2.00 ± 0.00" and mean["MAE of predicting the mean"] == "6.00"
    assert whole["scans"] == "5" and whole["MAE (y)"].startswith("2.00 (1.00 to ")
    assert "2 sites: MAE (y) from 2.00 to 2.00" in summary(folds, REGRESSION)


def test_corrected_errors_need_a_line_in_every_fold():
    lines = [AgeBias(1.0, 2.0, 5), AgeBias(1.0, -1.0, 5)]
    folds = [outcome("fold-1", "A", [2.0, 2.0, 2.0], lines[0]), outcome("fold-2", "A", [-1.0, -1.0], lines[1])]
    row = next(line for line in summary(folds, REGRESSION).splitlines() if "corrected" in line)
    assert "| 0.00 (0.00 to 0.00) |" in row
    table = out_of_fold_table(folds, REGRESSION).splitlines()
    assert table[0].split("\t")[-2:] == ["corrected_error", "set"]
    assert [line.split("\t")[5:7] for line in table[1:]] == [["2.000", "0.000"]] * 3 + [["-1.000", "0.000"]] * 2
    assert "corrected" not in out_of_fold_table([folds[0], folds[1]._replace(age_bias=None)], REGRESSION)


def test_classes_have_measures_of_their_own():
    logits = np.log([[0.8, 0.2], [0.4, 0.6], [0.25, 0.75]])
    people = [{"participant_id": f"image-{i}", "session": "", "site": "n/a"} for i in range(3)]
    folds = [FoldOutcome(f"fold-{i}", people, np.array([0, 0, 1]), logits, 0.5) for i in (1, 2)]
    table = summary(folds, CLASSIFICATION)
    assert "| fold-1 | 3 | 0.667 | 0.750 | 0.667 | 1.000 |" in table and "By site" not in table


@pytest.mark.slow
def test_a_cross_validation_is_gone_on_with_and_other_folds_are_refused(tmp_path, repository):
    config = load_config(f"{repository}/configs/methods/fedavg.py:digits+smoke")
    config.rounds, config.log.tensorboard = 1, False
    lines = []
    outcomes, task = cross_validate(config, tmp_path, 2, print_fn=lines.append)
    rows = read_tsv(tmp_path / "out_of_fold.tsv")
    everybody = {row["participant_id"] for row in rows}
    assert len(rows) == len(everybody) == sum(len(one.people) for one in outcomes)
    for one in outcomes:
        trained = {entry.participant_id for entry in recorded_people(tmp_path / one.name) if entry.set != "test"}
        assert trained == everybody - {row["participant_id"] for row in one.people}
    right = np.mean([row["label"] == row["predicted_label"] for row in rows])
    assert f"| all together | {len(rows):,} | {right:.3f} (" in summary(outcomes, task)
    assert sum(line.startswith("round") for line in lines) == 2
    lines.clear()
    again, _ = cross_validate(config, tmp_path, 2, print_fn=lines.append)
    assert not any(line.startswith("round") for line in lines)
    np.testing.assert_array_equal(again[1].predictions, outcomes[1].predictions)
    with pytest.raises(UsageError, match=r"fold-1 tests other people than this fold; give the folds it has"):
        cross_validate(config, tmp_path, 3, print_fn=lines.append)

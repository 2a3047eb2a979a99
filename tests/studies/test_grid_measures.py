"""Tables of measures, by hand."""

import itertools

import numpy as np
import pytest

from fedsparse_jax.core.tasks import REGRESSION
from fedsparse_jax.runs import RoundRecord
from fedsparse_jax.studies.grid import GridCell, Run, Study
from fedsparse_jax.studies.grid_measures import jaccard, measure_tables
from fedsparse_jax.studies.grid_tables import rows_of
from fedsparse_jax.studies.run_measures import text_of_mask

MASKS = {1: [1, 1, 0, 0, 0, 0, 0, 0], 2: [1, 0, 1, 0, 0, 0, 0, 0]}


def run(cell, seed, maes, sparsity, mask, saliency):
    errors = {"decade": {name: {"n": n, "mae": mae, "bias": 0.0} for name, (n, mae) in maes.items()}}
    judged = {"test": {"mae": {"min": 1.0, "median": 2.0, "max": 3.0 + seed}}}
    record = RoundRecord.from_json({"round": 1, "sparsity": sparsity, "test_mae": 4.0, "sites": judged})
    mask = {"bits": text_of_mask({"a": np.array(mask, bool)})}
    simple = {"ridge": {"mae": 3.0 + seed, "rmse": 5.0, "r": 0.5, "r2": 0.25}}
    measured = {"errors": errors, "mask": mask, "saliency": saliency, "simple": simple}
    return Run(cell, seed, None, [record], "", measured)


LEVELS = {"dense": "0 %", "sparse": "75 %"}


def tables_of(labels, reference):
    cells = [GridCell(one, "x", seeds=(1, 2)) for one in labels]
    runs = []
    for cell in cells:
        for seed in (1, 2):
            sparse = cell.labels["method"] == "sparse"
            maes = {"50 to 59": (9, 4.0 + seed * sparse), "60 to 69": (5, 3.0), "70 to 79": (4, 1.0)}
            saliency = {"spearman": 0.5} if sparse else {}
            runs.append(run(cell, seed, maes, 0.75 * sparse, MASKS[seed] if sparse else [1] * 8, saliency))
    rows = rows_of(Study("", cells, reference), runs)
    return {one.title: [dict(zip(one.head, line)) for line in one.rows] for one in measure_tables(rows, REGRESSION)}


@pytest.fixture
def tables():
    pairs = itertools.product("AB", LEVELS.items())
    labels = [{"environment": where, "method": how, "sparsity": level} for where, (how, level) in pairs]
    return tables_of(labels, {"method": "dense", "sparsity": "0 %"})


def test_without_environments_methods_are_none():
    found = tables_of([{"method": "dense"}, {"method": "sparse"}], {"method": "dense"})
    (of_all,) = found["Simple predictors"]
    assert (of_all["cells"], of_all["predictor"]) == ("all", "ridge")
    (masks,) = found["Agreement of masks"]
    assert masks == {"method": "sparse", "by chance": "0.143", "between seeds": "0.333"}


def test_groups_are_compared_with_the_reference_by_seed(tables):
    dense, sparse, *_ = tables["Error by decade"]
    # Two seeds: 5 and 6, half width 12.706 * .7071 / sqrt(2) = 6.35; four scans are too few for a column.
    assert dense["50 to 59"] == "4.00 ± 0.00" and sparse["50 to 59"] == "5.50 ± 6.35 (+1.50 ± 6.35)"
    assert sparse["60 to 69"] == "3.00 ± 0.00 (+0.00 ± 0.00)" and "70 to 79" not in sparse


def test_simple_predictors_have_a_row_in_each_environment(tables):
    of_a, of_b = tables["Simple predictors"]
    assert (of_a["cells"], of_a["predictor"], of_b["cells"]) == ("A", "ridge", "B")
    assert (of_a["MAE"], of_a["r"]) == ("4.50 ± 6.35", "0.50 ± 0.00")


def test_the_best_round_at_the_final_sparsity_is_found_by_hand():
    """Seed 1 reaches 75 % in round 2: 5, 3, 4 years; seed 2 in round 3: 6 and 5. The 1 of round 1 is dense."""
    cell = GridCell({"method": "sparse"}, "x", seeds=(1, 2))

    def of_seed(seed, maes, dense):
        levels = [0.0] * dense + [0.75] * (len(maes) - dense)
        rounds = enumerate(zip(maes, levels, strict=True), 1)
        told = [{"round": t, "sparsity": s, "test_mae": mae, "train_loss": 10.0 * seed} for t, (mae, s) in rounds]
        return Run(cell, seed, None, [RoundRecord.from_json(one) for one in told])

    runs = [of_seed(1, [1.0, 5.0, 3.0, 4.0], 1), of_seed(2, [1.0, 9.0, 6.0, 5.0], 2)]
    found = {one.title: one for one in measure_tables(rows_of(Study("", [cell]), runs), REGRESSION)}
    head, (row,) = found["Before the last round"].head, found["Before the last round"].rows
    assert dict(zip(head, row)) == {
        "method": "sparse",
        "final sparsity from round": "2.5",  # 2 and 3
        "best test MAE from there on": "4.00 ± 12.71",  # 3 and 5
        "in round": "3.5",  # 3 and 4
        "in the last round": "4.50 ± 6.35",
        "training loss there": "15.0",
    }


def test_sites(tables):
    assert tables["Error by site"][0]["worst site"] == "4.50 ± 6.35" and len(tables["Error by site"]) == 4


def test_what_was_not_measured_has_no_table_and_no_row(tables):
    assert list(tables) == [
        "Over every environment",
        "Simple predictors",
        "Error by decade",
        "Error by site",
        "What the models look at",
        "Agreement of masks",
    ]
    (of_a, _) = tables["What the models look at"]
    assert of_a["method"] == "sparse" and of_a["saliency and age signal (rank correlation)"] == "0.50 ± 0.00"


def test_masks_agree_by_what_both_keep(tables):
    in_a, in_b = tables["Agreement of masks"]
    # One of three weights between the seeds; all of them between environments; a quarter of 1.75 quarters by chance.
    assert (in_a["between seeds"], in_a["with B"], in_a["by chance"]) == ("0.333", "1.000", "0.143")
    assert in_b["with A"] == "1.000" and "with A" in in_b and in_a["with A"] == "–"
    assert jaccard(np.array([True, True, False]), np.array([False, True, True])) == pytest.approx(1 / 3)


def test_votes_are_told_of_the_rounds_in_which_clients_disagree():
    cell = GridCell({"method": "local"}, "x", seeds=(1, 2))
    of_round = lambda t, overlap, margin: RoundRecord.from_json(
        {"round": t, "sparsity": 0.5, "test_mae": 4.0, "agreement": overlap, "vote_margin": margin}
    )
    first = [of_round(1, 1.0, 1.0), of_round(2, 0.5, 0.25), of_round(3, 0.75, 0.75), of_round(4, 1.0, 1.0)]
    second = [of_round(3, 0.625, 0.5)]
    runs = [Run(cell, seed, None, records) for seed, records in ((1, first), (2, second))]
    found = {one.title: one for one in measure_tables(rows_of(Study("", [cell]), runs), REGRESSION)}
    (line,) = found["How clients vote"].rows
    told = dict(zip(found["How clients vote"].head, line))
    assert (told["disputed from round"], told["to round"]) == ("2.5", "3.0")
    assert (told["overlap"], told["vote margin"]) == ("0.625 ± 0.000", "0.500 ± 0.000")
    assert told["lowest margin"].startswith("0.375 ±")  # .25 and .5
    silent = [Run(cell, 1, None, [of_round(1, 1.0, 1.0), of_round(2, 1.0, None)])]
    assert "How clients vote" not in {
        one.title for one in measure_tables(rows_of(Study("", [cell]), silent), REGRESSION)
    }

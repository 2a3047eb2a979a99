"""The table of a comparison, by hand."""

import pytest

from fedsparse_jax.core.types import UsageError
from fedsparse_jax.studies import compare_methods


def log(mae, up):
    return [
        {"test_mae": 9.0, "predict_mean_mae": 6.0, "params_up_total": 1, "params_down_total": 1, "sparsity": 0.1},
        {"test_mae": mae, "predict_mean_mae": 6.0, "params_up_total": up, "params_down_total": up, "sparsity": 0.5},
    ]  # fmt: skip


def cells(table):
    return [row.strip("| ").split(" | ") for row in table.splitlines()]


def test_regressions():
    # Two seeds: t = 12.706, so the half width is 12.706 * .7071 / sqrt(2) = 6.35.
    head, _, dense, sparse = cells(
        compare_methods.table(
            {"dense": [log(4.0, 10**6), log(5.0, 10**6)], "sparse": [log(4.0, 10**5), log(4.1, 10**5)]}
        )
    )
    assert head[3] == "test MAE (y)"
    assert dense == ["`dense`", "2", "0.500", "4.50 ± 6.35", "25.0% of 6.00", "+0.0%", "2.00 M"]
    assert sparse == ["`sparse`", "2", "0.500", "4.05 ± 0.64", "32.5% of 6.00", "-10.0%", "0.20 M"]


def classified(accuracy, own):
    return [
        dict(
            test_accuracy=accuracy, own_accuracy=own, params_up_total=10**6, params_down_total=0, sparsity=0.9
        )
    ]


def test_classifications_differ_seed_by_seed():
    runs = {
        "a": [classified(0.9, 0.8), classified(0.8, 0.8)],
        "b": [classified(0.85, 0.9), classified(0.75, 0.7)],
    }
    head, _, first, second = cells(compare_methods.table(runs))
    assert head[3:6] == ["test accuracy (%)", "on own classes (%)", "against the first row (points)"]
    assert first[3:] == ["85.0 ± 63.5", "80.0", "+0.0 ± 0.0", "1.00 M"]
    assert second[3:] == ["80.0 ± 63.5", "80.0", "-5.0 ± 0.0", "1.00 M"]


def test_two_tasks_are_not_compared():
    with pytest.raises(UsageError, match="compare them apart"):
        compare_methods.table({"a": [log(4.0, 1)], "b": [classified(0.9, 0.9)]})


def test_lists(tmp_path):
    (tmp_path / "list.txt").write_text("# all\na.py:x  # one\n\nb.py\n")
    assert compare_methods.listed(["c.py", f"@{tmp_path}/list.txt"]) == ["c.py", "a.py:x", "b.py"]
    with pytest.raises(UsageError, match="no list of configs"):
        compare_methods.listed(["@nowhere.txt"])


def test_the_comparison_of_the_docs_covers_every_method(repository):
    specs = compare_methods.listed([f"@{repository}/configs/comparison.txt"])
    named = {spec.partition(":")[0] for spec in specs}
    files = {f"configs/{path.name}" for path in (repository / "configs").glob("*.py")}
    assert named == files - {f"configs/{name}.py" for name in ("quickstart", "real", "audit")}  # no methods
    assert sum("+90" in spec for spec in specs) == sum("+95" in spec for spec in specs) == 17


def test_bytes_to_the_same_measure():
    # The sparse run is at the dense run's 4.0 after its first round, with 3 MB; in the other seed it never gets there.
    def sent(maes, megabytes):
        return [
            {
                "test_mae": mae,
                "predict_mean_mae": 6.0,
                "bytes_up_total": mb * 1e6,
                "bytes_down_total": 0,
                "sparsity": 0.5,
            }
            for mae, mb in zip(maes, megabytes, strict=True)
        ]

    dense, sparse = [sent([5.0, 4.0], [8, 16])], [sent([4.0, 3.9], [3, 5])]
    head, _, *rows = cells(compare_methods.table({"dense": dense, "sparse": sparse}))
    assert head[-2:] == ["MB exchanged", "MB to the first row's MAE"]
    assert [row[-2:] for row in rows] == [["16.00", "16.00"], ["5.00", "3.00"]]
    never = cells(compare_methods.table({"dense": dense * 2, "sparse": sparse + [sent([4.5, 4.1], [3, 5])]}))
    assert never[-1][-1] == "reached by 1 of 2"

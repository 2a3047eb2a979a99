"""The table of a comparison, by hand."""

import pytest

from fedsparse_jax.config import load_config
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.tasks import CLASSIFICATION, REGRESSION
from fedsparse_jax.runs import RoundRecord
from fedsparse_jax.studies.compare_methods import (
    comparison_figure,
    comparison_table,
    expand_lists,
    mean_over_seeds,
    run_comparison,
    task_of,
)


def records_of(*lines):
    return [RoundRecord.from_json({"round": i, **line}) for i, line in enumerate(lines, 1)]


def log(mae, up):
    return records_of(
        {"test_mae": 9.0, "predict_mean_mae": 6.0, "params_up_total": 1, "params_down_total": 1, "sparsity": 0.1},
        {"test_mae": mae, "predict_mean_mae": 6.0, "params_up_total": up, "params_down_total": up, "sparsity": 0.5},
    )  # fmt: skip


def cells(table):
    return [row.strip("| ").split(" | ") for row in table.splitlines()]


def test_regressions():
    # Two seeds: t = 12.706, so the half width is 12.706 * .7071 / sqrt(2) = 6.35.
    runs = {"dense": [log(4.0, 10**6), log(5.0, 10**6)], "sparse": [log(4.0, 10**5), log(4.1, 10**5)]}
    head, _, dense, sparse = cells(comparison_table(runs))
    assert head[3] == "test MAE (y)"
    assert dense == ["`dense`", "2", "0.500", "4.50 ± 6.35", "25.0% of 6.00", "+0.0%", "2.00 M"]
    assert sparse == ["`sparse`", "2", "0.500", "4.05 ± 0.64", "32.5% of 6.00", "-10.0%", "0.20 M"]


def classified(accuracy, own):
    line = {"params_up_total": 10**6, "params_down_total": 0, "sparsity": 0.9}
    return records_of({"test_accuracy": accuracy, "own_accuracy": own, **line})


def test_classifications_differ_seed_by_seed():
    runs = {"a": [classified(0.9, 0.8), classified(0.8, 0.8)], "b": [classified(0.85, 0.9), classified(0.75, 0.7)]}
    head, _, first, second = cells(comparison_table(runs))
    assert head[3:6] == ["test accuracy (%)", "on own classes (%)", "against the first row (points)"]
    assert first[3:] == ["85.0 ± 63.5", "80.0", "+0.0 ± 0.0", "1.00 M"]
    assert second[3:] == ["80.0 ± 63.5", "80.0", "-5.0 ± 0.0", "1.00 M"]


def test_two_tasks_are_not_compared():
    with pytest.raises(UsageError, match="compare them apart"):
        comparison_table({"a": [log(4.0, 1)], "b": [classified(0.9, 0.9)]})
    assert task_of({"a": [log(4.0, 1)]}) is REGRESSION and task_of({"b": [classified(1, 1)]}) is CLASSIFICATION


def test_lists(tmp_path):
    (tmp_path / "list.txt").write_text("# all\na.py:x  # one\n\nb.py\n")
    assert expand_lists(["c.py", f"@{tmp_path}/list.txt"]) == ["c.py", "a.py:x", "b.py"]
    with pytest.raises(UsageError, match="no list of configs"):
        expand_lists(["@nowhere.txt"])


def test_the_comparison_of_the_docs_covers_every_method(repository):
    specs = expand_lists([f"@{repository}/configs/lists/comparison.txt"])
    named = {spec.partition(":")[0] for spec in specs}
    files = {f"configs/methods/{path.name}" for path in (repository / "configs/methods").glob("*.py")}
    assert named == files
    assert sum("+90" in spec for spec in specs) == sum("+95" in spec for spec in specs) == 17


def test_the_comparison_of_travelling_models_shares_out_the_same_images(repository):
    specs = expand_lists([f"@{repository}/configs/lists/travelling.txt"])
    configs = [load_config(f"{repository}/{spec}") for spec in specs]
    assert [config.partition.num_clients for config in configs] == [320] * 3 + [160] * 3 + [64] * 4
    assert [config.method for config in configs].count("fedavg") == 6
    assert len({(config.rounds, config.data.test_share, config.client.epochs) for config in configs}) == 1


def sent(maes, megabytes):
    line = lambda mae, mb: {
        "test_mae": mae, "predict_mean_mae": 6.0, "bytes_up_total": mb * 1e6, "bytes_down_total": 0, "sparsity": 0.5,
    }  # fmt: skip
    return records_of(*map(line, maes, megabytes))


def test_bytes_to_the_same_measure():
    # The sparse run is at the dense run's 4.0 after its first round, with 3 MB; in the other seed it never gets there.
    dense, sparse = [sent([5.0, 4.0], [8, 16])], [sent([4.0, 3.9], [3, 5])]
    head, _, *rows = cells(comparison_table({"dense": dense, "sparse": sparse}))
    assert head[-2:] == ["MB exchanged", "MB to the first row's MAE"]
    assert [row[-2:] for row in rows] == [["16.00", "16.00"], ["5.00", "3.00"]]
    never = cells(comparison_table({"dense": dense * 2, "sparse": sparse + [sent([4.5, 4.1], [3, 5])]}))
    assert never[-1][-1] == "reached by 1 of 2"


def test_the_mean_over_seeds_is_round_by_round():
    mean = mean_over_seeds([log(4.0, 10), log(5.0, 20)], REGRESSION)
    assert [record.round for record in mean] == [1, 2]
    assert [record.test["mae"] for record in mean] == [9.0, 4.5] and mean[0].baseline == 6.0
    assert [record.params_up_total for record in mean] == [1.0, 15.0]
    assert mean[1].bytes_up_total != mean[1].bytes_up_total  # nobody has measured them


def test_a_comparison_runs_and_goes_on_where_it_stopped(repository, tmp_path):
    specs = [f"{repository}/configs/methods/{name}.py:digits+smoke" for name in ("fedavg", "snip")]
    lines = []
    results = run_comparison(specs, [1, 2], tmp_path, lines.append)
    assert lines.count(f"{specs[1]}, seed 2") == 1 and any(line.startswith("round 1/3") for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}-digits+smoke-seed{seed}" for name in ("fedavg", "snip") for seed in (1, 2)
    }
    rows = cells(comparison_table(results))[2:]
    # SNIP takes 95 % of the 64 * 128 + 128 * 10 weights of the kernels, and none of the 138 biases.
    assert [row[:3] for row in rows] == [[f"`{specs[0]}`", "2", "0.000"], [f"`{specs[1]}`", "2", "0.936"]]
    assert comparison_figure(results).startswith(b"\x89PNG")
    lines.clear()
    assert comparison_table(run_comparison(specs, [1, 2], tmp_path, lines.append)) == comparison_table(results)
    assert not any(line.startswith("round 1/") for line in lines)


def test_the_mean_over_seeds_goes_as_far_as_all_were_trained():
    whole, ended_early = log(4.0, 10), log(5.0, 20)[:1]
    assert [record.test["mae"] for record in mean_over_seeds([whole, ended_early], REGRESSION)] == [9.0]

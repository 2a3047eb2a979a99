"""A grid of runs: its cells, its tables by hand, and that it goes on where it stopped."""

import csv

import numpy as np
import pytest

from fedsparse_jax.config import load_config
from fedsparse_jax.config.method import pruning_from_config
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.tasks import CLASSIFICATION, REGRESSION
from fedsparse_jax.runs import RoundRecord
from fedsparse_jax.studies.grid import (
    GridCell,
    Run,
    Study,
    config_of_run,
    expand_lists,
    read_study,
    run_study,
    study_of_configs,
    task_of_study,
)
from fedsparse_jax.studies.grid_report import write_study
from fedsparse_jax.studies.grid_tables import (
    excess,
    excess_over_all,
    latex_table,
    mean_over_seeds,
    rows_of,
    runs_table,
    study_rows,
)
from fedsparse_jax.studies.kept_runs import KEPT, read_kept
from fedsparse_jax.studies.run_measures import mask_of_text


def records_of(*lines):
    return [RoundRecord.from_json({"round": i, **line}) for i, line in enumerate(lines, 1)]


def log(mae, up=10**6):
    common = {"predict_mean_mae": 6.0, "test_rmse": mae + 1, "test_r": 0.5, "test_r2": 0.25}
    return records_of(
        {"test_mae": 9.0, "params_up_total": 1, "params_down_total": 1, "sparsity": 0.1, **common},
        {"test_mae": mae, "params_up_total": up, "params_down_total": up, "sparsity": 0.5, **common},
    )


def classified(accuracy, own):
    return records_of(
        {"test_accuracy": accuracy, "test_balanced_accuracy": accuracy, "test_auc": 0.75, "own_accuracy": own, "params_up_total": 10**6, "params_down_total": 0,
         "sparsity": 0.9, "commonest_class_accuracy": 0.5}
    )  # fmt: skip


def sent(maes, megabytes):
    line = lambda mae, mb: {
        "test_mae": mae, "predict_mean_mae": 6.0, "bytes_up_total": mb * 1e6, "bytes_down_total": 0, "sparsity": 0.5,
    }  # fmt: skip
    return records_of(*map(line, maes, megabytes))


def rows(tmp_path, **by_config):
    """Rows of a study of configs, the first one being the reference; None is a run that failed."""
    cells = [GridCell({"config": name}, name, seeds=range(len(logs))) for name, logs in by_config.items()]
    runs = [
        Run(cell, seed, tmp_path, records or (), "" if records else "It diverged.")
        for cell, logs in zip(cells, by_config.values())
        for seed, records in enumerate(logs)
    ]
    return rows_of(Study("", cells, {"config": next(iter(by_config))}), runs)


def table(found, task=REGRESSION):
    head, cells = study_rows(found, task)
    return [dict(zip(head, line)) for line in cells]


def test_regressions(tmp_path):
    found = rows(tmp_path, dense=[log(4.0), log(5.0)], sparse=[log(4.0, 10**5), log(4.1, 10**5)])
    dense, sparse = table(found)
    # Two seeds: t = 12.706, so the half width is 12.706 * .7071 / sqrt(2) = 6.35.
    assert dense["test MAE (y)"] == "4.50 ± 6.35" and dense["predicting the mean"] == "6.00"
    assert dense["worse than the reference (%)"] == "reference" and dense["weights exchanged"] == "2.00 M"
    assert (dense["RMSE"], dense["r"], dense["R2"]) == ("5.50 ± 6.35", "0.50 ± 0.00", "0.25 ± 0.00")
    # Differences 0 and -.9 of a mean of 4.5: 0 and -.2, whose mean is -.1 and whose half width is 12.706 * .1.
    assert sparse["worse than the reference (%)"] == "-10.0 ± 127.1" and sparse["weights exchanged"] == "0.20 M"


def test_not_inferior_means_that_a_t_test_refuses_the_margin(tmp_path):
    # Excesses of .01, 0 and .02 of a mean of 4: t at 2 % is (.01 - .02) / (.01 / sqrt(3)) = -1.732 with 2 degrees of
    # freedom, p = .1127; at 5 % it is -6.928, p = .0101 (tables of Student's t).
    found = rows(tmp_path, dense=[log(4.0)] * 3, sparse=[log(4.04), log(4.0), log(4.08)])
    more = excess(found[1], REGRESSION)
    assert more.mean == pytest.approx(0.01) and more.half == pytest.approx(4.303 * 0.01 / np.sqrt(3), rel=1e-3)
    assert more.chances == {0.02: pytest.approx(0.1127, abs=1e-4), 0.05: pytest.approx(0.0101, abs=1e-4)}
    assert not more.is_fine(0.02) and more.is_fine(0.05)
    cells = table(found)[1]
    assert (cells["within 2 %"], cells["within 5 %"]) == ("no (p 0.113)", "yes (p 0.010)")


def test_over_every_environment_seeds_are_the_repeats():
    # Seed 1: +10 % and -5 % of dense, seed 2: +5 % and +2 %, on means of 4 and 5 years; seed 3 misses in B.
    errors = {("A", "dense"): (4.0, 4.0, 4.0), ("A", "sparse"): (4.4, 4.2, 5.0), ("B", "dense"): (5.0, 5.0), ("B", "sparse"): (4.75, 5.1)}  # fmt: skip
    cells = [GridCell({"environment": where, "method": how}, "", [], (1, 2, 3)) for where, how in errors]
    runs = [
        Run(cell, seed, None, log(mae))
        for cell, maes in zip(cells, errors.values(), strict=True)
        for seed, mae in enumerate(maes, 1)
    ]
    found = excess_over_all(rows_of(Study("", cells, {"method": "dense"}), runs), REGRESSION)
    ((labels, seeds, more),) = found
    assert (labels, seeds) == ({"method": "sparse"}, 2)
    assert more.mean == pytest.approx(0.03) and more.half == pytest.approx(12.706 * 0.005, rel=1e-3)
    assert more.as_cells()["worse than the reference (%)"] == "+3.0 ± 6.4"


def test_one_environment_has_no_mean_over_all():
    cells = [GridCell({"environment": "A", "method": how}, "", [], (1, 2)) for how in ("dense", "sparse")]
    runs = [Run(cell, seed, None, log(4.0)) for cell in cells for seed in (1, 2)]
    assert not excess_over_all(rows_of(Study("", cells, {"method": "dense"}), runs), REGRESSION)


def test_classifications_are_worse_where_fewer_are_right(tmp_path):
    found = rows(
        tmp_path, a=[classified(0.9, 0.8), classified(0.8, 0.8)], b=[classified(0.85, 0.9), classified(0.75, 0.7)]
    )
    first, second = table(found, CLASSIFICATION)
    assert (first["test accuracy (%)"], first["on own classes (%)"]) == ("85.0 ± 63.5", "80.0")
    assert (first["balanced accuracy (%)"], first["AUC (%)"]) == ("85.0 ± 63.5", "75.0 ± 0.0")
    assert second["test accuracy (%)"] == "80.0 ± 63.5" and second["naming the commonest class"] == "50.0"
    assert second["worse than the reference (%)"] == "+5.9 ± 0.0"  # .05 / .85


def test_bytes_to_the_same_measure(tmp_path):
    # The sparse run is at the dense run's 4.0 after its first round, with 3 MB; in the other seed it never gets there.
    dense, sparse = [sent([5.0, 4.0], [8, 16])], [sent([4.0, 3.9], [3, 5])]
    key = "MB to the reference's MAE"
    found = table(rows(tmp_path, dense=dense, sparse=sparse))
    assert [(row["MB exchanged"], row[key]) for row in found] == [("16.00", "16.00"), ("5.00", "3.00")]
    never = table(rows(tmp_path, dense=dense * 2, sparse=[*sparse, sent([4.5, 4.1], [3, 5])]))
    assert never[-1][key] == "reached by 1 of 2"


def test_a_failed_run_is_told_and_pairs_are_of_the_same_seed(tmp_path):
    found = rows(tmp_path, dense=[log(4.0), log(5.0), log(6.0)], sparse=[None, log(5.0), log(6.0)])
    cells = table(found)[1]
    assert (cells["seeds"], cells["failed"]) == ("2", "1: It diverged.")
    assert cells["worse than the reference (%)"] == "+0.0 ± 0.0"


def test_two_tasks_are_not_compared_and_nothing_is_trained_before_that_is_said(repository, tmp_path):
    configs = repository / "configs"
    digits = GridCell({"of": "digits"}, f"{configs}/methods/fedavg.py:digits+smoke")
    ages = GridCell({"of": "ages"}, f"{configs}/quickstart.py:smoke")
    sexes = GridCell({"of": "sexes"}, f"{configs}/labels.py:sex+smoke")
    for pair in ([digits, ages], [ages, sexes], [digits, sexes]):
        with pytest.raises(UsageError, match=f"in {pair[0].name}, and .* in {pair[1].name}; study them apart"):
            run_study(Study("", pair), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    memory = GridCell({"of": "memory"}, f"{configs}/labels.py:memory+smoke")
    assert task_of_study(Study("", [memory])).unit == " points"
    with pytest.raises(UsageError, match="No config of the study can be used"):
        task_of_study(Study("", [ages._replace(settings=["rounds=none"])]))
    with pytest.raises(UsageError, match="No run of the study is finished"):
        write_study(Study("", [ages]), [Run(ages, 1, tmp_path, (), "It diverged.")], tmp_path)


def test_a_reference_is_sought_among_cells_that_are_alike_otherwise():
    labels = [{"site": site, "method": method} for site in ("A", "B") for method in ("dense", "sparse")]
    cells = [GridCell(one, "x", seeds=[1]) for one in labels]
    found = rows_of(Study("", cells, {"method": "dense"}), [Run(cell, 1, None, log(4.0)) for cell in cells])
    assert [row.reference[0].cell.labels["site"] for row in found] == ["A", "A", "B", "B"]
    assert all(row.reference[0].cell.labels["method"] == "dense" for row in found)


def test_the_mean_over_seeds_is_round_by_round_as_far_as_all_were_trained():
    cell = GridCell({}, "")
    whole, ended_early = Run(cell, 1, None, log(4.0, 10)), Run(cell, 2, None, log(5.0, 20)[:1])
    mean = mean_over_seeds([whole, Run(cell, 3, None, log(5.0, 20))], REGRESSION)
    assert [record.test["mae"] for record in mean] == [9.0, 4.5] and mean[0].baseline == 6.0
    assert [record.params_up_total for record in mean] == [1.0, 15.0]
    assert np.isnan(mean[1].bytes_up_total)  # nobody has measured them
    assert [record.test["mae"] for record in mean_over_seeds([whole, ended_early], REGRESSION)] == [9.0]


def test_latex():
    assert latex_table(["a_b", "%"], [["1 ± 2", "–"]]).splitlines() == [
        r"\begin{tabular}{ll}", r"\toprule", r"a\_b & \% \\", r"\midrule", r"1 $\pm$ 2 & -- \\", r"\bottomrule",
        r"\end{tabular}",
    ]  # fmt: skip


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
    assert sum("+90" in spec for spec in specs) == sum("+95" in spec for spec in specs) == 24


def test_the_comparison_of_travelling_models_shares_out_the_same_images(repository):
    specs = expand_lists([f"@{repository}/configs/lists/travelling.txt"])
    configs = [load_config(f"{repository}/{spec}") for spec in specs]
    assert [config.partition.num_clients for config in configs] == [320] * 3 + [160] * 3 + [64] * 4
    assert [config.method for config in configs].count("fedavg") == 6
    assert len({(config.rounds, config.data.test_share, config.client.epochs) for config in configs}) == 1


def test_values_of_keys_are_combined():
    study = study_of_configs(["a.py", "b.py"], ["rounds=1,2", "seed=3"], [7])
    assert [(cell.spec, cell.settings) for cell in study.cells] == [
        ("a.py", ["rounds=1", "seed=3"]), ("b.py", ["rounds=1", "seed=3"]),
        ("a.py", ["rounds=2", "seed=3"]), ("b.py", ["rounds=2", "seed=3"]),
    ]  # fmt: skip
    assert study.reference == {"config": "a.py"}
    with pytest.raises(UsageError, match="write a key and its values, such as rounds=20,40"):
        study_of_configs(["a.py"], ["rounds"], [7])


def test_the_headline_has_dense_and_sparse_in_every_environment(repository, monkeypatch):
    monkeypatch.chdir(repository)
    study = read_study("configs/studies/grid.py:headline")
    assert len(study.cells) == 10 and all(len(cell.seeds) == 5 for cell in study.cells)
    configs = [config_of_run(cell, 1) for cell in study.cells]
    assert [config.partition.num_clients for config in configs] == [1] * 2 + [8] * 8
    assert [config.pruning.placement for config in configs] == ["none", "server"] * 5
    names = ["uniform_iid"] * 2 + ["skewed_iid", "uniform_noniid", "skewed_noniid"]
    assert [config.partition.name for config in configs[1::2]] == names
    assert {(c.rounds, c.model.name, c.data.test_share) for c in configs} == {(40, "flat_cnn", 300 / 812)}
    assert {pruning_from_config(config).schedule[:2] for config in configs[1::2]} == {(0.95, 32)}
    assert task_of_study(study).headline == "mae"
    whole = {cell.name: cell for cell in read_study("configs/studies/grid.py").cells}
    assert all(whole[cell.name]._replace(seeds=cell.seeds) == cell for cell in study.cells)  # so that runs are shared


def test_scores_are_compared_at_two_sparsities(repository, monkeypatch):
    monkeypatch.chdir(repository)
    cells = read_study("configs/studies/grid.py:scores+centralized").cells
    configs = [config_of_run(cell, 1) for cell in cells]
    assert [config.pruning.criterion for config in configs[1:]] == ["magnitude"] * 2 + ["lamp"] * 2
    assert [config.pruning.sparsity for config in configs[1:]] == [0.95, 0.98] * 2
    assert len(read_study("configs/studies/grid.py:scores").cells) == 5 * len(cells) == 25


def test_remedies_are_tried_on_seeds_that_are_not_reported(repository, monkeypatch):
    monkeypatch.chdir(repository)
    cells = read_study("configs/studies/remedies.py").cells
    reported = {seed for cell in read_study("configs/studies/grid.py:headline").cells for seed in cell.seeds}
    assert len(cells) == 2 * (2 + 7) and not reported & {seed for cell in cells for seed in cell.seeds}
    some = [
        config_of_run(cell, 11) for cell in read_study("configs/studies/remedies.py:skewed_iid+lamp_decay+98").cells
    ]
    assert [config.pruning.placement for config in some] == ["none", "none", "server"]
    rates = [config.client.learning_rate_schedule.name for config in some]
    assert rates == ["none", "cosine_decay_schedule", "cosine_decay_schedule"]
    assert (some[2].pruning.criterion, some[2].pruning.sparsity) == ("lamp", 0.98)
    for cell in cells:
        pruning_from_config(config_of_run(cell, 11))


def test_the_grid_has_every_method_at_every_sparsity(repository, monkeypatch):
    monkeypatch.chdir(repository)
    cells = read_study("configs/studies/grid.py").cells
    assert len(cells) == 5 * (1 + 7 * 5) and len({cell.name for cell in cells}) == 180
    part = read_study("configs/studies/grid.py:uniform_noniid+centralized+98").cells
    assert [cell.labels["environment"] for cell in part] == ["centralized"] * 8 + ["uniform, non-IID"] * 8
    configs = [config_of_run(cell, 1) for cell in part if cell.labels["method"] != "dense"]
    asked = [float(pruning_from_config(config).schedule(config.rounds)) for config in configs]
    assert asked == pytest.approx([0.98] * 14)
    assert [cell.labels["method"] for cell in read_study("configs/studies/grid.py:dense").cells] == ["dense"] * 5
    with pytest.raises(UsageError, match="no form 'skewed'"):
        read_study("configs/studies/grid.py:skewed")


def test_what_is_no_study_is_said(tmp_path):
    with pytest.raises(UsageError, match="There is no study"):
        read_study(f"{tmp_path}/none.py:smoke")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UsageError, match=r"empty.py has no function get_study\(forms\)"):
        read_study(f"{tmp_path}/empty.py")
    with pytest.raises(UsageError, match="Two cells of the study are called a"):
        run_study(Study("", [GridCell({"x": "a"}, "")] * 2), tmp_path)


def test_a_study_runs_and_goes_on_where_it_stopped(repository, tmp_path):
    specs = [f"{repository}/configs/methods/{name}.py:digits+smoke" for name in ("fedavg", "snip")]
    labels = [{"method": "dense", "sparsity": "0 %"}, {"method": "SNIP", "sparsity": "95 %"}]
    cells = [GridCell(label, spec, seeds=(1, 2)) for label, spec in zip(labels, specs)]
    broken = GridCell({"method": "broken", "sparsity": "–"}, specs[0], ["client.clip=none"], seeds=(1,))
    study, lines = Study("Two", [*cells, broken], labels[0], ("mask", "errors")), []
    runs = run_study(study, tmp_path, lines.append)
    assert lines[0].startswith("  broken, –, seed 1: failed: client.clip is 'none'")
    assert lines[1] == "Run 1 of 5: dense, 0 %, seed 1" and lines[2].startswith("  sparsity 0.000, test accuracy 0.")
    assert [bool(run.failure) for run in runs] == [False] * 4 + [True] and "client.clip is 'none'" in runs[-1].failure
    text = write_study(study, runs, tmp_path)
    # SNIP takes 95 % of the 64 * 128 + 128 * 10 weights of the kernels, and none of the 138 biases.
    assert "| dense | 0 % | 2 | 0.000 |" in text and "| SNIP | 95 % | 2 | 0.936 |" in text
    with open(tmp_path / "runs.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["seed"] for row in written] == ["1", "2", "1", "2", "1"] and "clip" in written[-1]["failure"]
    assert written[0]["accuracy"] == f"{runs[0].records[-1].test['accuracy']:.5f}"
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "study.pdf").read_bytes().startswith(b"%PDF")
    page = (tmp_path / "study.html").read_text()
    assert "Runs that failed" in page and "SNIP" in page and "Density by layer" in page
    lines.clear()
    again = run_study(study, tmp_path, lines.append)
    assert [line for line in lines if line.startswith("Run")] == []  # nothing is left to do but what failed
    assert write_study(study, again, tmp_path) == text and runs_table(again) == runs_table(runs)
    assert runs[0].measures["errors"] == {} and mask_of_text(runs[2].measures["mask"]["bits"]).sum() == 612
    tables = (tmp_path / "study.md").read_text()
    assert tables.startswith(text) and "## Agreement of masks" in tables and "4 runs: 20" in tables

    known = read_kept(tmp_path / KEPT, study)
    elsewhere = run_study(study, tmp_path / "elsewhere", lines.append, known=known)
    assert len(known) == 4 and [line for line in lines if line.startswith("Run")] == []
    assert write_study(study, elsewhere, tmp_path / "elsewhere") == text
    assert (tmp_path / "elsewhere" / KEPT).read_bytes() == (tmp_path / KEPT).read_bytes()

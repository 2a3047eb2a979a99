"""The table of a comparison, by hand."""

from fedsparse_jax import compare


def log(mae, up):
    return [
        {"test_mae": 9.0, "predict_mean_mae": 6.0, "params_up_total": 1, "params_down_total": 1, "sparsity": 0.1},
        {"test_mae": mae, "predict_mean_mae": 6.0, "params_up_total": up, "params_down_total": up, "sparsity": 0.5},
    ]  # fmt: skip


def test_table():
    rows = compare.table(
        {"dense": [log(4.0, 10**6), log(5.0, 10**6)], "sparse": [log(4.0, 10**5), log(4.1, 10**5)]}
    )
    dense, sparse = (row.strip("| ").split(" | ") for row in rows.splitlines()[2:])
    assert dense == ["`dense`", "2", "0.500", "4.50 ± 0.71", "25.0% of 6.00", "+0.0%", "2.00 M"]
    assert sparse == ["`sparse`", "2", "0.500", "4.05 ± 0.07", "32.5% of 6.00", "-10.0%", "0.20 M"]

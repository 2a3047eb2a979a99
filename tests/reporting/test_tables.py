"""Tables as Markdown, and the rows of an audit."""

from fedsparse_jax.reporting.audit_tables import AUDIT_HEAD, attack_rows, audit_tables, show_estimate
from fedsparse_jax.reporting.markdown import markdown_table


def test_a_table_by_hand():
    table = markdown_table(("leaf", "weights", "density"), [("conv1/kernel", 1234567, 0.05), ("head", 8, "–")])
    assert table == (
        "| leaf | weights | density |\n| --- | --- | --- |\n| conv1/kernel | 1,234,567 | 0.05 |\n| head | 8 | – |\n"
    )


def test_rows_may_come_from_anywhere():
    rows = [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    table = markdown_table(rows[0], (row.values() for row in rows))
    assert table == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |\n"
    assert markdown_table(iter(["a"]), []) == "| a |\n| --- |\n"


def estimate(value, refused=""):
    return {"value": value, "low": None if refused else value - 0.1, "high": None if refused else value + 0.1,
            "refused": refused}  # fmt: skip


def outcome(auc):
    unknown = estimate(None, "too few non-members")
    return {"auc": estimate(auc), "tpr": {"0.01": unknown, "0.001": unknown}, "balanced_accuracy": estimate(0.5)}


def finding(auc, partners=True):
    return {"refused": "", "everybody": outcome(auc), "age_matched": outcome(0.5) if partners else None}


def audit(**threats):
    refused = {"refused": "rmia needs shadow models.", "everybody": None, "age_matched": None}
    by_threat = {name: {"error": error, "rmia": refused} for name, error in threats.items()}
    control = {"untrained": {name: {"error": finding(0.5), "rmia": refused} for name in threats}}
    return {"threat": "client", "round": 9, "train_mae": 3.0, "test_mae": 5.0, "gap": 2.0, "threats": by_threat,
            "controls": control}  # fmt: skip


def test_one_threat_has_intervals_and_several_have_a_range():
    assert show_estimate([estimate(0.7)]) == "0.700 [0.600, 0.800]"
    assert show_estimate([estimate(0.5), estimate(0.7), estimate(0.9)]) == "0.700 (0.500 to 0.900)"
    assert show_estimate([estimate(0.5), estimate(None, "why")]) == "0.500 (0.500 to 0.500)"
    assert show_estimate([estimate(None, "why")] * 2) == "refused: why"


def test_a_row_of_an_attack_that_ran_and_of_one_that_was_refused():
    ran, refused = attack_rows(audit(outsider=finding(0.7, partners=False)))
    assert ran == [
        "error",
        "0.700 [0.600, 0.800]",
        "refused: too few non-members",
        "refused: too few non-members",
        "0.500 [0.400, 0.600]",
        "nobody has a partner",
    ]
    assert refused == ["rmia", "refused: rmia needs shadow models.", "", "", "", ""]
    assert len(ran) == len(refused) == len(AUDIT_HEAD)


def test_several_threats_are_shown_together_and_each():
    titles = [title for title, _ in audit_tables(audit(**{"L1->L2": finding(0.6), "L2->L1": finding(0.8)}))]
    assert titles == [
        "Threat: client, 2 of them; models after round 9. Train MAE 3.00 y, test MAE 5.00 y, gap 2.00 y.",
        "Control: models that cannot know, untrained.",
        "L1->L2",
        "L2->L1",
    ]
    (_, rows), *_ = audit_tables(audit(**{"L1->L2": finding(0.6), "L2->L1": finding(0.8)}))
    assert rows[0][1] == "0.700 (0.600 to 0.800)"


def test_private_training_says_its_epsilon():
    (title, _), *_ = audit_tables({**audit(outsider=finding(0.7)), "epsilon": 12.34, "delta": 1e-5})
    assert title.endswith("gap 2.00 y. Epsilon 12.3 at delta 1e-05.") and "of them" not in title

"""The report of a made-up run whose numbers are known."""

import html.parser
import json
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.tasks import regression_measures
from fedsparse_jax.reporting import plots_scans, read_run_files, write_report
from fedsparse_jax.runs.records import RoundRecord
from fedsparse_jax.runs.series import dense_exchanged, exchanged, params_exchanged

TITLES = ["Federation", "Accuracy", "Communication", "Sparsity by layer", "Predictions", "Scans", "Reproduce"]


def metrics(round_, **changes):
    """A line of ``metrics.jsonl``."""
    sparsity = (0.0, 0.5, 0.95)[round_ - 1]
    base = dict(
        round=round_, target_sparsity=sparsity, sparsity=sparsity, train_loss=50.0 / round_, test_mae=6.0 - round_,
        test_rmse=7.0 - round_, test_r=0.5, test_r2=0.25, predict_mean_mae=6.0, params_down=2000, params_up=2000,
        params_down_total=2000 * round_, params_up_total=2000 * round_, agreement=1.0, cohort=[0, 1], seconds=40.0,
        density={"conv1/kernel": 1 - sparsity, "head/kernel": 1 - sparsity},
    )  # fmt: skip
    return {**base, **changes}


def federation(**changes):
    clients = [{"name": f"L{i}", "n": 3, "ages": [50.0 + i, 61.0, 72.0]} for i in (1, 2)]
    base = dict(method="fedsparsify_global", clients=clients, test={"n": 4, "ages": [45.0, 55.0, 65.0, 75.0]},
                dropped={"age is missing": 2}, total_weights=1000, layers={"conv1/kernel": 400, "head/kernel": 600},
                shape=[8, 8, 8])  # fmt: skip
    return {**base, **changes}


@pytest.fixture
def workdir(tmp_path):
    put(tmp_path, "metrics.jsonl", [metrics(i) for i in (1, 2, 3)])
    put(tmp_path, "federation.json", federation())
    put(tmp_path, "config.json", {"config": {"rounds": 3, "seed": 7}})
    put(tmp_path, "environment.json", {"versions": {"jax": "1.2.3"}, "seed": 7, "python": "3.11"})
    rows = [("sub-1", 45, 50), ("sub-2", 55, 56), ("sub-3", 65, 64), ("sub-4", 75, 70)]
    table = "participant_id\tsession\tsite\tage\tpredicted_age\terror\n"
    table += "".join(f"{person}\tn/a\tn/a\t{age}\t{predicted}\t{predicted - age}\n" for person, age, predicted in rows)
    (tmp_path / "predictions.tsv").write_text(table)
    volumes = np.random.default_rng(0).normal(size=(2, 8, 9, 8))
    np.savez(tmp_path / "slices.npz", volumes=volumes, ages=[45.0, 75.0])
    return tmp_path


def put(folder, name, value):
    text = "\n".join(map(json.dumps, value)) if isinstance(value, list) else json.dumps(value)
    (folder / name).write_text(text)


def text_of(page):
    pieces = []
    parser = html.parser.HTMLParser()
    parser.handle_data = pieces.append
    parser.feed(page)
    return " ".join(" ".join(pieces).split())


def test_the_headline_numbers_are_those_worked_by_hand(workdir, undrawn):
    text = text_of(write_report(workdir).read_text())
    assert "test MAE 3.00 y 50% below predicting the mean (6.00 y)" in text
    assert "sparsity 95.0% 50 of 1,000 weights kept" in text
    # 3 rounds x 2 clients x up and down x 1,000 weights = 12,000 dense; the log says 12,000 too.
    assert "weights exchanged 12 k as many as dense FedAvg" in text
    assert "3 of 3 2 min 0 s in all" in text
    assert "2 × age is missing" in text and "2 clients hold 6 scans; 4 scans" in text


def test_the_page_is_whole_and_loads_nothing(workdir):
    page = write_report(workdir).read_text()
    assert re.findall("<h2>(.*?)</h2>", page) == TITLES
    assert not re.search(r"""(src|href)=(?!["']?data:)""", page) and "<script" not in page
    pictures = {path.name for path in (workdir / "figures").iterdir()}
    for name in (
        "federation",
        "quality_by_round",
        "quality_by_traffic",
        "density_by_layer",
        "predicted_vs_true",
        "scans",
    ):
        assert {f"{name}.png", f"{name}.pdf"} <= pictures
    assert page.count("<img") == len([name for name in pictures if name.endswith(".png")])


@pytest.mark.parametrize(
    ("file", "title"), [("federation.json", "Federation"), ("predictions.tsv", "Predictions"), ("slices.npz", "Scans")]
)
def test_a_missing_file_is_said(workdir, undrawn, file, title):
    (workdir / file).unlink()
    assert f"{title} Left out: the run folder holds no {file}." in text_of(write_report(workdir).read_text())


def test_an_unfinished_run_with_undefined_numbers(workdir, undrawn):
    put(workdir, "metrics.jsonl", [metrics(1, test_r=None, test_r2=None, test_mae=None)])
    put(workdir, "config.json", {"config": {"rounds": 40}})
    text = text_of(write_report(workdir).read_text())
    assert "1 of 40" in text and "No test error in round 1" in text and "nan" not in text


@pytest.mark.parametrize(
    ("file", "content", "field"),
    [
        ("config.json", "{", "config"),
        ("environment.json", "", "environment"),
        ("slices.npz", "PK", "slices"),
        ("predictions.tsv", "participant_id\tage\tpredicted_age\n", "predictions"),
        ("predictions.tsv", "age\tpredicted_age\n60\tnan\nn/a\t61\n", "predictions"),
    ],
)
def test_a_damaged_file_counts_as_missing(workdir, undrawn, file, content, field):
    assert getattr(read_run_files(workdir), field)
    (workdir / file).write_text(content)
    assert getattr(read_run_files(workdir), field) == {}


def test_predictions_that_are_no_numbers_are_not_drawn(workdir):
    rows = "participant_id\tage\tpredicted_age\nsub-1\t60\tnan\nsub-2\t61\t65\n"
    (workdir / "predictions.tsv").write_text(rows)
    assert read_run_files(workdir).predictions["participant_id"].tolist() == ["sub-2"]


def test_more_error_than_the_mean_is_said_to_be_above(workdir, undrawn):
    put(workdir, "metrics.jsonl", [metrics(1, test_mae=9.0)])
    text = text_of(write_report(workdir).read_text())
    assert "test MAE 9.00 y 50% above predicting the mean (6.00 y)" in text


def test_a_collapsed_layer_is_warned_of_and_a_bias_is_not(workdir, undrawn):
    last = metrics(3, density={"conv1/kernel": 0.0, "conv1/bias": 0.0, "head/kernel": 0.1})
    put(workdir, "metrics.jsonl", [metrics(1), metrics(2), last])
    assert "Collapsed: conv1/kernel keeps no weight" in text_of(write_report(workdir).read_text())


def test_hostile_text_is_escaped(workdir, undrawn):
    about = federation(method="<script>alert(1)</script>", dropped={"<b>": 1})
    about["clients"][0]["name"] = "<b>x</b>"
    put(workdir, "federation.json", about)
    put(workdir, "config.json", {"config": {"note": "</pre><script>"}})
    page = write_report(workdir).read_text()
    assert "<script>" not in page and "<b>:" not in page and "&lt;b&gt;" in page
    assert "<b>x</b>" not in page


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no finished round"):
        write_report(tmp_path)


def test_bytes_of_real_messages_replace_the_count_of_weights(workdir, undrawn):
    text = (workdir / "metrics.jsonl").read_text()
    rounds = [json.loads(line) for line in text.splitlines()]
    for i, entry in enumerate(rounds, 1):
        entry |= {"bytes_up": [500] * 2, "bytes_up_total": 1000 * i, "bytes_down_total": 3000 * i}
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rounds))
    page = text_of(write_report(workdir).read_text())
    # 12 kB in three rounds; dense are 12,000 weights of 4 bytes.
    assert "bytes exchanged 12 kB 4.0 × fewer than dense" in page
    assert "12,000 25.0%" in page and "48,000 100.0%" in page
    records = [RoundRecord.from_json(entry) for entry in rounds]
    assert exchanged(records)[1] == "bytes" and exchanged([*records, RoundRecord(4)])[1] == "weights"


def test_a_learning_rate_is_told_of_where_it_changes(workdir, undrawn):
    for factors, changes in (((1.0, 0.5, 0.25), True), ((0.5,) * 3, False)):
        put(workdir, "metrics.jsonl", [metrics(i, client_rate_factor=factors[i - 1]) for i in (1, 2, 3)])
        page = text_of(write_report(workdir).read_text())
        told = "multiplied the learning rate of the clients by 1 in round 1 and by 0.25 in round 3"
        assert (told in page) == ("client_rate_factor" in page) == changes
        assert "server_rate_factor" not in page and "learning rate of the server" not in page


def test_dense_traffic_by_hand():
    records = [RoundRecord.from_json(entry) for entry in (metrics(1), metrics(2, cohort=[0]))]
    assert dense_exchanged(records, 1000, 2).tolist() == [4000, 6000]
    assert params_exchanged(records).tolist() == [4000, 8000]


def test_accuracy_by_hand():
    measures = regression_measures([52, 60, 66], [50, 60, 70])
    assert measures["mae"] == 2.0
    assert measures["r2"] == pytest.approx(0.9) and measures["rmse"] == pytest.approx((20 / 3) ** 0.5)
    assert np.isnan(regression_measures([5, 5], [1, 2])["r"])


@pytest.mark.parametrize(
    ("panel", "voxel", "right_half", "upper_half"),
    [
        (0, (1, 9, None), False, True),  # axial: left, front
        (0, (7, 1, None), True, False),  # axial: right, back
        (1, (1, None, 7), False, True),  # coronal: left, top
        (2, (None, 9, 7), True, True),  # sagittal: front, top
        (2, (None, 1, 1), False, False),  # sagittal: back, bottom
    ],
)
def test_a_bright_voxel_lands_where_the_letters_say(panel, voxel, right_half, upper_half):
    volume = np.zeros((9, 11, 9))
    volume[tuple(slice(None) if at is None else at for at in voxel)] = 1.0  # a line that every cut meets
    figure = plots_scans.contact_sheet(volume[None], ["x"])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3]  # rows from the bottom up
    box = figure.axes[panel].get_window_extent()
    inside = pixels[round(box.y0) + 2 : round(box.y1) - 2, round(box.x0) + 2 : round(box.x1) - 2]
    row, column = np.argwhere((inside == 255).all(-1)).mean(0)
    assert (column > inside.shape[1] / 2, row > inside.shape[0] / 2) == (right_half, upper_half)
    assert [text.get_text() for text in figure.axes[panel].texts] == list("PA" if panel == 2 else "LR")

"""The pieces of a page: everything is escaped, and nothing is loaded from anywhere."""

import math
import re

import pytest
from matplotlib.figure import Figure

from fedsparse_jax.reporting.html import Fold, Section, Table, Text, cell, formatted, render_page

HOSTILE = '<b>x</b>"onload="'


def page_of(*parts, title="title", tiles=(), figures=None):
    return render_page(title, tiles, [Section("Section", parts, figures or {})])


def small_figure():
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


@pytest.mark.parametrize(
    "page",
    [
        page_of(title=HOSTILE),
        page_of(tiles=[(HOSTILE, "1", "remark")]),
        page_of(tiles=[("label", HOSTILE, "remark")]),
        page_of(tiles=[("label", "1", HOSTILE)]),
        page_of(Text(HOSTILE)),
        page_of(Text(HOSTILE, "code")),
        page_of(Table([HOSTILE], [["cell"]])),
        page_of(Table(["head"], [[HOSTILE]])),
        page_of(Fold(HOSTILE, [Text("text")])),
        page_of(Fold("summary", [Table(["head"], [[HOSTILE]])])),
        render_page("title", [], [Section(HOSTILE, [])]),
        page_of(figures={"name": (small_figure(), HOSTILE)}),
    ],
)
def test_whatever_stands_in_a_page_is_escaped(page):
    assert "<b>x" not in page and '"onload="' not in page
    assert "&lt;b&gt;x&lt;/b&gt;&#34;onload=&#34;" in page


def test_a_cell_that_is_no_text_is_shown_as_text():
    assert "<td>7</td><td>None</td>" in page_of(Table(["a", "b"], [[7, None]]))


def test_a_kind_of_text_is_a_kind_of_paragraph():
    page = page_of(Text("plain"), Text("aside", "note"), Text("mind", "warning"), Text("x = 1", "code"))
    assert '<p class="text">plain</p>' in page and '<p class="note">aside</p>' in page
    assert '<p class="warning">mind</p>' in page and "<pre>x = 1</pre>" in page


def test_a_fold_holds_any_parts_and_may_be_open():
    inner = Fold("inner", [Text("deep")])
    page = page_of(Fold("closed", [inner, Table(["head"], [["cell"]])]), Fold("shown", [Text("text")], open=True))
    assert "<details><summary>closed</summary>" in page and "<details open><summary>shown</summary>" in page
    assert "<details><summary>inner</summary>" in page and page.count("<details") == page.count("</details>") == 3


def test_figures_stand_within_the_page():
    page = page_of(figures={"first": (small_figure(), "One."), "second": (small_figure(), "Two.")})
    assert page.count('src="data:image/png;base64,iVBOR') == page.count("<img") == 2
    assert re.findall("<figcaption>(.*?)</figcaption>", page) == ["One.", "Two."]
    assert page.count("max-width:8rem") == 2  # 7.6 rem an inch


def test_an_empty_page_is_whole():
    page = render_page("nothing yet", [], [])
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert "<title>nothing yet</title>" in page and "<section>" not in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (2.0, "2"), (0.12345, "0.123"), (None, "–"), (math.nan, "–"), ("many", "–")],
)
def test_numbers_of_a_table(value, text):
    assert cell(value) == text


def test_a_number_with_its_unit():
    assert formatted(4.0567, ".2f", " y") == "4.06 y"
    assert formatted(math.inf, ".2f", " y") == "–"

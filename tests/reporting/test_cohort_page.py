"""The page about the scans before training: everything that a person should see is in it."""

import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.nifti import Quality
from fedsparse_jax.data.scan_cache import ScanSet
from fedsparse_jax.data.scan_quality import find_doubts
from fedsparse_jax.data.tables import Drop, Scan
from fedsparse_jax.reporting import cohort_page, html, plots_cohort, plots_scans
from fedsparse_jax.reporting.cohort_page import Sharing, write_cohort_page

COUNT = 12


def made_up(align="rough", warned=(), dropped=(), sexes="FM", sites=("north", "south")):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(COUNT, 9, 11, 9, 1)).astype(np.float32)
    scans, quality = [], []
    for i in range(COUNT):
        scans.append(Scan(f"{i}.nii", f"sub-{i:02d}", "", 50.0 + i, sexes[i % len(sexes)], sites[i % len(sites)]))
        warnings = ("it lies upside down",) if i in warned else ()
        quality.append(
            Quality((9, 11, 9), (2.0, 2.0, 2.0), "RAS", 0.3, 1.0, 1.0, 1.4, 0.95, 0.5, np.nan, np.nan, warnings)
        )
    return ScanSet(inputs, tuple(scans), tuple(quality), tuple(dropped), ("a note",), align)


def shared(scan_set):
    members, test = [np.arange(0, 5), np.arange(5, 9)], np.arange(9, 12)
    people = [{"participant_id": scan.participant, "session": "", "site": scan.site} for scan in scan_set.scans]
    return Sharing("uniform_iid", Federation(scan_set.inputs, np.zeros(COUNT), members, test, people))


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "render_figure", lambda *args, **kwargs: b"")

    def write(scan_set, sharing=None):
        write_cohort_page(tmp_path / "cohort.html", scan_set, sharing or shared(scan_set))
        return (tmp_path / "cohort.html").read_text()

    return write


def rows(text, title):
    """The cells of the rows under a heading."""
    section = text.partition(f"<h2>{title}")[2].partition("<h2>")[0]
    return [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", section) if "<td>" in row]


def test_everybody_is_counted_by_client_and_by_site(page):
    text = page(made_up())
    first, second, test = rows(text, "Clients under partition uniform_iid")
    # Ages 50 to 54: mean 52, SD sqrt(2); F at even numbers.
    assert first == ["client 1", "5", "41.7%", "5", "52.0 ± 1.4", "50.0 to 54.0", "3 / 2", "north, south"]
    assert second[:4] == ["client 2", "4", "33.3%", "4"] and test[:4] == ["test set", "3", "25.0%", "3"]
    assert rows(text, "Sites and scanners")[0] == ["north", "6", "6", "55.0 ± 3.4", "50.0 to 60.0", "6 / 0"]
    assert "9 x 11 x 9 at 2 x 2 x 2 mm RAS" in text and "a note" in text
    assert [tile for tile in re.findall("<b>(.*?)</b>", text)] == ["12", "55.5 y", "0", "0"]


def test_doubts_and_what_was_left_out_stand_with_their_reasons(page):
    text = page(made_up(warned=(4, 7), dropped=[Drop("x.nii", "empty file", "fetch it again")]))
    doubtful = rows(text, "Quality")
    assert [row[0] for row in doubtful] == ["sub-04", "sub-07"] and doubtful[0][-1] == "it lies upside down"
    assert rows(text, "Left out") == [["empty file", "1"], ["x.nii", "empty file", "fetch it again"]]
    assert "titled in red" in text and "left and right are exchanged cannot be told" in text


def test_people_who_cannot_be_divided_are_shown_all_the_same(page):
    text = page(made_up(), Sharing("site", None, "2 of 12 people have no site."))
    assert "These people cannot be divided so: 2 of 12 people have no site." in text and "<h2>Quality" in text


def test_ages_that_nobody_needs_may_lack(page):
    scan_set = made_up()
    for lacking in (range(3), range(COUNT)):
        scans = [scan._replace(age=float("nan")) if i in lacking else scan for i, scan in enumerate(scan_set.scans)]
        text = page(scan_set._replace(scans=tuple(scans)))
        assert f"{len(lacking)} of 12 scans have no age." in text and "nan" not in text.replace("finance", "")


def test_unknown_sexes_and_sites_are_said(page):
    text = page(made_up(sexes=("n/a",), sites=("n/a",)))
    assert "The table gives no sexes." in text and "names no sites or scanners" in text


def test_registered_scans_name_the_licence(page):
    assert "McGill University" in page(made_up(align="register"))
    assert "McGill University" not in page(made_up())


def test_names_from_tables_are_escaped_and_the_page_loads_nothing(page):
    text = page(made_up(sites=("<b>x", "y"), dropped=[Drop("<i>", "<u>", "<s>")]))
    assert not re.search("<(b>x|i>|u>|s>)", text.replace("<b>12", "")) and not re.search("(src|href)=.http", text)


def test_the_doubtful_stand_first_in_the_contact_sheet_and_titles_do_not_overlap():
    scan_set = made_up(warned=(7,))
    long = tuple(scan._replace(participant=f"sub-NDARINVLONGNAME{i:02d}") for i, scan in enumerate(scan_set.scans))
    figure = cohort_page.cohort_sheet(scan_set._replace(scans=long), find_doubts(scan_set.quality))
    titles = [ax.title for ax in figure.axes if ax.get_title()]
    assert len(titles) == plots_scans.MAX_SCANS
    assert titles[0].get_text().replace("\n", "") == "sub-NDARINVLONGNAME0757 y"
    FigureCanvasAgg(figure).draw()
    boxes = [title.get_window_extent() for title in titles]
    assert all(left.x1 <= right.x0 for left, right in zip(boxes, boxes[1:]))
    assert {title.get_color() for title in titles[1:]} == {"black"} != {titles[0].get_color()}


def test_figures_of_odd_cohorts_are_drawn():
    one = plots_cohort.ages_by_site_and_sex([50.0], ["n/a"], ["a"])
    many = plots_cohort.ages_by_site_and_sex(np.linspace(20, 80, 40), ["F"] * 40, [f"site {i}" for i in range(40)])
    missing = plots_cohort.quality_figures({"overlap": [0.9, 0.8], "rotation": [np.nan] * 2}, [1], ["a", "b"])
    for figure in (one, many, missing):
        FigureCanvasAgg(figure).draw()
    assert len(missing.axes) == 1 and len(many.axes[1].get_yticks()) == plots_cohort.MAX_SITES


def test_registered_scans_are_drawn_under_the_outline():
    volumes = np.random.default_rng(0).uniform(size=(10, 9, 11, 9))
    figure = plots_scans.registration_sheet(volumes, np.ones((9, 11, 9)) * 0.6, [f"scan {i}" for i in range(10)])
    assert len(figure.axes) == 54 and sum(bool(ax.images) for ax in figure.axes) == 30

"""The page about the scans before training: everything that a person should see is in it."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.labels import Label, targets_of
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
        scans.append(Scan(Path(f"{i}.nii"), f"sub-{i:02d}", "", 50.0 + i, sexes[i % len(sexes)], sites[i % len(sites)]))
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
    assert "The table gives no sexes." in text
    assert "Nothing names the sites." in text and "Nothing names the scanners." in text


def test_registered_scans_name_the_licence(page):
    assert "McGill University" in page(made_up(align="register"))
    assert "McGill University" not in page(made_up())


def test_names_from_tables_are_escaped_and_the_page_loads_nothing(page):
    text = page(made_up(sites=("<b>x", "y"), dropped=[Drop("<i>", "<u>", "<s>")]))
    assert not re.search("<(b>x|i>|u>|s>)", text.replace("<b>12", "")) and not re.search("(src|href)=.http", text)


def test_the_doubtful_stand_first_in_the_contact_sheet_and_titles_do_not_overlap():
    scan_set = made_up(warned=(7,))
    long = tuple(scan._replace(participant=f"sub-NDARINVLONGNAME{i:02d}") for i, scan in enumerate(scan_set.scans))
    figure = next(cohort_page.cohort_sheets(scan_set._replace(scans=long), find_doubts(scan_set.quality)))
    titles = [ax.title for ax in figure.axes if ax.get_title()]
    assert len(titles) == plots_scans.MAX_SCANS
    assert titles[0].get_text().replace("\n", "") == "sub-NDARINVLONGNAME0757 y"
    FigureCanvasAgg(figure).draw()
    boxes = [title.get_window_extent() for title in titles]
    assert all(left.x1 <= right.x0 for left, right in zip(boxes, boxes[1:]))
    assert {title.get_color() for title in titles[1:]} == {"black"} != {titles[0].get_color()}


def test_further_scans_stand_in_further_sheets_and_those_left_are_counted(monkeypatch):
    scan_set = made_up(warned=(7, 9))
    doubts = find_doubts(scan_set.quality)
    sheets = list(cohort_page.cohort_sheets(scan_set, doubts))
    titles = [ax.get_title().split("\n")[0] for sheet in sheets for ax in sheet.axes if ax.get_title()]
    assert len(sheets) == 2 and titles[:3] == ["sub-07", "sub-09", "sub-00"] and len(set(titles)) == COUNT
    monkeypatch.setattr(plots_scans, "contact_sheet", lambda volumes, *_: len(volumes))
    text_of = lambda: cohort_page.pictures_section(scan_set, doubts).parts[0].text
    assert (
        text_of() == "Slices of 12 scans as the network sees them. Those to look at stand first and are titled in red."
    )
    monkeypatch.setattr(cohort_page, "MOST_DRAWN", 1)
    assert text_of().endswith("11 more are not drawn, 1 of which are to be looked at.")


def test_scanners_are_shown_where_they_are_known(page):
    scan_set = made_up(sites=("n/a",))
    told = [{"scanner_manufacturer": "Siemens", "scanner_model": "Trio", "field_strength": "3.0"}, {"other": "x"}]
    scans = tuple(scan._replace(columns=told[i % 2]) for i, scan in enumerate(scan_set.scans))
    assert rows(page(scan_set._replace(scans=scans)), "Sites and scanners")[:2] == [
        ["Siemens Trio, 3 T", "6", "6", "55.0 ± 3.4", "50.0 to 60.0", "6 / 0"],
        ["n/a", "6", "6", "56.0 ± 3.4", "51.0 to 61.0", "0 / 6"],
    ]


def test_the_data_s_own_test_sets_are_shown_each_and_the_note_is_true(page):
    scan_set = made_up()
    assert "The seed and the people&#39;s names decide" in page(scan_set)
    names = {9: "external", 10: "internal", 11: "internal"}
    own = scan_set._replace(
        scans=tuple(scan._replace(test_set=names.get(i, "")) for i, scan in enumerate(scan_set.scans))
    )
    sharing = shared(own)
    for i, row in enumerate(sharing.federation.people):
        row["test_set"] = names.get(i, "")
    text = page(own, sharing)
    assert "own split says who is in the test set" in text and "The seed and" not in text
    table = [row[:2] + row[4:5] for row in rows(text, "Clients under")]
    assert table[2:] == [
        ["test set", "3", "60.0 ± 0.8"],
        ["test set, external", "1", "59.0 ± 0.0"],
        ["test set, internal", "2", "60.5 ± 0.5"],
    ]


def labelled(classified):
    """Two classes, or a volume; the last client is all of one class."""
    scan_set = made_up()
    texts = [("AD" if i < 3 else "CN", str(1500 + i)) for i in range(COUNT)]
    scans = [scan._replace(columns=dict(zip(("dx", "tiv"), told))) for scan, told in zip(scan_set.scans, texts)]
    label = Label("dx", True) if classified else Label("tiv")
    scan_set, sharing = scan_set._replace(scans=tuple(scans)), shared(scan_set)._replace(label=label)
    targets = targets_of(scan_set.scans, label, ("AD", "CN"))
    classes = dict(classes=2, class_names=("AD", "CN")) if classified else {}
    return scan_set, sharing._replace(federation=sharing.federation._replace(targets=targets, **classes))


def test_classes_are_counted_in_the_page_and_in_the_console(page):
    scan_set, sharing = labelled(classified=True)
    expected = [
        ("all", "12", "AD: 3 (25%), CN: 9 (75%)"),
        ("client 1", "5", "AD: 3 (60%), CN: 2 (40%)"),
        ("client 2", "4", "CN: 4 (100%)"),
        ("test set", "3", "CN: 3 (100%)"),
    ]
    assert [tuple(row) for row in rows(page(scan_set, sharing), "Classes of dx")] == expected
    lines = cohort_page.describe_classes(scan_set, sharing)
    assert lines == ["classes   of dx", *(f"  {name:<12} {text}" for name, _, text in expected)]
    undivided = sharing._replace(federation=None, problem="no test set")
    assert [tuple(row) for row in rows(page(scan_set, undivided), "Classes of dx")] == expected[:1]
    assert cohort_page.describe_classes(made_up(), shared(made_up())) == []


def test_another_number_is_shown_beside_the_ages(page):
    found = rows(page(*labelled(classified=False)), "Values of tiv")
    assert found[0] == ["all", "12", "1506 ± 3.45", "1500 to 1511"]
    assert [row[:2] for row in found[1:]] == [["client 1", "5"], ["client 2", "4"], ["test set", "3"]]


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

"""One page about people and scans before training: who is in it, who would hold whom, what looks wrong."""

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.files import write_whole
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.nifti import REGISTER
from fedsparse_jax.data.scan_cache import ALIGNMENTS, ScanSet, describe_source
from fedsparse_jax.data.scan_quality import FIGURES, Doubt, find_doubts, rows_to_show
from fedsparse_jax.data.templates import LICENCE
from fedsparse_jax.reporting import plots_cohort, plots_people, plots_scans
from fedsparse_jax.reporting.html import Fold, Section, Table, Text, cell, render_page

COHORT_PAGE = "cohort.html"
MAX_ROWS = 200  # of a table


class Sharing(NamedTuple):
    """How the people would be divided, or why it cannot be."""

    name: str  # of the partition
    federation: Federation | None
    problem: str = ""


def write_cohort_page(path: Path, scan_set: ScanSet, sharing: Sharing) -> None:
    """Writes the page, which loads nothing from anywhere."""
    doubts = find_doubts(scan_set.quality)
    sections = [
        people_section(scan_set),
        sharing_section(scan_set, sharing),
        sites_section(scan_set),
        quality_section(scan_set, doubts),
        pictures_section(scan_set, doubts),
        dropped_section(scan_set),
    ]
    write_whole(path, render_page("The scans before training", cohort_tiles(scan_set, doubts), sections))


def cohort_tiles(scan_set: ScanSet, doubts: Sequence[Doubt]) -> list[tuple[str, str, str]]:
    """The headline numbers: ``(label, value, remark)``."""
    scans, ages = scan_set.scans, _known(_ages(scan_set))
    people = len({scan.participant for scan in scans})
    return [
        ("scans", f"{len(scans):,}", f"of {people:,} people"),
        ("age", *_age_texts(ages)),
        ("to look at", f"{len(doubts):,}", "scans with a warning, or unlike the others"),
        ("left out", f"{len(scan_set.dropped):,}", "each with its reason below"),
    ]


def people_section(scan_set: ScanSet) -> Section:
    """Ages by site and sex."""
    sexes, sites = [scan.sex for scan in scan_set.scans], [scan.site for scan in scan_set.scans]
    parts = [] if set(sexes) - {"n/a"} else [Text("The table gives no sexes.", "note")]
    there = np.isfinite(_ages(scan_set))
    if not there.all():
        parts.append(Text(f"{(~there).sum()} of {len(there)} scans have no age.", "warning"))
    if not there.any():
        return Section("Ages", parts)
    known = [np.asarray(values)[there] for values in (_ages(scan_set), sexes, sites)]
    figure = plots_cohort.ages_by_site_and_sex(*known)
    return Section("Ages", parts, {"ages": (figure, "Ages of all scans by sex, and of each site.")})


def sharing_section(scan_set: ScanSet, sharing: Sharing) -> Section:
    """Who would hold whom under the config's partition."""
    title = f"Clients under partition {sharing.name}"
    if not (data := sharing.federation):
        return Section(title, [Text(f"These people cannot be divided so: {sharing.problem}", "warning")])
    groups = [(f"client {i + 1}", rows) for i, rows in enumerate(data.members)]
    groups += [(f"client {i + 1}, validation", rows) for i, rows in enumerate(data.validation)]
    groups.append(("test set", data.test))
    table = Table(
        ("", "scans", "share", "people", "age, mean ± SD", "youngest to oldest", "F / M", "sites"),
        [_share_row(scan_set, name, rows) for name, rows in groups],
    )
    ages = _ages(scan_set)
    owners = [(f"L{i + 1}", _known(ages[rows])) for i, rows in enumerate(data.members)]
    note = "The seed and the people's names decide who is in the test set; see partition and data.test_share."
    caption = "Scans and ages of each client and of the test set."
    if not any(len(of_client) for _, of_client in owners):
        return Section(title, [table, Text(note, "note")])
    figure = plots_people.federation_overview(owners, _known(ages[data.test]))
    return Section(title, [table, Text(note, "note")], {"clients": (figure, caption)})


def _share_row(scan_set: ScanSet, name: str, rows: np.ndarray) -> list[str]:
    """A client, or the test set."""
    scans, ages = [scan_set.scans[i] for i in rows], _ages(scan_set)[rows]
    share = f"{len(rows) / len(scan_set.scans):.1%}"
    return [name, str(len(rows)), share, *_statistics(scans, ages), _several({scan.site for scan in scans})]


def _statistics(scans, ages: np.ndarray) -> list[str]:
    """People, ages and sexes."""
    sexes = collections.Counter(scan.sex for scan in scans)
    known = _known(ages)
    mean = f"{known.mean():.1f} ± {known.std():.1f}" if known.size else "–"
    ends = f"{known.min():.1f} to {known.max():.1f}" if known.size else "–"
    return [str(len({scan.participant for scan in scans})), mean, ends, f"{sexes['F']} / {sexes['M']}"]


def _several(names: set[str], most: int = 4) -> str:
    shown = ", ".join(sorted(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def sites_section(scan_set: ScanSet) -> Section:
    """Scanners and sites, and what the files are like."""
    sites = collections.Counter(scan.site for scan in scan_set.scans)
    rows = []
    for name, count in sites.most_common(MAX_ROWS):
        scans = [scan for scan in scan_set.scans if scan.site == name]
        rows.append([name, str(count), *_statistics(scans, np.array([scan.age for scan in scans]))])
    known = [] if set(sites) - {"n/a"} else [Text("The table names no sites or scanners.", "note")]
    files = collections.Counter(describe_source(quality) for quality in scan_set.quality)
    grids = [[name, str(count)] for name, count in files.most_common(MAX_ROWS)]
    parts = [
        *known,
        Table(("site", "scans", "people", "age, mean ± SD", "youngest to oldest", "F / M"), rows),
        Fold("Grids of the files", [Table(("voxels", "scans"), grids)]),
    ]
    return Section("Sites and scanners", parts)


def quality_section(scan_set: ScanSet, doubts: Sequence[Doubt]) -> Section:
    """The quality figures, and the scans to look at."""
    names = [scan.participant for scan in scan_set.scans]
    figures = {name: [getattr(quality, name) for quality in scan_set.quality] for name in (*FIGURES, "scale")}
    rows = [
        [_name(scan_set, doubt.row), *(cell(figures[name][doubt.row]) for name in FIGURES), "; ".join(doubt.reasons)]
        for doubt in doubts[:MAX_ROWS]
    ]
    shape = " × ".join(map(str, scan_set.volumes.shape[1:]))
    parts: list = [Text(f"Alignment {ALIGNMENTS[scan_set.align]}. Grid {shape} over the MNI box.")]
    parts += [Text(note, "note") for note in scan_set.notes]
    if scan_set.align == REGISTER:
        parts.append(Fold("Licence of the template", [Text(LICENCE)]))
    if doubts:
        parts.append(Table(("scan to look at", *FIGURES, "why"), rows))
    else:
        parts.append(Text("No scan has a warning, and none is unlike the others."))
    parts += [Text(f"{len(doubts) - MAX_ROWS} more stand in accepted.tsv.", "note")] if len(doubts) > MAX_ROWS else []
    parts.append(Text("A brain whose left and right are exchanged cannot be told from its picture.", "note"))
    drawn = plots_cohort.quality_figures(figures, [doubt.row for doubt in doubts], names)
    return Section("Quality", parts, {"quality": (drawn, "Each scan's figures; red: to look at.")})


def pictures_section(scan_set: ScanSet, doubts: Sequence[Doubt]) -> Section:
    """Slices, the doubtful first."""
    figure = cohort_sheet(scan_set, doubts)
    text = f"Slices of {min(len(scan_set.scans), plots_scans.MAX_SCANS)} scans as the network sees them."
    text += " Those to look at stand first and are titled in red." if doubts else ""
    return Section("Scans", [Text(text)], {"scans": (figure, "Axial, coronal and sagittal slices.")})


def cohort_sheet(scan_set: ScanSet, doubts: Sequence[Doubt]):
    """The contact sheet of a cohort: the doubtful first, then others from the whole list."""
    rows = rows_to_show(doubts, len(scan_set.scans), plots_scans.MAX_SCANS)
    ages = [scan_set.scans[row].age for row in rows]
    titles = [
        f"{_name(scan_set, row)}" + (f"\n{age:.0f} y" if np.isfinite(age) else "")
        for row, age in zip(rows, ages, strict=True)
    ]
    return plots_scans.contact_sheet(scan_set.volumes[rows], titles, min(len(doubts), len(rows)))


def dropped_section(scan_set: ScanSet) -> Section:
    """What was left out, and why."""
    if not scan_set.dropped:
        return Section("Left out", [Text("Nothing was left out.")])
    counts = collections.Counter(drop.reason for drop in scan_set.dropped)
    rows = [[drop.what, drop.reason, drop.detail] for drop in scan_set.dropped[:MAX_ROWS]]
    parts = [
        Table(("reason", "how many"), [[reason, str(count)] for reason, count in counts.most_common()]),
        Fold(f"The first {len(rows)}; all stand in dropped.tsv", [Table(("what", "reason", "remedy or detail"), rows)]),
    ]
    return Section("Left out", parts)


def _ages(scan_set: ScanSet) -> np.ndarray:
    return np.array([scan.age for scan in scan_set.scans], float)


def _known(ages: np.ndarray) -> np.ndarray:
    return ages[np.isfinite(ages)]


def _age_texts(ages: np.ndarray) -> tuple[str, str]:
    if not ages.size:
        return "–", "no table gives ages"
    return f"{ages.mean():.1f} y", f"SD {ages.std():.1f}, {ages.min():.1f} to {ages.max():.1f}"


def _name(scan_set: ScanSet, row: int) -> str:
    scan = scan_set.scans[row]
    return " ".join(filter(None, (scan.participant, scan.session)))

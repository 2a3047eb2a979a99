"""One page about people and scans before training: who is in it, who would hold whom, what looks wrong."""

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from fedsparse_jax.core.files import write_whole
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.labels import Label, targets_of, text_of
from fedsparse_jax.data.nifti import REGISTER
from fedsparse_jax.data.scan_cache import ALIGNMENTS, ScanSet, describe_source
from fedsparse_jax.data.scan_quality import FIGURES, Doubt, find_doubts, rows_to_show
from fedsparse_jax.data.scanners import scanner_of
from fedsparse_jax.data.tables import Scan
from fedsparse_jax.data.templates import LICENCE
from fedsparse_jax.reporting import plots_classes, plots_cohort, plots_people, plots_scans
from fedsparse_jax.reporting.html import Fold, Section, Table, Text, cell, render_page

COHORT_PAGE = "cohort.html"
MAX_ROWS = 200  # of a table
MOST_DRAWN = 48  # scans of which slices are drawn
PEOPLE_HEAD = ("people", "age, mean ± SD", "youngest to oldest", "F / M")


class Sharing(NamedTuple):
    """How the people would be divided, or why it cannot be."""

    name: str  # of the partition
    federation: Federation | None
    problem: str = ""
    label: Label = Label()  # what is predicted

    @property
    def groups(self) -> list[tuple[str, np.ndarray]]:
        """Clients, their validation, the test set, and each of several test sets, by name with their scans."""
        if not (data := self.federation):
            return []
        groups = [(f"client {i + 1}", rows) for i, rows in enumerate(data.members)]
        groups += [(f"client {i + 1}, validation", rows) for i, rows in enumerate(data.validation)]
        groups.append(("test set", data.test))
        return groups + [(f"test set, {name}", data.test[places]) for name, places in data.test_sets.items()]


def write_cohort_page(path: Path, scan_set: ScanSet, sharing: Sharing) -> None:
    """Writes the page, which loads nothing from anywhere."""
    doubts = find_doubts(scan_set.quality)
    sections = [
        people_section(scan_set),
        sharing_section(scan_set, sharing),
        *([] if sharing.label.is_age else [label_section(scan_set, sharing)]),
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
    table = Table(
        ("", "scans", "share", *PEOPLE_HEAD, "sites"),
        [_share_row(scan_set, name, rows) for name, rows in sharing.groups],
    )
    ages = _ages(scan_set)
    owners = [(f"L{i + 1}", _known(ages[rows])) for i, rows in enumerate(data.members)]
    note = "The seed and the people's names decide who is in the test set; see partition and data.test_share."
    if any(scan_set.scans[row].test_set for row in data.test):
        note = "The data's own split says who is in the test set; data.test_share is not used."
    caption = "Scans and ages of each client and of the test set."
    if not any(len(of_client) for _, of_client in owners):
        return Section(title, [table, Text(note, "note")])
    figure = plots_people.federation_overview(owners, _known(ages[data.test]))
    return Section(title, [table, Text(note, "note")], {"clients": (figure, caption)})


def label_section(scan_set: ScanSet, sharing: Sharing) -> Section:
    """What is predicted, where it is not the age: the counts of its classes, or its numbers, in each group."""
    column, data = sharing.label.column, sharing.federation
    if sharing.label.classified:
        counted = count_classes(scan_set, sharing)
        rows = [[name, str(sum(counts.values())), share_texts(counts)] for name, counts in counted]
        table = Table(("", "scans", "classes"), rows)
        if not (data and data.classes):
            return Section(f"Classes of {column}", [table])
        owners = [(f"L{i + 1}", data.targets[rows]) for i, rows in enumerate(data.members)]
        names = data.class_names or [str(number) for number in range(data.classes)]
        figure = plots_classes.class_overview(owners, data.targets[data.test], names)
        return Section(f"Classes of {column}", [table], {"classes": (figure, "Scans of each class.")})
    rows = [[name, *_numbers(data.targets[group])] for name, group in sharing.groups] if data else []
    everybody = _numbers(targets_of(scan_set.scans, sharing.label))
    head = ("", "scans", "mean ± SD", "smallest to largest")
    return Section(f"Values of {column}", [Table(head, [["all", *everybody], *rows])])


def count_classes(scan_set: ScanSet, sharing: Sharing) -> list[tuple[str, collections.Counter]]:
    """How many scans of each class there are in all, and in each group; empty where the label has no classes."""
    if not sharing.label.classified:
        return []
    texts = [text_of(scan, sharing.label.column) for scan in scan_set.scans]
    groups = [("all", np.arange(len(texts))), *sharing.groups]
    return [(name, collections.Counter(texts[row] for row in rows)) for name, rows in groups]


def describe_classes(scan_set: ScanSet, sharing: Sharing) -> list[str]:
    """The same as lines of text."""
    counted = count_classes(scan_set, sharing)
    head = [f"classes   of {sharing.label.column}"] if counted else []
    return head + [f"  {name:<12} {share_texts(counts)}" for name, counts in counted]


def share_texts(counts: collections.Counter, most: int = 12) -> str:
    """Counts with their shares, the classes in order.

    >>> share_texts(collections.Counter({"AD": 1, "CN": 3}))
    'AD: 1 (25%), CN: 3 (75%)'
    """
    total = max(sum(counts.values()), 1)
    texts = [f"{name}: {count} ({count / total:.0%})" for name, count in sorted(counts.items())[:most]]
    return ", ".join(texts + ([f"and {len(counts) - most} more classes"] if len(counts) > most else []))


def _numbers(values: np.ndarray) -> list[str]:
    """How many there are, and where they lie."""
    if not len(values):
        return ["0", "–", "–"]
    return [str(len(values)), f"{values.mean():.4g} ± {values.std():.3g}", f"{values.min():.4g} to {values.max():.4g}"]


def _share_row(scan_set: ScanSet, name: str, rows: np.ndarray) -> list[str]:
    """A client, or the test set."""
    scans, ages = _take(scan_set, rows)
    share = f"{len(rows) / len(scan_set.scans):.1%}"
    return [name, str(len(rows)), share, *_statistics(scans, ages), _several({scan.site for scan in scans})]


def _take(scan_set: ScanSet, rows) -> tuple[list[Scan], np.ndarray]:
    """Some of the scans, and their ages."""
    scans = [scan_set.scans[row] for row in rows]
    return scans, np.array([scan.age for scan in scans], float)


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
    named = {"site": [scan.site for scan in scan_set.scans], "scanner": [scanner_of(scan) for scan in scan_set.scans]}
    parts: list = [_by_name(scan_set, kind, names) for kind, names in named.items()]
    files = collections.Counter(describe_source(quality) for quality in scan_set.quality)
    grids = [[name, str(count)] for name, count in files.most_common(MAX_ROWS)]
    parts.append(Fold("Grids of the files", [Table(("voxels", "scans"), grids)]))
    return Section("Sites and scanners", parts)


def _by_name(scan_set: ScanSet, kind: str, names: Sequence[str]) -> Table | Text:
    """The scans of each name, the most frequent first; a sentence where no scan has one."""
    if not set(names) - {"n/a"}:
        return Text(f"Nothing names the {kind}s.", "note")
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name, []).append(row)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))[:MAX_ROWS]
    rows = [[name, str(len(of)), *_statistics(*_take(scan_set, of))] for name, of in ordered]
    return Table((kind, "scans", *PEOPLE_HEAD), rows)


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
    drawn = min(len(scan_set.scans), MOST_DRAWN)
    text = f"Slices of {drawn} scans as the network sees them."
    text += " Those to look at stand first and are titled in red." if doubts else ""
    if left := len(scan_set.scans) - drawn:
        text += f" {left:,} more are not drawn, {max(len(doubts) - drawn, 0):,} of which are to be looked at."
    sheets = cohort_sheets(scan_set, doubts)
    caption = "Axial, coronal and sagittal slices."
    return Section("Scans", [Text(text)], {f"scans{place}": (sheet, caption) for place, sheet in enumerate(sheets)})


def cohort_sheets(scan_set: ScanSet, doubts: Sequence[Doubt], most: int = MOST_DRAWN) -> Iterator[Figure]:
    """The contact sheets of a cohort: the doubtful first, then others from the whole list, at most so many scans."""
    rows, step = rows_to_show(doubts, len(scan_set.scans), most), plots_scans.MAX_SCANS
    titles = [_title(scan_set, row) for row in rows]
    for start in range(0, len(rows), step):
        there = rows[start : start + step]
        doubtful = min(max(len(doubts) - start, 0), len(there))
        yield plots_scans.contact_sheet(scan_set.volumes[there], titles[start : start + step], doubtful)


def _title(scan_set: ScanSet, row: int) -> str:
    age = scan_set.scans[row].age
    return _name(scan_set, row) + (f"\n{age:.0f} y" if np.isfinite(age) else "")


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

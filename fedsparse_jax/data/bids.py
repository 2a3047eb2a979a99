"""From a BIDS folder to the list of its T1w scans with their ages; no image is read here."""

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.data.participants import NamedColumns, People, find_row, read_people
from fedsparse_jax.data.recorded_splits import with_splits
from fedsparse_jax.data.session_ages import SessionAge, SessionAges
from fedsparse_jax.data.table_files import IMAGES, expand_home, read_rows
from fedsparse_jax.data.tables import (
    Ages,
    Drop,
    Listing,
    OtherLayout,
    Scan,
    columns_of,
    find_person,
    finish_listing,
    require_column,
)

NOT_RAW = {"sourcedata", "derivatives", "code", "phenotype", "stimuli"}
NO_FOLDER = "there is no such folder"


def entities(name: str) -> dict[str, str]:
    """The ``key-value`` pairs of a BIDS file name, and its ``suffix``.

    >>> entities("sub-01_ses-a_run-2_T1w.nii.gz")
    {'sub': '01', 'ses': 'a', 'run': '2', 'suffix': 'T1w'}
    """
    stem = name.split(".")[0]
    *pairs, suffix = stem.split("_")
    return {**dict(pair.split("-", 1) for pair in pairs if "-" in pair), "suffix": suffix}


def read_bids(
    root: str | Path,
    *,
    space: str | None = None,
    desc: str | None = None,
    participants: str | None = None,
    splits: str | None = None,
    cap_89: bool = False,
    strict: bool = False,
    need_age: bool = True,
    id_col: str | None = None,
    age_col: str | None = None,
    sex_col: str | None = None,
    site_col: str | None = None,
    session_col: str | None = None,
    suffixes: str | Sequence[str] = "T1w",
) -> Listing:
    """The T1w scans of a BIDS folder, raw or of derivatives, with the ages of its tables.

    An age at a session (`session_ages`, or a row a session in ``participants.tsv``) wins over the one of the person,
    which is that of the first session; of several runs of a session the lowest is taken.

    Args:
        root: the folder with ``participants.tsv``; a folder of derivatives may have it in the raw folder above.
        space: only scans with this ``space-``.
        desc: only scans with this ``desc-``; None takes ``preproc`` where there is one.
        participants: a table of the people instead of ``participants.tsv``.
        splits: a column of it, or a table, that says who trains and who is tested; see `recorded_splits.with_splits`.
        cap_89: take the age ``89+`` for 89.
        strict: refuse the folder as soon as an age cannot be read.
        need_age: leave out a scan without an age; False where something else is predicted.
        id_col, age_col, sex_col, site_col, session_col: columns of ``participants.tsv``, if not found by their usual
            names; tables of sessions may have the one of the age, too.
        suffixes: of the images of a scan, which are its channels, such as ``("T1w", "FLAIR")`` or ``T1w,FLAIR``; with
            entities where the suffix does not suffice, such as ``label-GM_probseg``.

    Raises:
        UsageError: no folder, no participants, no ages, ages that differ, no scans, or nothing left.
    """
    root = Path(root)
    if not root.is_dir():
        rule = "it is a file; to read a table of scans set data.source to table" if root.is_file() else NO_FOLDER
        raise ArgumentError("root", str(root), rule)
    table = read_rows(expand_home(participants) if participants else _participants_file(root))
    named = NamedColumns(id_col, None, sex_col, site_col, session_col)
    table_of_ages = age_col and (participants or age_col.lower() in table.columns)
    people = read_people(table, named._replace(age=age_col if table_of_ages else None), cap_89)
    raw = table.path.parent if not participants else _raw_folder(root)
    at_sessions = SessionAges(list(dict.fromkeys((root, raw))), cap_89, age_col, people.sessions)
    ages_there = at_sessions.any(people.rows) or people.ages
    if (need_age and not ages_there) or (age_col and not table_of_ages and not at_sessions.age_col_is_there):
        require_column(table, "age", age_col)  # says what is missing
    first, *others = suffixes.split(",") if isinstance(suffixes, str) else suffixes
    images = list(_walk(root, first))
    files = _select(images, space, desc)
    if not files:
        wanted = "".join(f" with {k}-{v}" for k, v in (("space", space), ("desc", desc)) if v)
        rule = f"it holds no {first} scan{wanted} (sub-*/**/sub-*_{first}.nii.gz)"
        other = "" if wanted else "; scans of other names are read from a table of paths, with data.source=table"
        raise (ArgumentError if wanted else OtherLayout)("root", str(root), rule + other)
    baseline = _baselines(images)
    found = [
        Drop(str(path), "extra run or image")
        if extra
        else _scan(path, people, at_sessions, baseline[entities(path.name)["sub"]], need_age)
        for path, extra in files
    ]
    found = [_with_channels(one, others) if isinstance(one, Scan) else one for one in found]
    scans = [one for one in found if isinstance(one, Scan)]
    dropped = people.dropped + [one for one in found if isinstance(one, Drop)]
    seen = {find_person(people.rows, "sub-" + entities(path.name)["sub"]) for path, _ in files}
    dropped += [Drop(name, f"no {first} scan") for name in people.rows if name not in seen]
    if people.ages:
        _refuse_other_ages(people, people.ages, at_sessions, baseline, table.path)
    notes = people.notes + (people.ages.notes(table.path) if people.ages else []) + _mixed_spaces(scans)
    notes += _late_baselines({sub: label for sub, label in baseline.items() if not at_sessions.of(f"sub-{sub}")})
    scans = with_splits(splits, table, require_column(table, "id", id_col), scans, dropped, notes)
    return finish_listing(root, scans, dropped, notes, strict)


def scans_of_nobody(
    root: Path, space: str | None = None, desc: str | None = None, suffixes: str | Sequence[str] = "T1w"
) -> Listing:
    """The scans of a BIDS folder that has no table of people, without their ages; arguments as those of `read_bids`."""
    first, *others = suffixes.split(",") if isinstance(suffixes, str) else suffixes
    files = _select(_walk(root, first), space or None, desc or None)
    session = lambda of: f"ses-{of['ses']}" if "ses" in of else ""
    unknown = float("nan"), "n/a", "n/a"  # age, sex and site
    found = [
        Drop(str(path), "extra run or image")
        if extra
        else _with_channels(Scan(path, f"sub-{of['sub']}", session(of), *unknown, _mask(path)), others)
        for path, of, extra in ((path, entities(path.name), extra) for path, extra in files)
    ]
    scans = tuple(one for one in found if isinstance(one, Scan))
    return Listing(scans, tuple(one for one in found if isinstance(one, Drop)))


def _participants_file(root: Path) -> Path:
    """``participants.tsv`` of a folder, or of the raw one above a folder of derivatives."""
    for folder in (root, _raw_folder(root)):
        if (folder / "participants.tsv").is_file():
            return folder / "participants.tsv"
    remedy = "add one with the columns participant_id and age, or set it to another table"
    raise OtherLayout("participants", None, f"{root} has no participants.tsv; {remedy}")


def _raw_folder(root: Path) -> Path:
    """The folder of the raw data where ``root`` is one of derivatives, else ``root``."""
    above = Path(os.path.abspath(root)).parent
    return above.parent if above.name == "derivatives" else root


def _walk(root: Path, suffix: str = "T1w") -> Iterator[Path]:
    """All images of a suffix below ``sub-*`` folders, links followed; ignored and foreign folders are not entered."""
    ignored = _ignore_patterns(root)
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not (here == root and f in NOT_RAW))
        folders[:] = [f for f in folders if not _leads_back(here, here / f)]
        for name in sorted(files):
            path = here / name
            relative = path.relative_to(root).as_posix()
            if has_suffix(name, suffix) and not any(fnmatch.fnmatch(relative, pattern) for pattern in ignored):
                yield path


def _leads_back(here: Path, folder: Path) -> bool:
    """Whether a folder is a link to one that holds it, whose images have been found without it."""
    return folder.is_symlink() and Path(os.path.realpath(here)).is_relative_to(os.path.realpath(folder))


def _ignore_patterns(root: Path) -> list[str]:
    file = root / ".bidsignore"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    patterns = [line.strip().lstrip("/") for line in lines if line.strip() and not line.startswith("#")]
    return [p + "*" if p.endswith("/") else p for p in patterns] + [f"*/{p}" for p in patterns]


def has_suffix(name: str, suffix: str) -> bool:
    """Whether a file name is that of an image of a suffix; of an ``.hdr``/``.img`` pair only the header counts.

    >>> has_suffix("sub-01_T1w.NII.GZ", "T1w"), has_suffix("sub-01_T1w.img", "T1w"), has_suffix("T1w.nii", "T1w")
    (True, False, False)
    >>> has_suffix("sub-01_label-GM_probseg.nii.gz", "label-GM_probseg"), has_suffix("sub-01_T1w.json", "T1w")
    (True, False)
    """
    lower = name.lower()
    image = lower.endswith(IMAGES) and not lower.endswith(".img")
    of, wanted = entities(name), entities(suffix)
    return name.startswith("sub-") and image and all(of.get(key) == value for key, value in wanted.items())


def _with_channels(scan: Scan, suffixes: Iterable[str]) -> Scan | Drop:
    """A scan with the further images of its head: for each suffix the one whose name is most like that of the scan."""
    of, channels = entities(scan.path.name), []
    for suffix in suffixes:
        like = lambda path: -sum(entities(path.name).get(key) == value for key, value in of.items())
        head = [path for path in sorted(scan.path.parent.iterdir()) if has_suffix(path.name, suffix)]
        fitting = [p for p in head if all(entities(p.name).get(key) == of.get(key) for key in ("sub", "ses", "space"))]
        if not fitting:
            return Drop(str(scan.path), f"no {suffix} image beside it")
        channels.append(min(fitting, key=like))
    return scan._replace(channels=tuple(channels))


def _select(paths: Iterable[Path], space: str | None, desc: str | None) -> list[tuple[Path, bool]]:
    """Scans that fit the filters, each with whether it is one too many for its session."""
    fitting = []
    for path in paths:
        of = entities(path.name)
        if (space is None or of.get("space") == space) and (desc is None or of.get("desc") == desc):
            fitting.append((of["sub"], of.get("ses", ""), _preference(of), path))
    fitting.sort(key=lambda item: item[:3] + (str(item[3]),))
    result, last = [], None
    for sub, ses, _, path in fitting:
        result.append((path, (sub, ses) == last))
        last = (sub, ses)
    return result


def _preference(of: dict[str, str]) -> tuple:
    """Sorts the scans of a session: preprocessed before not, template space before native, then the lowest run."""
    run = of.get("run", "0")
    return (of.get("desc") != "preproc", "space" not in of, int(run) if run.isdigit() else 0)


def first_session(labels: Iterable[str]) -> str | None:
    """The first of some session labels as people order them; None where their order cannot be told.

    Whole numbers, dates written as numbers, and numbers behind one common prefix have an order.

    >>> first_session(["10", "9"]), first_session(["M12", "M06"]), first_session(["pre", "post"])
    ('9', 'M06', None)
    """
    labels = sorted(set(labels))
    if len(labels) == 1:
        return labels[0]
    parts = [re.fullmatch(r"(\D*)(\d+)", label) for label in labels]
    if not all(parts) or len({part[1].lower() for part in parts if part}) > 1:
        return None
    return min(labels, key=lambda label: int(re.sub(r"\D", "", label)))


def _baselines(images: Iterable[Path]) -> dict[str, str | None]:
    """For each ``sub`` label the session of the age in ``participants.tsv``, of all images whether read or not."""
    sessions: dict[str, set[str]] = {}
    for path in images:
        of = entities(path.name)
        sessions.setdefault(of["sub"], set()).add(of.get("ses", ""))
    return {sub: first_session(labels) for sub, labels in sessions.items()}


def _refuse_other_ages(people: People, ages: Ages, at_sessions: SessionAges, baseline, table: Path) -> None:
    """Refuses people whose age in ``participants.tsv`` is another one in a table of sessions."""
    for sub in baseline:
        row = find_row(people, f"sub-{sub}")
        age = ages(row) if row else "no such person"
        if row and not row["_session"] and not isinstance(age, str):
            sessions = {one.session for one in at_sessions.of(f"sub-{sub}")} | {baseline[sub] or ""}
            told = SessionAge("", age, row[ages.column], table)
            at_sessions.refuse_other(f"sub-{sub}", first_session(sessions), told)


def _late_baselines(baseline: dict[str, str | None]) -> list[str]:
    """A note of people whose first session is a later one of others, so that the table's age may not be theirs."""
    firsts = {label for label in baseline.values() if label}
    lowest = first_session(firsts) if firsts else None
    late = sum(label not in (lowest, None, "") for label in baseline.values())
    if lowest is None or not late:
        return []
    return [f"people without a scan of ses-{lowest}, {late} in number: the table's age was taken for their first scan"]


def _scan(path: Path, people: People, at_sessions: SessionAges, baseline: str | None, need_age: bool) -> Scan | Drop:
    """One file with its age."""
    of = entities(path.name)
    participant, session = f"sub-{of['sub']}", f"ses-{of['ses']}" if "ses" in of else ""
    row = find_row(people, participant)
    if row is None:
        return Drop(str(path), "no row in participants.tsv", participant)
    told = _age_at(participant, of.get("ses", ""), people, at_sessions, baseline)
    if isinstance(told.age, str) and need_age:
        return Drop(str(path), told.age, told.written)
    age = float("nan") if isinstance(told.age, str) else told.age
    return Scan(path, row["_id"], session, age, row["_sex"], row["_site"], _mask(path), columns=columns_of(row))


def _age_at(participant: str, label: str, people: People, at_sessions: SessionAges, baseline: str | None) -> SessionAge:
    """The age at a session; that of ``participants.tsv`` is the one of the first session alone."""
    told = at_sessions(participant, label) if label else None
    if told is not None and told.age != "age is missing":
        return told
    if baseline is None:
        return SessionAge(label, "age at which session is unknown", participant, Path())
    if label != baseline:
        return SessionAge(label, "age at a later session is unknown", participant, Path())
    name = find_person(people.rows, participant)
    return people.age_at(name or participant, f"ses-{label}" if label else "")


def _mixed_spaces(scans: list[Scan]) -> list[str]:
    spaces = sorted({entities(scan.path.name).get("space", "native") for scan in scans})
    return (
        [f"scans are in different spaces ({', '.join(spaces)}): choose one by data.options.space"]
        if len(spaces) > 1
        else []
    )


def _mask(path: Path) -> Path | None:
    """``..._desc-brain_mask`` beside ``..._desc-preproc_T1w``, if it is there."""
    if "_desc-preproc_T1w" not in path.name:
        return None
    mask = path.with_name(path.name.replace("_desc-preproc_T1w", "_desc-brain_mask"))
    return mask if mask.is_file() or mask.is_symlink() else None  # a broken link is refused when it is read

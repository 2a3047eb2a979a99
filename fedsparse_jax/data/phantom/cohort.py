"""A cohort of synthetic ageing brains, written once as a folder of NIfTI files that any BIDS reader accepts.

The anatomy and the scanner are in `anatomy`; here people get an age, a sex and a site, and their scans become
files. What the generator knows and a study would not (the true brain-age gap, volumes) is apart from
participants.tsv, in ``phenotype/latents.tsv``, so that nobody trains on it by accident.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import nibabel as nib
import numpy as np

import fedsparse_jax
from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.files import forget_partial, write_json, write_tsv, write_whole
from fedsparse_jax.data.nifti import grid_affine
from fedsparse_jax.data.phantom.anatomy import Person, Site, draw_person, draw_sites, render_scan

RECIPE = 1  # raise it when the same options give other files, so that no old folder passes for a new one
SPACE = "MNI152NLin6Asym"
DESCRIPTION = "dataset_description.json"
UNFINISHED = ".phantom_unfinished.json"
LATENTS = [name for name in Person._fields if name not in ("age", "sex", "seed")]
CONTROL, PATIENT = "control", "patient"
LATENT_UNITS = {"ml": "mL", "mm": "mm", "gap": "year"}


class CohortOptions(NamedTuple):
    """What decides a cohort, down to the bytes of its files; see `write_cohort`."""

    people: int
    shape: tuple[int, int, int]
    seed: int
    sites: int
    spread: float
    site_strength: float
    age_mean: float
    age_sd: float
    age_range: tuple[float, float]
    sessions: int
    years_between: float
    confound: float
    sex_strength: float = 1.0  # a default where the recipe did not have the option at first
    patients: float = 0.0


class Participant(NamedTuple):
    """One row of participants.tsv."""

    label: str  # "sub-0001"
    number: int  # from 0; with the seed it decides everything about the person
    age: float  # years at the first session, one decimal
    sex: str
    site: int
    patient: bool


class Visit(NamedTuple):
    """One scan, and the anatomy behind it."""

    participant: Participant
    session: str  # "ses-01", or "" where there is only one
    number: int  # from 0
    who: Person


def write_cohort(
    root: str | Path,
    *,
    people: int = 512,
    shape: tuple[int, int, int] = (48, 56, 48),
    seed: int = 0,
    sites: int = 8,
    spread: float = 1.0,
    site_strength: float = 1.0,
    age_mean: float = 62.7,
    age_sd: float = 7.9,
    age_range: tuple[float, float] = (44.0, 82.0),
    sessions: int = 1,
    years_between: float = 2.0,
    confound: float = 0.0,
    sex_strength: float = 1.0,
    patients: float = 0.0,
    progress: Callable[[Iterable, str, int], Iterable] = lambda items, description, total: items,
    workers: int = 1,
) -> Path:
    """Writes a cohort as BIDS derivatives, unless the folder holds it; an unfinished one is continued.

    The options alone decide the bytes of the files. Person ``i`` depends on the seed but not on ``people``,
    so that a larger cohort begins with the same people.

    Args:
        root: the folder: new, empty, or written by this function with the same options.
        people: number of participants.
        shape: voxels of a grid that fills the MNI box; 91x109x91 is 2 mm.
        seed: of everything random.
        sites: number of scanners.
        spread: factor on all differences between people of one age; below 1 the age is easier to read.
        site_strength: factor on the differences between scanners.
        age_mean: years; with the next two a truncated normal, by default as in UK Biobank's imaging study.
        age_sd: years, before the truncation.
        age_range: youngest and oldest at the first session.
        sessions: scans of each person, at the same site; more than 1 gives session folders and tables.
        years_between: time from one session to the next.
        confound: correlation of age and site, -1 to 1, between normal scores; 1 sorts the sites by age.
        sex_strength: factor on the difference between the sexes; 8 can be read well.
        patients: share of patients. Above 0 participants.tsv has a ``diagnosis`` (control, patient) and a ``memory``
            score, in points, that falls with the volume of the hippocampi.
        progress: progress, ``(items, description, total) -> items``.
        workers: threads that render and write; the files are the same for any number.

    Returns:
        ``root`` as a path.

    Raises:
        UsageError: an impossible option, or a folder that holds something else.
    """
    for name, values, numbers in (("shape", shape, 3), ("age_range", age_range, 2)):
        if len(values) != numbers:
            raise ArgumentError(name, values, f"give {numbers} numbers")
    options = CohortOptions(
        people, (shape[0], shape[1], shape[2]), seed, sites, spread, site_strength, age_mean, age_sd,
        (age_range[0], age_range[1]),
        sessions, years_between, confound, sex_strength, patients,
    )  # fmt: skip
    _check(options)
    root = Path(root)
    if not _begin(root, options):
        return root
    scanners = draw_sites(sites, seed, site_strength)
    visits = [visit for i in range(people) for visit in _visits(options, draw_participant(options, i))]
    _write_tables(root, options, visits)
    job = lambda visit: _write_scan(root, visit, options.shape, scanners[visit.participant.site])
    for _ in progress(_parallel(job, visits, workers), "writing phantom scans", len(visits)):
        pass
    _finish(root, options)
    return root


def _parallel(job: Callable, items: list, workers: int) -> Iterator:
    if workers <= 1:
        yield from map(job, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(job, items)
        finally:
            pool.shutdown(cancel_futures=True)


def _check(options: CohortOptions) -> None:
    """Refuses what cannot be drawn, before anything is written."""
    low, high = options.age_range
    normal = NormalDist(options.age_mean, options.age_sd) if options.age_sd > 0 else None
    rules = {
        "people": (options.people >= 1, "at least 1"),
        "shape": (all(int(n) == n >= 8 for n in options.shape), "three whole numbers of at least 8 voxels"),
        "seed": (options.seed >= 0, "0 or more"),
        "sites": (options.sites >= 1, "at least 1"),
        "sessions": (options.sessions >= 1, "at least 1"),
        "spread": (options.spread >= 0, "0 or more"),
        "site_strength": (options.site_strength >= 0, "0 or more"),
        "age_sd": (normal is not None, "more than 0 years"),
        "age_range": (
            low < high and (normal is None or normal.cdf(high) - normal.cdf(low) > 1e-6),
            "a youngest and an oldest age around age_mean",
        ),
        "confound": (-1 <= options.confound <= 1, "a correlation between -1 and 1"),
        "sex_strength": (options.sex_strength >= 0, "0 or more"),
        "patients": (0 <= options.patients <= 1, "a share from 0 to 1"),
    }
    for name, (sound, allowed) in rules.items():
        if not sound:
            raise ArgumentError(name, getattr(options, name), f"that makes no cohort; give {allowed}")


# --- who takes part -----------------------------------------------------------------------------


def draw_participant(options: CohortOptions, index: int) -> Participant:
    """Age (truncated normal, by inverting its distribution), sex and site of one person."""
    rng = np.random.default_rng([options.seed, 5, index])
    share = float(np.clip(rng.random(), 1e-9, 1 - 1e-9))  # of the population who are younger
    ages, normal = NormalDist(options.age_mean, options.age_sd), NormalDist()
    low, high = map(ages.cdf, options.age_range)
    age = float(np.clip(ages.inv_cdf(low + share * (high - low)), *options.age_range))
    score = options.confound * normal.inv_cdf(share)
    score += (1 - options.confound**2) ** 0.5 * float(rng.standard_normal())
    site = min(int(options.sites * normal.cdf(score)), options.sites - 1)
    sex = "F" if rng.random() < 0.5 else "M"
    patient = bool(rng.random() < options.patients)
    return Participant(f"sub-{index + 1:04d}", index, round(age, 1), sex, site, patient)


def _visits(options: CohortOptions, participant: Participant) -> Iterator[Visit]:
    """The same person at each session: the generator starts anew, so that only the age differs."""
    for number in range(options.sessions):
        rng = np.random.default_rng([options.seed, 9, participant.number])
        age = round(participant.age + number * options.years_between, 1)
        session = f"ses-{number + 1:02d}" if options.sessions > 1 else ""
        sex, patient, strength = participant.sex, participant.patient, options.sex_strength
        who = draw_person(age, rng, sex, options.spread, sex_strength=strength, patient=patient)
        yield Visit(participant, session, number, who)


def memory_score(visit: Visit, options: CohortOptions) -> float:
    """Points in a memory test, 50 for hippocampi of 3.5 ml; half of the spread is chance."""
    chance = np.random.default_rng([options.seed, 11, visit.participant.number]).standard_normal()
    return round(50 + 20 * (visit.who.hippo_ml - 3.5) + 4 * float(chance), 1)


# --- the folder ---------------------------------------------------------------------------------


def _stamp(options: CohortOptions) -> dict:
    """The options as JSON gives them back, with the version of the recipe; not those that it did not have at first."""
    defaults = CohortOptions._field_defaults
    decisive = {key: value for key, value in options._asdict().items() if value != defaults.get(key)}
    return json.loads(json.dumps({"recipe": RECIPE, **decisive}))


def _begin(root: Path, options: CohortOptions) -> bool:
    """Whether there is something to write; marks the folder as ours before the first file."""
    begun = (path for path in root.iterdir() if not path.name.endswith(".partial")) if root.is_dir() else ()
    if root.exists() and (not root.is_dir() or any(begun)):
        if _read_stamp(root / DESCRIPTION) == _stamp(options):
            return False
        if _read_stamp(root / UNFINISHED) != _stamp(options):
            rule = (
                "it holds something other than this phantom cohort; to read the scans that are there set data.source "
                "to bids, or to table for a table of paths; to write a phantom name another folder"
            )
            raise ArgumentError("root", str(root), rule)
        for folder in {path.parent for path in root.rglob("*.partial")}:
            forget_partial(folder)
        return True
    root.mkdir(parents=True, exist_ok=True)
    forget_partial(root)
    write_json(root / UNFINISHED, _description(options), indent=2)
    return True


def _read_stamp(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())["GeneratedBy"][0]["Options"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _description(options: CohortOptions) -> dict:
    return {
        "Name": "Ageing-brain phantom",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "License": "CC0",
        "GeneratedBy": [
            {
                "Name": "fedsparse_jax phantom",
                "Version": fedsparse_jax.__version__,
                "Description": "Synthetic brains, spatially normalised and skull-stripped.",
                "Options": _stamp(options),
            }
        ],
    }


def _finish(root: Path, options: CohortOptions) -> None:
    """The description comes last: a folder that has it is complete."""
    write_json(root / DESCRIPTION, _description(options), indent=2)
    (root / UNFINISHED).unlink(missing_ok=True)


def _write_tables(root: Path, options: CohortOptions, visits: list[Visit]) -> None:
    first = [visit for visit in visits if visit.number == 0]
    rows = [[p.label, p.age, p.sex, f"site{p.site + 1:02d}"] for p in (visit.participant for visit in first)]
    if options.patients:
        for row, visit in zip(rows, first, strict=True):
            row += [PATIENT if visit.participant.patient else CONTROL, memory_score(visit, options)]
    columns = COLUMNS | (CLINICAL if options.patients else {})
    write_tsv(root / "participants.tsv", ["participant_id", *columns], rows)
    write_json(root / "participants.json", columns, indent=2)
    latents = [[*_keys(visit), *(f"{getattr(visit.who, name):.5f}" for name in LATENTS)] for visit in visits]
    keys = ["participant_id", "session_id"] if options.sessions > 1 else ["participant_id"]
    write_tsv(root / "phenotype" / "latents.tsv", [*keys, *LATENTS], latents)
    write_json(root / "phenotype" / "latents.json", _latent_columns(), indent=2)
    write_whole(root / "README", README)
    for start in range(0, len(visits), options.sessions) if options.sessions > 1 else ():
        mine = visits[start : start + options.sessions]
        label = mine[0].participant.label
        table = [[visit.session, visit.who.age] for visit in mine]
        write_tsv(root / label / f"{label}_sessions.tsv", ["session_id", "age"], table)


def _keys(visit: Visit) -> list[str]:
    return [key for key in (visit.participant.label, visit.session) if key]


def _latent_columns() -> dict:
    units = {name: LATENT_UNITS.get(name.rsplit("_", 1)[-1]) for name in LATENTS}
    text = "Truth of the generator (`Person` of fedsparse_jax.data.phantom); not for training."
    return {name: {"Description": text} | ({"Units": unit} if unit else {}) for name, unit in units.items()}


def _write_scan(root: Path, visit: Visit, shape: tuple[int, int, int], site: Site) -> None:
    """Renders one visit into its file, unless the file is there."""
    folder = root.joinpath(*_keys(visit), "anat")
    path = folder / "_".join([*_keys(visit), f"space-{SPACE}", "desc-preproc", "T1w.nii.gz"])
    if not path.exists():
        volume = render_scan(visit.who, shape, site, visit.number)
        write_whole(path, gzip.compress(_nifti(volume), compresslevel=1, mtime=0))


def _nifti(volume: np.ndarray) -> bytes:
    """An int16 NIfTI file; no voxel of the brain becomes 0, so that background and brain stay apart."""
    values = np.clip(np.maximum(np.rint(volume), volume > 0), 0, 32767).astype(np.int16)
    image = nib.Nifti1Image(values, grid_affine(volume.shape))
    image.set_sform(image.affine, code="mni")
    image.set_qform(image.affine, code="mni")
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


COLUMNS = {
    "age": {"Description": "Age at the first scan", "Units": "year"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "site": {"Description": "Simulated hospital: one scanner"},
}

CLINICAL = {
    "diagnosis": {"Description": "Diagnosis", "Levels": {CONTROL: "healthy", PATIENT: "mild dementia"}},
    "memory": {"Description": "Memory test at the first scan", "Units": "points"},
}

README = """\
Ageing-brain phantom
====================

Synthetic T1-weighted brains whose shape and contrast change with age, written by fedsparse_jax. No person was
scanned. The options and the seed are in dataset_description.json; with them the same files can be made again.

participants.tsv holds age (years), sex and site. phenotype/latents.tsv holds what the generator knows and a
study would not, such as the true brain-age gap: use it to judge a model, never to train one.
"""

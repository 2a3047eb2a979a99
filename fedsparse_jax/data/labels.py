"""What is predicted of a scan: the age, another number, or a class, by the name of a column of the scans' tables."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import ArgumentError
from fedsparse_jax.core.tasks import AGE
from fedsparse_jax.data.tables import MISSING, Drop, Listing, NothingLeft, Scan, count_reasons

MOST_CLASSES = 50  # a column with more values is no column of classes
NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")


class Label(NamedTuple):
    """The column that is predicted."""

    column: str = AGE
    classified: bool = False
    classes: tuple[str, ...] = ()  # those that count, in order; empty for all that occur

    @property
    def is_age(self) -> bool:
        """Whether it is the age, which every scan then needs."""
        return self.column == AGE


def with_labels(listing: Listing, label: Label) -> Listing:
    """The scans that have a label; the others are dropped, before an image is read.

    Raises:
        ArgumentError: no table has the column, or what it holds are no classes.
        NothingLeft: nobody has a label.
    """
    if label.is_age:
        return listing
    _refuse_missing(listing.scans, label.column)
    wrong = [_what_is_wrong(text_of(scan, label.column), label) for scan in listing.scans]
    scans = tuple(scan for scan, reason in zip(listing.scans, wrong, strict=True) if not reason)
    dropped = [
        Drop(str(scan.path), reason, f"{scan.participant}: {text_of(scan, label.column)}")
        for scan, reason in zip(listing.scans, wrong, strict=True)
        if reason
    ]
    everything = (*listing.dropped, *dropped)
    if not scans:
        words = not label.classified and any(text_of(scan, label.column) for scan in listing.scans)
        remedy = "; for classes set --config.task=classification" if words else ""
        why = f"({count_reasons(dropped)}{remedy})"
        raise NothingLeft(f"no scan has a label in the column {label.column!r} {why}", everything)
    return listing._replace(scans=scans, dropped=everything)


def classes_of(scans: Sequence[Scan], label: Label) -> tuple[str, ...]:
    """The names of the classes, in the order of their numbers; empty for a number.

    Raises:
        ArgumentError: one class alone, or so many that the column holds none.
    """
    if not label.classified:
        return ()
    there = sorted({text_of(scan, label.column) for scan in scans})
    names = label.classes or tuple(there)
    if not 2 <= len(names) <= MOST_CLASSES:
        shown = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
        rule = (
            f"it has {len(there)} values ({shown}); choose a column with 2 to {MOST_CLASSES} classes, or a regression"
        )
        raise ArgumentError("label", label.column, rule)
    return names


def targets_of(scans: Sequence[Scan], label: Label, classes: Sequence[str] = ()) -> np.ndarray:
    """What is to be predicted, ``f32[N]``: a number, or the place in ``classes``; NaN where it is not known."""
    if label.is_age:
        return np.array([scan.age for scan in scans], np.float32)
    texts = [text_of(scan, label.column) for scan in scans]
    if label.classified:
        return np.array([classes.index(text) if text in classes else np.nan for text in texts], np.float32)
    return np.array([_number(text) for text in texts], np.float32)


def text_of(scan: Scan, column: str) -> str:
    """What the tables say of a scan in a column; empty where they say nothing."""
    known = {"sex": scan.sex, "site": scan.site}
    text = known.get(column.lower(), "n/a")
    text = scan.columns.get(column.lower(), "") if text == "n/a" and column.lower() != "sex" else text
    return "" if text.lower() in MISSING else text


def _what_is_wrong(text: str, label: Label) -> str:
    if not text:
        return f"{label.column} is missing"
    if not label.classified:
        return f"{label.column} is not a number" if np.isnan(_number(text)) else ""
    return f"{label.column} is none of data.classes" if label.classes and text not in label.classes else ""


def _number(text: str) -> float:
    """A number with a point or a comma before its decimals; NaN for whatever else."""
    return float(text.replace(",", ".")) if NUMBER.fullmatch(text) else float("nan")


def _refuse_missing(scans: Sequence[Scan], column: str) -> None:
    if any(text_of(scan, column) for scan in scans):
        return
    named = {name for scan in scans for name in (*scan.columns, "sex", "site")}
    there = sorted(name for name in named if any(text_of(scan, name) for scan in scans))
    raise ArgumentError("label", column, f"the tables say nothing of it; they have: {', '.join(there)}")

"""Radiata's brain-structure: 3,794 scans of five open studies, skull-stripped and in MNI space, with one table.

The table has a row a scan with its path, so that `scan_tables.read_table` reads it; here the studies and the split of
the table are added.
"""

from pathlib import Path

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.scan_tables import read_table
from fedsparse_jax.data.table_files import read_rows
from fedsparse_jax.data.tables import Listing, OtherLayout, Scan

_TESTS = ("own", "share")


def read_radiata(
    root: str | Path, *, site_col: str = "study", test: str = "own", cap_89: bool = False, strict: bool = False
) -> Listing:
    """The scans of ``metadata.csv``.

    Args:
        root: the folder that holds ``metadata.csv``, or that file.
        site_col: the column of the sites: ``study``, or such as ``scanner_model``.
        test: ``own``, the people whose ``split`` is test, and all others train (those of validation, too); or
            ``share``, a random share of the people (``data.test_share``).
        cap_89, strict: as in `scan_tables.read_table`.

    Raises:
        UsageError: no table, a column that is missing, or another option.
    """
    joining.refuse_unknown("test", test, _TESTS)
    path = Path(root) / "metadata.csv" if Path(root).is_dir() else Path(root)
    if not path.is_file():
        raise OtherLayout("root", str(root), "it must be the folder that holds metadata.csv")
    table = read_rows(path)
    split = ["split"] if test == "own" else []
    joining.need_rows(path.parent, table, "t1_local_path", "participant_id", "age", "study", *split)
    roles = dict(id_col="participant_id", age_col="age", path_col="t1_local_path", site_col=site_col)
    listing = read_table(path, **roles, cap_89=cap_89, strict=strict)  # type: ignore[arg-type]
    row_of = {str(path.parent / row["t1_local_path"]): row for row in table.rows}
    studies: dict[str, set[str]] = {}
    for scan in listing.scans:
        studies.setdefault(scan.participant, set()).add(row_of[str(scan.path)]["study"])

    def completed(scan: Scan) -> Scan:
        row = row_of[str(scan.path)]
        label = scan.participant.removeprefix("sub-")
        name = scan.participant if len(studies[scan.participant]) == 1 else f"sub-{row['study']}-{label}"
        return scan._replace(participant=name, test_set=_part(path, row["split"]) if test == "own" else "")

    validated = sum(row["split"].lower().startswith("val") for row in table.rows) if test == "own" else 0
    notes = [f"{path.name}: scans of the validation part that are trained on, {validated}"] if validated else []
    others = [note for note in listing.notes if "'split'" not in note]  # it was used
    return listing._replace(scans=tuple(map(completed, listing.scans)), notes=(*others, *notes))


def _part(table: Path, split: str) -> str:
    """The test set of a row; empty for the training."""
    parts = {"train": "", "val": "", "valid": "", "validation": "", "test": "test"}
    if split.lower() not in parts:
        raise UsageError(f"{table} has {split!r} in its column split; it must be train, validation or test.")
    return parts[split.lower()]

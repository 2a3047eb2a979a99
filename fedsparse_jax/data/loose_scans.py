"""Scans of whom nothing need be known: files, folders and tables as they come, to be predicted."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.cohorts.joining import files_below, is_image, person_and_session, stem_of
from fedsparse_jax.data.grids import grid_of_option
from fedsparse_jax.data.table_files import TABLES
from fedsparse_jax.data.tables import Drop, Listing, Scan, participant_id

NO_AGE = float("nan")


def list_loose(
    places: Sequence[str], read_known: Callable[[str], Listing | None], *, volumes: int = 1, affine=None
) -> Listing:
    """All scans of some places, without an age where none is known.

    Args:
        places: image files, folders, and tables of paths.
        read_known: reads a table, or a folder; None for a folder of which every image counts.
        volumes, affine: of such images and of files, as in `scan_tables.read_table`.

    Raises:
        UsageError: a place that is not there, is no scan, or holds none.
    """
    scans: list[Scan] = []
    dropped: list[Drop] = []
    notes: list[str] = []
    scan_of = lambda path: _scan(path, volumes, affine)
    for place in places:
        path = Path(place).expanduser()
        if not path.exists():
            raise UsageError(f"There is no {place}; give image files, a folder of them, or a table of paths.")
        if is_image_file(place):
            scans.append(scan_of(path))
            continue
        if path.is_file() and not path.name.lower().endswith(TABLES):
            raise UsageError(f"{place} is no image and no table; give image files, a folder, or a table of paths.")
        listing = read_known(place) or Listing(tuple(map(scan_of, files_below(path))))
        if not listing.scans:
            raise UsageError(f"{path} holds no image; give image files, a folder of them, or a table of paths.")
        scans, dropped = [*scans, *listing.scans], [*dropped, *listing.dropped]
        notes += listing.notes
    return Listing(tuple(scans), tuple(dropped), tuple(notes))


def is_image_file(place: str) -> bool:
    """Whether a place is one image, of which no table says anything."""
    path = Path(place).expanduser()
    return path.is_file() and is_image(path.name)


def _scan(path: Path, volumes: int, affine) -> Scan:
    person, session = person_and_session(stem_of(path.name), None) or (stem_of(path.name), "")
    session = f"ses-{session}" if session else ""
    grid = grid_of_option(affine, path) if affine else None
    return Scan(path, participant_id(person), session, NO_AGE, "n/a", "n/a", volumes=volumes, grid=grid)

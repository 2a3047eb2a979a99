"""Scans of whom nothing need be known: files, folders and tables as they come, to be predicted."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.bids import scans_of_nobody
from fedsparse_jax.data.cohorts.joining import files_below, is_image, person_and_session, stem_of
from fedsparse_jax.data.table_files import TABLES
from fedsparse_jax.data.tables import Drop, Listing, Scan, participant_id

NO_AGE = float("nan")


def list_loose(places: Sequence[str], read_known: Callable[[str], Listing | None]) -> Listing:
    """All scans of some places, without an age where none is known.

    Of a folder that holds BIDS names these scans count, of any other every image.

    Args:
        places: image files, folders, and tables of paths.
        read_known: reads a table, or a folder with a table of the people; None for a folder that has none.

    Raises:
        UsageError: a place that is not there, is no scan, or holds none.
    """
    scans: list[Scan] = []
    dropped: list[Drop] = []
    notes: list[str] = []
    for place in places:
        path = Path(place).expanduser()
        if not path.exists():
            raise UsageError(f"There is no {place}; give image files, a folder of them, or a table of paths.")
        if is_image_file(place):
            scans.append(_scan(path))
            continue
        if path.is_file() and not path.name.lower().endswith(TABLES):
            raise UsageError(f"{place} is no image and no table; give image files, a folder, or a table of paths.")
        listing = read_known(place) or _of_folder(path)
        scans, dropped = [*scans, *listing.scans], [*dropped, *listing.dropped]
        notes += listing.notes
    return Listing(tuple(scans), tuple(dropped), tuple(notes))


def is_image_file(place: str) -> bool:
    """Whether a place is one image, of which no table says anything."""
    path = Path(place).expanduser()
    return path.is_file() and is_image(path.name)


def _of_folder(folder: Path) -> Listing:
    named = scans_of_nobody(folder)
    scans = named.scans or tuple(map(_scan, files_below(folder)))
    if not scans:
        raise UsageError(f"{folder} holds no image; give image files, a folder of them, or a table of paths.")
    return named._replace(scans=scans)


def _scan(path: Path) -> Scan:
    person, session = person_and_session(stem_of(path.name), None) or (stem_of(path.name), "")
    return Scan(path, participant_id(person), f"ses-{session}" if session else "", NO_AGE, "n/a", "n/a")

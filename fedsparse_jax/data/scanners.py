"""Which scanner a scan comes from, as the cohort's table says it, or a JSON file beside the image (BIDS)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedsparse_jax.data.tables import Scan, value_of

MAKERS = ("scanner_manufacturer", "manufacturer", "scanner_vendor", "vendor")
MODELS_OF_SCANNERS = ("scanner_model", "manufacturersmodelname", "manufacturer_model_name", "model_name")
FIELD_STRENGTHS = ("field_strength", "magnetic_field_strength", "magneticfieldstrength", "scanner_field_strength")
LEVELS = 4  # folders of BIDS from an image up to the root of the data set


def scanner_of(scan: Scan) -> str:
    """Maker, model and field strength, as far as they are known; ``n/a`` where nothing is.

    >>> scanner_of(Scan(Path("a.nii"), "sub-1", "", 40, "F", "n/a", columns={"vendor": "GE", "field_strength": "1.5T"}))
    'GE, 1.5 T'
    """
    told = {**_from_sidecars(scan.path), **{name: text for name, text in scan.columns.items() if text}}
    maker, model, strength = (_first(told, names) for names in (MAKERS, MODELS_OF_SCANNERS, FIELD_STRENGTHS))
    named = model if maker and model.lower().startswith(maker.lower()) else f"{maker} {model}".strip()
    return ", ".join(filter(None, (named, _tesla(strength)))) or "n/a"


def _first(told: Mapping[str, str], names: tuple[str, ...]) -> str:
    """What is said under the first of some names that says anything; empty if none does."""
    texts = (value_of(dict(told), name) for name in names)
    return next((text for text in texts if text != "n/a"), "")


def _tesla(text: str) -> str:
    """A field strength with its unit.

    >>> _tesla("3.0"), _tesla("3 Tesla"), _tesla("high")
    ('3 T', '3 T', 'high')
    """
    try:
        return f"{float(text.lower().removesuffix('tesla').removesuffix('t')):.3g} T"
    except ValueError:
        return text


def _from_sidecars(image: Path) -> dict[str, str]:
    """Entries of the JSON files that describe an image, by small letters; the nearest file wins."""
    told: dict[str, str] = {}
    for file in _sidecars_of(image):
        try:
            entries = json.loads(file.read_text(encoding="utf-8-sig")) if file.is_file() else None
        except (OSError, ValueError):
            continue  # nothing but a line of the page hangs on it
        if isinstance(entries, dict):
            told = {str(name).lower(): str(entry) for name, entry in entries.items()} | told
    return told


def _sidecars_of(image: Path) -> Iterator[Path]:
    """The file of the image's own name, and those of its suffix in the folders above."""
    stem = image.name.split(".")[0]
    yield image.with_name(f"{stem}.json")
    yield from (folder / f"{stem.rpartition('_')[2]}.json" for folder in list(image.parents)[:LEVELS])

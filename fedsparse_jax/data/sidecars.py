"""JSON files beside tables: the unit of a column, and what its codes mean."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedsparse_jax.core.errors import UsageError

UNITS = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}  # years, months, weeks, days
UNIT = re.compile(r"((y)(ea)?(rs?)?|(m)(o|on|onths?)?|(w)(k|eeks?)?|(d)(ays?)?)( old| of age)?")
IN_WORDS = re.compile(r"(?:\bin\s+|[(\[]\s*)(months?|weeks?|days?)\b", re.IGNORECASE)


def unit_years(table: Path, column: str, inherited: Iterable[Path] = ()) -> float:
    """Length of a column's unit in years, from the ``Units`` of the JSON file beside the table, or one it inherits.

    Raises:
        UsageError: the JSON file is damaged, has another shape, or names another unit.
    """
    units = [_unit_in(sidecar, column) for sidecar in (table.with_suffix(".json"), *inherited) if sidecar.exists()]
    return next((unit for unit in units if unit), 1.0)


def levels_of(table: Path, column: str) -> dict[str, str]:
    """What the JSON file beside a table says of the codes of a column; empty where it says nothing."""
    sidecar = table.with_suffix(".json")
    levels = _entry(sidecar, column).get("levels") if sidecar.exists() else None
    return {str(code): str(meaning) for code, meaning in levels.items()} if isinstance(levels, dict) else {}


def _unit_in(sidecar: Path, column: str) -> float | None:
    """The unit that a JSON file gives a column; None where it gives none."""
    entry = _entry(sidecar, column)
    units = entry.get("units")
    if units is None:
        told = str(entry.get("description", ""))
        if other := IN_WORDS.search(told):
            example = f'"Units": "{other[1].lower()}"'
            raise UsageError(f"{sidecar} describes {column} as {told!r} without its unit; add {example}, or years.")
        return None
    text = re.sub(r"\(s\)$", "s", str(units).lower().strip())
    if not isinstance(units, str) or not UNIT.fullmatch(text):
        raise UsageError(f"{sidecar} gives {column} in {units!r}; use years, months, weeks or days.")
    return UNITS[text[0]]


def _entry(sidecar: Path, column: str) -> dict[str, Any]:
    """What a JSON file says of a column, by lower-case keys; a text alone counts as the description."""
    try:
        fields = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UsageError(f"{sidecar} is not valid JSON ({error}); mend or remove it.") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{sidecar} holds no object with an entry for each column; mend or remove it.")
    entry = {str(name).lower(): entry for name, entry in fields.items()}.get(column)
    if isinstance(entry, str):
        return {"description": entry}
    return {str(key).lower(): value for key, value in entry.items()} if isinstance(entry, dict) else {}

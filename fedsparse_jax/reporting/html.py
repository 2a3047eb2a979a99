"""Pieces of a page that loads nothing from anywhere: sections of text, tables and figures, put into a template.

A section is plain data; everything in it is escaped by the template engine.
"""

import base64
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure

from fedsparse_jax.reporting.style import render_figure
from fedsparse_jax.runs.series import as_number


class Text(NamedTuple):
    """A paragraph; ``kind`` is ``text``, ``note``, ``warning`` or, for verbatim text, ``code``."""

    text: str
    kind: str = "text"


class Table(NamedTuple):
    """Cells as text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = "table"


class Fold(NamedTuple):
    """Parts behind a line that opens them."""

    summary: str
    parts: Sequence[Any]
    open: bool = False
    kind: str = "fold"


class Section(NamedTuple):
    """A heading, what stands under it, and figures by name with their captions."""

    title: str
    parts: Sequence[Any]  # of Text, Table and Fold
    figures: dict[str, tuple[Figure, str]] = {}  # noqa: RUF012

    @property
    def pictures(self) -> list[dict[str, Any]]:
        """The figures as the template shows them: within the page."""
        return [
            {
                "png": base64.b64encode(render_figure(figure, "png", dpi=150)).decode(),
                "caption": caption,
                "width": round(7.6 * figure.get_figwidth()),  # rem: two narrow figures fit beside one another
            }
            for figure, caption in self.figures.values()
        ]


def render_page(title: str, tiles: Iterable[tuple[str, str, str]], sections: Iterable[Section]) -> str:
    """The whole page; a tile is a label, a value and a remark."""
    loader = jinja2.PackageLoader("fedsparse_jax.reporting", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True)
    return environment.get_template("report.html").render(title=title, tiles=tiles, sections=sections) + "\n"


def cell(value: Any) -> str:
    """A number for a table; a dash where there is none."""
    number = as_number(value)
    if not math.isfinite(number):
        return "–"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.3f}"


def formatted(value: float, form: str, unit: str = "") -> str:
    """A number with its unit; a dash where it is not finite."""
    return f"{value:{form}}{unit}" if math.isfinite(value) else "–"

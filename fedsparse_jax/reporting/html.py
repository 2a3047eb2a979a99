"""Pieces of a page that loads nothing from anywhere: sections with their figures inside them, tables, numbers."""

import base64
import html
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from fedsparse_jax.core import tasks
from fedsparse_jax.reporting import plots


class Section(NamedTuple):
    """A heading, what stands under it as HTML, and its figures by name."""

    title: str
    body: str
    figures: dict[str, Figure]
    captions: dict[str, str]


def whole(title: str, tiles: Iterable[tuple[str, str, str]], sections: Iterable[Section]) -> str:
    """The whole page; a tile is a label, a value and a remark."""
    head = "".join(
        f"<div class=tile><span>{text(label)}</span><b>{text(value)}</b><small>{text(remark)}</small></div>"
        for label, value, remark in tiles
    )
    body = "".join(
        f"<section><h2>{section.title}</h2>{section.body}<div class=figures>"
        f"{''.join(figure(section, name) for name in section.figures)}</div></section>"
        for section in sections
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<main><h1>{text(title)}</h1><div class=tiles>{head}</div>{body}</main></body></html>\n"
    )


def figure(section: Section, name: str) -> str:
    """One of its figures, as an image within the page."""
    data = base64.b64encode(plots.render(section.figures[name], "png", dpi=150)).decode()
    caption = text(section.captions[name])
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    width = 7.6 * section.figures[name].get_figwidth()  # rem: two narrow figures fit beside one another
    return f'<figure style="max-width:{width:.0f}rem">{image}<figcaption>{caption}</figcaption></figure>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already."""
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    header = "".join(f"<th>{text(name)}</th>" for name in head)
    return f"<div class=scroll><table><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table></div>"


def cell(value: Any) -> str:
    """A number for a table; a dash where there is none."""
    number = tasks.number(value)
    if not math.isfinite(number):
        return "–"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.3f}"


def number(value: float, form: str, unit: str = "") -> str:
    """Formatted, with its unit; a dash where it is not finite."""
    return f"{value:{form}}{unit}" if math.isfinite(value) else "–"


def text(value: Any) -> str:
    """Escaped."""
    return html.escape(str(value))


STYLE = """
body{margin:0;background:#f3f4f6;color:#1f2937;font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem}
h1{font-size:1.5rem;margin:.5rem 0 1rem}h2{font-size:1.15rem;margin:0 0 .75rem}
section{background:#fff;border:1px solid #e5e7eb;border-radius:.5rem;padding:1.25rem;margin:1rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:1rem}
.tile{background:#fff;border:1px solid #e5e7eb;border-radius:.5rem;padding:1rem;display:flex;flex-direction:column}
.tile span{color:#6b7280;font-size:.85rem}.tile b{font-size:1.6rem;line-height:1.3}.tile small{color:#4b5563}
.figures{display:flex;flex-wrap:wrap;gap:0 1rem;justify-content:center}figure{margin:1rem 0 0}
img{max-width:100%;height:auto;display:block;margin:0 auto}
figcaption,.note{color:#4b5563;font-size:.9rem}
.warning{background:#fef3c7;border-left:4px solid #d97706;padding:.6rem .9rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.2rem .8rem;border-bottom:1px solid #e5e7eb}
th:first-child,td:first-child{text-align:left;padding-left:0}
details{margin-top:.75rem}summary{cursor:pointer}pre{font-size:.8rem;overflow-x:auto}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""

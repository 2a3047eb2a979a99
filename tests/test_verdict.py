"""The page of verdicts quotes only numbers that stand on the pages it links, and the README shows its first table."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results.md"
NUMBER = re.compile(r"(?<![\d.])[+-]?\d+\.\d+(?![\d.])")


def rows_of(text: str) -> list[list[str]]:
    """Rows of the tables of claims, as their cells."""
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in rows if len(row) == 4 and "](" in row[3]]


def linked_numbers(row: list[str]) -> set[str]:
    """Numbers on the pages that a row links."""
    pages = [(PAGE.parent / target).read_text() for target in re.findall(r"\]\(([^)#]+)", row[3])]
    return {number.lstrip("+") for page in pages for number in NUMBER.findall(page)}


ROWS = rows_of(PAGE.read_text())


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:40] for row in ROWS])
def test_every_number_stands_on_a_linked_page(row):
    quoted = {number.lstrip("+") for number in NUMBER.findall(row[1])}
    assert quoted and quoted <= linked_numbers(row)


def test_the_readme_shows_the_first_five():
    in_readme = rows_of((ROOT / "README.md").read_text().replace("(docs/", "("))
    assert in_readme == ROWS[:5]


def test_a_number_from_nowhere_is_found():
    row = ["a claim", "12.345 years", "holds", "[headline](results/headline.md)"]
    assert not {"12.345"} <= linked_numbers(row)

"""Computed federations: the tables of the page, and that every part was printed on a page."""

import re
import subprocess
import sys

import pytest
from benchmarks import projection


def test_the_command_prints_the_tables_of_the_page(repository):
    page = (repository / "docs/scaling.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^python (scripts/benchmarks/projection.py)$", page, re.MULTILINE)
    printed = subprocess.run(
        [sys.executable, command], capture_output=True, text=True, cwd=repository, check=True
    ).stdout
    tables = printed.strip().split("\n\n")
    assert len(tables) == 2 and all(table in page for table in tables)


def test_every_part_stands_on_a_page(repository):
    pages = {name: (repository / f"docs/{name}.md").read_text(encoding="utf-8") for name in PARTS}
    for name, numbers in PARTS.items():
        for number in numbers:
            assert f"| {number} |" in pages[name], (name, number)


PARTS = {
    "results/performance": ["2.571", "0.0217", "2.787", "2.039"],
    "results/messages": ["9,714,806", "466,538", "0.007714"],
    "scaling": ["0.044", "1071.05", "0.109", "1678.94"],
}


def test_a_thousand_hospitals_by_hand():
    row = projection.hospitals(1000, "dense")
    # 400 scans at 0.64275 s; 2 x 1000 x 9,714,806 bytes by 125 MB/s; 2,948,801 x 5 bytes a model.
    assert row["training (s)"] == "257" and row["sending (s)"] == "155.4" and row["server's memory (GB)"] == "14.74"
    server = 1000 * (0.748 / 16 + 0.0217 / 8)
    assert float(row["server (s)"]) == pytest.approx(server, abs=0.05)
    assert float(row["rounds an hour"]) == pytest.approx(3600 / (257.1 + 155.4 + server), abs=0.05)
    # One hospital waits for its own link, which is the slower one.
    assert projection.hospitals(1, "95 %")["sending (s)"] == f"{2 * 466_538 / 12.5e6:.1f}"

"""Tables as Markdown, for the console and the documentation."""

from collections.abc import Iterable


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table; whole numbers get separators.

    >>> print(markdown_table(["leaf", "weights"], [["head", 14657]]), end="")
    | leaf | weights |
    | --- | --- |
    | head | 14,657 |
    """
    head = list(head)
    show = lambda cell: f"{cell:,}" if isinstance(cell, int) else str(cell)
    lines = [head, ["---"] * len(head), *([show(cell) for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)

"""Tables of aligned text, and of Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Return lines of columns as wide as their widest cell, two spaces apart.

    Args:
        header: The names of the columns.
        rows: Rows with as many cells as the header; an empty row gives an empty line.
        left: How many leading columns are aligned to the left; the others are to the right.

    Raises:
        ValueError: If a row has another number of cells.
    """
    for row in rows:
        if row and len(row) != len(header):
            raise ValueError(f"{len(row)} cells under {len(header)} columns: {row}")
    widths = [max(map(len, column)) for column in zip(header, *filter(None, rows), strict=True)]

    def line(cells: Sequence[str]) -> str:
        pairs = zip(cells, widths, strict=True)
        aligned = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(pairs)]
        return "  ".join(aligned).rstrip()

    rule = ["-" * w for w in widths]
    return "\n".join(line(row) if row else "" for row in [header, rule, *rows])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table in Markdown; arguments as of `table`, without empty rows."""
    alignment = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, alignment, *rows])

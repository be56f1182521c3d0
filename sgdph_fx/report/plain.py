"""The report for pipes and files: one line for each row, at full width, without colour."""

from __future__ import annotations

from collections.abc import Iterator

from sgdph_fx.report.tables import Document, Table

__all__ = ["plain"]

GAP = "  "


def plain(document: Document) -> str:
    """Text that ``grep`` and ``awk`` can read: all columns but the last are single aligned words."""
    blocks = ["\n".join(document.headline), *("\n".join(_lines(table)) for table in document.tables)]
    if document.notes:
        blocks.append("\n".join(document.notes))
    return "\n\n".join(blocks) + "\n"


def _lines(table: Table) -> Iterator[str]:
    yield table.heading
    rows = (table.columns, *table.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

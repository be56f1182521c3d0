"""The report as GitHub-flavoured Markdown, to keep beside the code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sgdph_fx.report.tables import Document, Table

__all__ = ["markdown"]

# A longer table is folded, so that a pull request stays readable.
LONG = 20
SPECIAL = re.compile(r"([\\`*_\[\]<>|])")


def markdown(document: Document) -> str:
    """Headline, then a section with a table for each of the document's tables."""
    headline = "\n".join(f"- {_escape(sentence)}" for sentence in document.headline)
    sections = ("\n".join(_lines(table)) for table in document.tables)
    notes = ["\n".join(f"- {_escape(note)}" for note in document.notes)] if document.notes else []
    return "\n\n".join(["# SGD with Partial Hessian", headline, *sections, *notes]) + "\n"


def _lines(table: Table) -> Iterator[str]:
    title = table.heading
    is_long = len(table.rows) > LONG
    yield f"<details><summary>{title}</summary>" if is_long else f"## {title}"
    yield ""
    yield _row(table.columns)
    yield _row(["---"] * len(table.columns))
    for row in table.rows:
        yield _row([_escape(cell) for cell in row])
    if is_long:
        yield "\n</details>"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return SPECIAL.sub(r"\\\1", text)

"""The report as a fragment of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sgdph_fx.report.tables import Document, Table

__all__ = ["html"]

# A notebook keeps what it shows in its file: the whole of a large model belongs on the page.
MOST_ROWS = 50


def html(document: Document) -> str:
    """Headline and foldable tables, without style or script of their own; long tables are cut, and say so."""
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in document.headline)
    tables = "".join(_table(table, document.whole) for table in document.tables)
    return f"<div>{sentences}{tables}</div>"


def _table(table: Table, whole: str) -> str:
    head = _row("th", table.columns)
    body = "".join(_row("td", row) for row in table.rows[:MOST_ROWS])
    summary = f"<summary>{escape(table.heading)}</summary>"
    more = len(table.rows) - MOST_ROWS
    rest = f"<p>{more:,} more: see <code>{escape(whole)}</code></p>" if more > 0 else ""
    return f"<details>{summary}<table><thead>{head}</thead><tbody>{body}</tbody></table>{rest}</details>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

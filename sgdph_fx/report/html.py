"""The report as a fragment of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sgdph_fx.report.tables import Document, Table

__all__ = ["html"]


def html(document: Document) -> str:
    """Headline and foldable tables, without style or script of their own."""
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in document.headline)
    return f"<div>{sentences}{''.join(map(_table, document.tables))}</div>"


def _table(table: Table) -> str:
    head = _row("th", table.columns)
    body = "".join(_row("td", row) for row in table.rows)
    summary = f"<summary>{escape(table.title)} ({len(table.rows):,})</summary>"
    return f"<details>{summary}<table><thead>{head}</thead><tbody>{body}</tbody></table></details>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

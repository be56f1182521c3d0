"""The report as a fragment of HTML, for notebooks, and its tables for the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sgdph_fx.report.tables import Document, Table

__all__ = ["html", "plain_tables"]

# A notebook keeps what it shows in its file: the whole of a large model belongs on the page.
MOST_ROWS = 50

# Inline, as many places that show notebooks take style sheets out; colours are those of the page around, but for a few
# marks that can be read on light and dark alike.
CELL = "text-align:left;vertical-align:top;padding:3px 14px 3px 0;border:0"
HEAD = f"{CELL};font-weight:600;opacity:.75"
BOX = "max-width:100%;overflow-x:auto"
TITLE = "cursor:pointer;padding:4px 0;font-weight:600"
MARKS = {
    "bare": "#b45309",
    "decoupled": "#b45309",
    "bare,kept": "#b45309",
    "normalized,decoupled": "#b45309",
    "second-order": "#3b66e0",
    "2": "#3b66e0",
}


def html(document: Document, digest: Document | None = None) -> str:
    """Headline and foldable tables, without any style sheet or script; long tables are cut, and say so.

    Args:
        document: The whole.
        digest: What fits on a screen, which is shown unfolded before it.
    """
    first, *others = document.headline
    sentences = f"<p><strong>{escape(first)}</strong></p>" + "".join(f"<p>{escape(s)}</p>" for s in others)
    short = (
        "".join(_styled(table, document.whole, unfolded=True) for table in digest.tables) if digest else ""
    )
    tables = "".join(_styled(table, document.whole) for table in document.tables)
    notes = "".join(f"<p>{escape(note)}</p>" for note in (document.notes if digest is None else ()))
    return f"<div>{sentences}{short}{tables}{notes}</div>"


def _styled(table: Table, whole: str, *, unfolded: bool = False) -> str:
    head = "".join(f'<th style="{HEAD}">{escape(name)}</th>' for name in table.columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows[:MOST_ROWS])
    more = len(table.rows) - MOST_ROWS
    rest = f"<p>{more:,} more: see <code>{escape(whole)}</code></p>" if more > 0 else ""
    every = "" if unfolded else ", every row"
    return (
        f'<details{" open" if unfolded else ""}><summary style="{TITLE}">{escape(table.heading)}{every}</summary>'
        f'<div style="{BOX}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{rest}</details>'
    )


def _cell(text: str) -> str:
    mark = f";color:{MARKS[text]};font-weight:600" if text in MARKS else ""
    return f'<td style="{CELL}{mark}">{escape(text)}</td>'


def plain_tables(document: Document) -> str:
    """The tables and what is said below them, for a page with a style sheet of its own."""
    tables = "".join(map(_plain, document.tables))
    return "".join(f"<p>{escape(s)}</p>" for s in document.headline) + tables


def _plain(table: Table) -> str:
    head = _row("th", table.columns)
    body = "".join(_row("td", row) for row in table.rows)
    return f"<h2>{escape(table.heading)}</h2><table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

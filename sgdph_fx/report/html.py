"""The report as a fragment of HTML, for notebooks, and its tables for the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sgdph_fx.report.tables import Document, Table

__all__ = ["html", "plain_tables"]

# A notebook keeps what it shows in its file: the whole of a large model belongs on the page.
MOST_ROWS = 50

# Where a viewer takes styles out, as GitHub does, plain tables are left. Colours are those of the notebook's theme, but
# for two marks that can be read on light and on dark.
STYLE = """
.sgdph-fx { max-width: 100%; overflow-x: auto; line-height: 1.45; }
.sgdph-fx p { margin: 2px 0; }
.sgdph-fx summary { cursor: pointer; padding: 6px 0 2px; font-weight: 600; }
.sgdph-fx table { border-collapse: collapse; margin: 2px 0 6px; font-size: 13px; }
.sgdph-fx th, .sgdph-fx td { border: 0; border-bottom: 1px solid rgba(128, 128, 128, 0.3); padding: 3px 14px 3px 0;
  text-align: left; vertical-align: top; background: none; }
.sgdph-fx td:first-child { font-family: monospace; }
.sgdph-fx .bare { color: #c2610a; font-weight: 600; }
.sgdph-fx .second { color: #4573ee; font-weight: 600; }
"""
MARKS = {
    "bare": "bare",
    "decoupled": "bare",
    "bare,kept": "bare",
    "normalized,decoupled": "bare",
    "second-order": "second",
    "2": "second",
}


def html(document: Document, digest: Document | None = None) -> str:
    """Headline and foldable tables, without any script; long tables are cut, and say so.

    Args:
        document: The whole.
        digest: What fits on a screen, which is shown unfolded before it.
    """
    first, *others = document.headline
    sentences = f"<p><strong>{escape(first)}</strong></p>" + "".join(f"<p>{escape(s)}</p>" for s in others)
    short = (
        "".join(_foldable(table, document.whole, unfolded=True) for table in digest.tables) if digest else ""
    )
    tables = "".join(_foldable(table, document.whole) for table in document.tables)
    notes = "".join(f"<p>{escape(note)}</p>" for note in document.notes)
    return f'<div class="sgdph-fx"><style>{STYLE}</style>{sentences}{short}{tables}{notes}</div>'


def _foldable(table: Table, whole: str, *, unfolded: bool = False) -> str:
    summary = f"<summary>{escape(table.heading)}{'' if unfolded else ', row by row'}</summary>"
    more = len(table.rows) - MOST_ROWS
    rest = f"<p>{more:,} more: see <code>{escape(whole)}</code></p>" if more > 0 else ""
    opened = " open" if unfolded else ""
    return f"<details{opened}>{summary}{_table(table, MOST_ROWS)}{rest}</details>"


def plain_tables(document: Document) -> str:
    """The sentences and the tables, for a page with a style sheet of its own."""
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in document.headline)
    return sentences + "".join(
        f"<h2>{escape(table.heading)}</h2>{_table(table)}" for table in document.tables
    )


def _table(table: Table, most: int | None = None) -> str:
    head = _row("th", table.columns)
    body = "".join(_row("td", row) for row in table.rows[:most])
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(_cell(tag, cell) for cell in cells)}</tr>"


def _cell(tag: str, text: str) -> str:
    mark = f' class="{MARKS[text]}"' if text in MARKS else ""
    return f"<{tag}{mark}>{escape(text)}</{tag}>"

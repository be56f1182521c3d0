"""The report on a terminal. The one module that knows rich.

Every string goes through ``Text``, never through markup: names and reasons may hold square brackets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from sgdph_fx.report.plain import plain
from sgdph_fx.report.tables import NONE, Document, Table

__all__ = ["render", "show", "text"]

# With less room than this for the sentences, a row is easier to read as a small paragraph.
ROOM_FOR_SENTENCES = 28
CELL_PADDING = 2
INDENT = 2

STYLES = {
    "bare": "yellow",
    "decoupled": "bold yellow",
    "normalized": "green",
    "kept": "dim",
    "2": "bold cyan",
}


def render(document: Document, width: int) -> Iterator[RenderableType]:
    """What rich shows: tables where ``width`` columns hold them, else a paragraph for each row."""
    for number, sentence in enumerate(document.headline):
        yield Text(sentence, style="bold" if number == 0 else "", overflow="fold")
    for table in document.tables:
        yield Text()
        yield Text(f"{table.title} ({len(table.rows):,})", style="bold underline")
        yield _grid(table) if _room_for_sentences(table, width) >= ROOM_FOR_SENTENCES else _stack(table)


def show(document: Document, file: TextIO | None = None) -> None:
    """Write the report to ``file``, standard output by default: laid out on a terminal, plain elsewhere."""
    stream = file or sys.stdout
    if not stream.isatty():
        stream.write(plain(document))
        return
    console = Console(
        file=stream, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto"
    )
    console.print(*render(document, console.width), sep="\n")


def text(document: Document) -> str:
    """The report without colour: as wide as the terminal where standard output is one, else plain."""
    if not sys.stdout.isatty():
        return plain(document).rstrip("\n")
    console = Console(highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(*render(document, console.width), sep="\n")
    return capture.get().rstrip("\n")


def _room_for_sentences(table: Table, width: int) -> int:
    columns = list(zip(table.columns, *table.rows, strict=True))
    words = sum(max(map(len, column)) + CELL_PADDING for column in columns[:-1])
    sentences = max(map(len, columns[-1])) + CELL_PADDING
    missing = max(0, words + sentences - width)
    return ROOM_FOR_SENTENCES if not missing else sentences - missing


def _grid(table: Table) -> RenderableType:
    grid = Grid(box=None, pad_edge=False, padding=(0, CELL_PADDING, 0, 0), header_style="dim")
    for column in table.columns[:-1]:
        grid.add_column(column, no_wrap=True)
    grid.add_column(table.columns[-1], overflow="fold")
    for row in table.rows:
        grid.add_row(*map(_cell, row))
    return grid


def _stack(table: Table) -> RenderableType:
    paragraphs: list[RenderableType] = []
    for name, *words, sentence in (row if len(row) > 1 else (*row, "") for row in table.rows):
        paragraphs.append(Text(name, style="bold", overflow="fold"))
        details = Text(" ", overflow="fold").join(_cell(word) for word in words if word != NONE)
        below = [line for line in (details, Text(sentence, overflow="fold")) if line.plain]
        paragraphs.extend(Padding(line, (0, 0, 0, INDENT), expand=False) for line in below)
    return Group(*paragraphs)


def _cell(word: str) -> Text:
    return Text(word, style=STYLES.get(word, ""), overflow="fold")

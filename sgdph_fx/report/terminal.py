"""The report on a terminal. The one module that knows rich.

Every string goes through ``Text``, never through markup: names and reasons may hold square brackets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from sgdph_fx.report.plain import plain
from sgdph_fx.report.tables import NONE, Document, Table

__all__ = ["FILE", "Screen", "render", "rendered", "screen_of"]

# With less room than this for the sentences, a row is easier to read as a small paragraph.
ROOM_FOR_SENTENCES = 28
# So much of a sentence still says something.
ENOUGH_OF_A_SENTENCE = 14
CELL_PADDING = 2
INDENT = 2

STYLES = {
    "bare": "yellow",
    "decoupled": "bold yellow",
    "bare,kept": "bold red",
    "normalized,decoupled": "bold red",
    "normalized": "green",
    "kept": "dim",
    "2": "bold cyan",
    "second-order": "bold cyan",
}


@dataclass(frozen=True, slots=True)
class Screen:
    """How much is seen at once.

    Args:
        width: In columns; None where a line may be of any length.
        height: In lines.
    """

    width: int | None
    height: int


# A file has no size. People who look at one see about as much at once as on a large terminal.
FILE = Screen(None, 40)


def screen_of(stream: TextIO) -> Screen:
    """The size of the terminal that ``stream`` is, or that of a file."""
    if not stream.isatty():
        return FILE
    console = _console(stream)
    return Screen(console.width, console.height)


def render(document: Document, width: int, *, one_line: bool = False) -> Iterator[RenderableType]:
    """What rich shows: tables where ``width`` columns hold them, else a paragraph for each row.

    Args:
        document: What to show.
        width: The number of columns.
        one_line: Give each row of a table one line, and cut its sentence there.
    """
    for number, sentence in enumerate(document.headline):
        yield Text(sentence, style="bold" if number == 0 else "", overflow="fold")
    for table in document.tables:
        yield Text()
        yield Text(table.heading, style="bold underline")
        if one_line:
            yield from _lines(table, width)
        else:
            yield _grid(table) if _room_for_sentences(table, width) >= ROOM_FOR_SENTENCES else _stack(table)
    if document.notes:
        yield Text()
        yield from (Text(note, style="dim", overflow="fold") for note in document.notes)


def rendered(document: Document, stream: TextIO, *, one_line: bool = False) -> str:
    """The report as it is written to ``stream``: laid out for a terminal, plain for all else."""
    if not stream.isatty():
        return plain(document)
    console = _console(stream)
    with console.capture() as capture:
        console.print(*render(document, console.width, one_line=one_line), sep="\n")
    return capture.get()


def _console(stream: TextIO) -> Console:
    """Without any escape code on a dumb terminal, or where ``NO_COLOR`` is set."""
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Console(file=stream, highlight=False, color_system=None if is_plain else "auto")


def _room_for_sentences(table: Table, width: int) -> int:
    columns = list(zip(table.columns, *table.rows, strict=True))
    words = sum(max(map(len, column)) + CELL_PADDING for column in columns[:-1])
    sentences = max(map(len, columns[-1])) + CELL_PADDING
    missing = max(0, words + sentences - width)
    return ROOM_FOR_SENTENCES if not missing else sentences - missing


def _lines(table: Table, width: int) -> Iterator[RenderableType]:
    """One line for each row: the sentence gives way first, then the name."""
    rows = (table.columns, *table.rows)
    name, *words, sentence = (max(map(len, column)) for column in zip(*rows, strict=True))
    left = width - sum(word + CELL_PADDING for word in words) - CELL_PADDING
    sentence = min(sentence, max(left - name, ENOUGH_OF_A_SENTENCE, 0))
    name = min(name, max(left - sentence, 1))
    for number, row in enumerate(rows):
        cells = [
            Text(_cut(cell, size).ljust(size + CELL_PADDING), style=STYLES.get(cell, "") if number else "dim")
            for cell, size in zip(row, (name, *words, sentence), strict=True)
        ]
        line = Text().join(cells)
        line.rstrip()
        line.truncate(width)
        yield line


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"


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
    return Text(word, style=STYLES.get(word, ""))

"""The base of results that show themselves: printed, on a terminal, in a notebook, as Markdown."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TextIO

from sgdph_fx.report import html, markdown, terminal
from sgdph_fx.report.tables import Document

__all__ = ["Shown"]


class Shown(ABC):
    """A result with sentences and tables. A subclass says what they are."""

    __slots__ = ()

    @abstractmethod
    def _document(self) -> Document:
        """All sentences and tables."""

    def _digest(self, screen: terminal.Screen) -> Document | None:
        """What fits on ``screen``; None if there is nothing shorter than the whole."""
        return None

    def to_markdown(self) -> str:
        """GitHub-flavoured Markdown: the headline and all tables."""
        return markdown.markdown(self._document())

    def to_text(self, file: TextIO | None = None, *, full: bool = False) -> str:
        """What :meth:`show` writes to ``file``, as a string."""
        stream = file or sys.stdout
        short = None if full else self._digest(terminal.screen_of(stream))
        return terminal.rendered(short or self._document(), stream, one_line=short is not None)

    def show(self, file: TextIO | None = None, *, full: bool = False) -> None:
        """Write it to ``file``.

        On a terminal it is laid out in the terminal's width, with colour unless ``NO_COLOR`` is set;
        elsewhere each row is one line, whole and without colour.

        Args:
            file: Where to write; standard output by default.
            full: Every row, in place of what fits on a screen.
        """
        stream = file or sys.stdout
        stream.write(self.to_text(stream, full=full))

    def __str__(self) -> str:
        return self.to_text().rstrip("\n")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._document().headline[0]}>"

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        short = self._digest(terminal.Screen(options.max_width, console.height))
        yield from terminal.render(short or self._document(), options.max_width, one_line=short is not None)

    def _repr_html_(self) -> str:
        return html.html(self._document())

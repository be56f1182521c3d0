"""What can show itself: printed, on a terminal, in a notebook, as Markdown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TextIO

from sgdph_fx.report import html, markdown, terminal
from sgdph_fx.report.tables import Document

__all__ = ["Shown"]


class Shown(ABC):
    """A result with its sentences and tables; what they are is all that a subclass has to say."""

    __slots__ = ()

    @abstractmethod
    def _document(self) -> Document:
        """The sentences and tables."""

    def to_markdown(self) -> str:
        """GitHub-flavoured Markdown: the headline and all tables."""
        return markdown.markdown(self._document())

    def show(self, file: TextIO | None = None) -> None:
        """Write it to ``file``, standard output by default.

        On a terminal it is laid out in the terminal's width, with colour unless ``NO_COLOR`` is set;
        elsewhere each row is one line, whole and without colour.
        """
        terminal.show(self._document(), file)

    def __str__(self) -> str:
        return terminal.text(self._document())

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        yield from terminal.render(self._document(), options.max_width)

    def _repr_html_(self) -> str:
        return html.html(self._document())

"""A line on a terminal that says what is taking long. In a pipe, and for quick work, nothing is printed."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

from .streams import is_dumb

__all__ = ["Line", "progress"]

FIRST_AFTER = 1.0
EVERY = 0.25


class Line:
    """One line of a terminal, written anew again and again, without escape codes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._width = stream, 0

    def show(self, text: str) -> None:
        """Put ``text`` in place of what was shown last."""
        self._stream.write(f"\r{text.ljust(self._width)}")
        self._stream.flush()
        self._width = len(text)

    def clear(self) -> None:
        """Leave the line empty."""
        if self._width:
            self.show("")
            self._stream.write("\r")
            self._stream.flush()


@contextlib.contextmanager
def progress(what: str, stream: TextIO | None = None) -> Iterator[None]:
    """Say what is going on if it takes longer than a second.

    Args:
        what: The work, such as ``"Comparing"``.
        stream: Where to say so, standard error by default. Nothing is said if it is no terminal, or a dumb one.
    """
    stream = stream or sys.stderr
    if stream is None or not stream.isatty() or is_dumb():
        yield
        return
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(what, Line(stream), over), daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _tell(what: str, line: Line, over: threading.Event) -> None:
    if over.wait(FIRST_AFTER):
        return
    seconds = FIRST_AFTER
    while True:
        line.show(f"{what} … {seconds:.0f} s")
        if over.wait(EVERY):
            break
        seconds += EVERY
    line.clear()

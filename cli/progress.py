"""A line on a terminal that says what takes so long; nothing in a pipe, and nothing for what is quick."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

__all__ = ["progress"]

FIRST_AFTER = 1.0
EVERY = 0.25
CLEAR = "\r\x1b[K"


@contextlib.contextmanager
def progress(what: str, stream: TextIO | None = None) -> Iterator[None]:
    """Say on ``stream``, standard error by default, what is going on for longer than a second.

    Args:
        what: What is done, as ``"Comparing"``.
        stream: Where to say so; if it is no terminal, nothing is said.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        yield
        return
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(what, stream, over), daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _tell(what: str, stream: TextIO, over: threading.Event) -> None:
    if over.wait(FIRST_AFTER):
        return
    seconds = FIRST_AFTER
    while True:
        stream.write(f"{CLEAR}{what} … {seconds:.0f} s")
        stream.flush()
        if over.wait(EVERY):
            break
        seconds += EVERY
    stream.write(CLEAR)
    stream.flush()

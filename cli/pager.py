"""A long report through a pager, as git and man do it."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from typing import TextIO

__all__ = ["page"]

DEFAULT = "less"
# Colours as they are, and nothing of the screen taken away at the end.
FLAGS_OF_LESS = "FRX"


def page(text: str, stream: TextIO, height: int) -> None:
    """Show ``text`` on ``stream``: through ``$PAGER`` on a terminal of fewer lines than it has, else directly.

    Args:
        text: What to show.
        stream: Where.
        height: The number of lines of the terminal.
    """
    command = _command(os.environ.get("PAGER", DEFAULT))
    is_short = text.count("\n") < height
    if is_short or not stream.isatty() or os.environ.get("TERM") == "dumb" or command in ([], ["cat"]):
        stream.write(text)
        return
    stream.flush()
    environment = {"LESS": FLAGS_OF_LESS, **os.environ}
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream, env=environment)
    except OSError:  # there is no such pager
        stream.write(text)
        return
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # you left the pager
        process.stdin.write(text.encode("utf-8", "backslashreplace"))
        process.stdin.close()
    _wait(process)


def _command(pager: str) -> list[str]:
    """The words of a command line. One that no shell reads either is taken for a program, which is not there."""
    try:
        return shlex.split(pager)
    except ValueError:  # an open quote
        return [pager]


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Until the pager ends: Ctrl-C is the pager's business."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
            return

"""Where results and remarks go, whatever the model's own code prints.

Results go to standard output, alone, and all else to standard error. As a program, the command keeps the real standard
output for itself: descriptor 1 leads to standard error, for the model's threads, exit handlers and child processes too.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import click

__all__ = [
    "QUIET",
    "code_of_lost_output",
    "is_dumb",
    "keep_standard_output",
    "only_results",
    "remark",
    "results",
]

QUIET = "sgdph_fx.quiet"
"""Where a command's context says that remarks are not wanted."""

_kept: TextIO | None = None


class _Closed(io.StringIO):
    """A standard output that was closed when the program started."""

    def write(self, text: str, /) -> int:
        raise OSError(errno.EBADF, "it is closed")


def keep_standard_output(is_open: bool) -> None:
    """Keep standard output for :func:`results`, and lead descriptor 1 to standard error."""
    global _kept
    _kept = _copy_of(1, sys.stdout.encoding) if is_open else _Closed()
    os.dup2(2, 1)
    sys.stdout = _kept


def _copy_of(number: int, encoding: str | None) -> TextIO:
    """A stream of its own to where a descriptor leads."""
    own = os.dup(number)
    # A pipe may be ASCII where a name or a reason is not: an escaped letter is better than no report.
    return open(own, "w", 1 if os.isatty(own) else -1, encoding=encoding, errors="backslashreplace")


def results() -> TextIO:
    """The stream for results."""
    return sys.stdout if _kept is None else _kept


@contextlib.contextmanager
def only_results() -> Iterator[None]:
    """Send what is printed inside to standard error, and, in a program, all that is printed afterwards."""
    if _kept is not None:
        if sys.stdout is _kept:
            # A stream of its own: what the model's code closes is not ours.
            sys.stdout = _copy_of(2, sys.stderr.encoding if sys.stderr is not None else None)
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def remark(text: str) -> None:
    """Say something beside the results, on standard error, unless the command is to be quiet."""
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.get(QUIET):
        click.echo(text, err=True)


def code_of_lost_output(error: OSError) -> int:
    """Give up standard output after ``error``, and say why, unless the reader of a pipe has simply seen enough."""
    from .errors import lost_output

    stream = results()
    with contextlib.suppress(OSError, ValueError):
        # What is still in the buffer can then be flushed, at the end of the process, without a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    lost = lost_output(error)
    if error.errno != errno.EPIPE:
        with contextlib.suppress(OSError):
            lost.show()
    return lost.exit_code


def is_dumb() -> bool:
    """Whether the terminal does nothing but print from left to right."""
    return os.environ.get("TERM") == "dumb"

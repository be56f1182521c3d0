"""The manners of every command: what a model's own code prints, and how an error ends."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from io import TextIOWrapper

import click

from .errors import explain

__all__ = ["accept_any_letter", "working"]


@contextlib.contextmanager
def working(with_traceback: bool) -> Iterator[None]:
    """The part of a command that runs the person's code and ours; nothing of it goes to standard output.

    What the model's own code prints must not end up in a report that another program reads. An error
    becomes one paragraph with an exit code.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        if with_traceback:
            click.echo(traceback.format_exc(), err=True, nl=False)
        raise explain(error) from error


def accept_any_letter() -> None:
    """A pipe may be ASCII where a name or a reason is not: an escaped letter is better than no report."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

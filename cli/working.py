"""What every command does around the model's own code: contain it, and turn errors into messages."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator

import click

from .errors import explain
from .streams import only_results

__all__ = ["same_folder", "working"]


@contextlib.contextmanager
def working(with_traceback: bool) -> Iterator[None]:
    """Run the model's code and ours.

    What the code prints stays out of standard output, where another program may read a report, and the current folder
    is the same afterwards. An error, ``sys.exit`` included, becomes one paragraph with an exit code.
    """
    try:
        with only_results(), same_folder():
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if with_traceback:
            click.echo(traceback.format_exc(), err=True, nl=False)
        raise explain(error) from error


@contextlib.contextmanager
def same_folder() -> Iterator[None]:
    """Come back to the current folder, wherever it is moved meanwhile."""
    try:
        folder = os.open(".", os.O_RDONLY)
    except OSError:  # it has been removed, or the system cannot open folders
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.fchdir(folder)
        os.close(folder)

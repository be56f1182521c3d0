"""What a command writes must not be what it reads: a slip in a name would take a person's only copy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

__all__ = ["refuse_to_overwrite"]


def refuse_to_overwrite(read: Iterable[Path | None], written: Iterable[Path | None]) -> None:
    """Raise a usage error if a file that is going to be written is one of those that are read, or written already.

    Args:
        read: Files that the command reads; None for those that were not given.
        written: Files that it writes.
    """
    taken = [path for path in read if path is not None]
    for path in written:
        if path is None:
            continue
        if any(_is_same(path, other) for other in taken):
            raise click.UsageError(
                f"{path} would be written over, and this command reads it or writes it otherwise. Choose another name."
            )
        taken.append(path)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return one == other

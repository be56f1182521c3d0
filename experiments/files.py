"""Write a file in one step, so that a kill leaves the old file or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "write_text"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a place to write to that becomes ``path`` when the block ends without an error.

    Args:
        path: The file to replace. Its folder must exist.

    Yields:
        A file beside ``path``, with the same suffix.
    """
    part = path.with_name(f".part-{path.name}")
    try:
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the whole of ``path`` by ``text``, in UTF-8."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")

"""Write files so that a kill does no harm: replace one in one step, or append whole lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["append_line", "replacing", "write_text"]


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


def append_line(path: Path, line: str) -> None:
    """Append one line in UTF-8. If a killed process left half a line, start a new one.

    Several processes may append to one file: each line is written in one piece.

    Args:
        path: The file. Its folder must exist.
        line: The line, without its end.
    """
    with path.open("a+b") as stream:
        start = "" if _ends_whole(stream) else "\n"
        stream.write(f"{start}{line}\n".encode())


def _ends_whole(stream: IO[bytes]) -> bool:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - 1, 0))
    return stream.read() in (b"", b"\n")
